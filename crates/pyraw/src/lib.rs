//! CPython's C API for extensions in Rust: owned references, calls, contexts, bytes, types from specs. It needs no more than pyo3,
//! and knows nothing of what is built with it.
//!
//! Rules kept here for all of it:
//! - [`Owned`] is dropped attached to the interpreter only.
//! - No Rust borrow of an object's state is alive across a call into Python.

pub mod arguments;
pub mod away;
pub mod buffer;
pub mod bytes;
pub mod call;
pub mod class;
pub mod context;
pub mod counts;
pub mod descriptor;
pub mod enter;
pub mod fatal;
pub mod interpreter;
pub mod lock;
pub mod method;
pub mod names;
mod nesting;
pub mod owned;
pub mod panic;
pub mod pyclass;
pub mod result;
pub mod spec;
pub mod weak;

pub use lock::Attached;
pub use owned::Owned;

pub use arguments::expect_args;
pub use counts::{enable_try_incref, is_garbage, is_nobody_elses, share_cheaply, try_incref};
pub use descriptor::{add_method, is_same_method, method_without_arguments, own_methods};
pub use enter::{check_stack, enter, enter_hot, told};
pub use result::{Returned, boolean, none};
pub use spec::{
    AM_SEND, FastKeywords, TypeSpec, fast_keywords, get_true, getter, member, method, no_args, one_arg,
    property, weaklist_member,
};
pub use weak::{is_dead, referent, refers_to, weak_reference};

/// Measures what differs from one build of the interpreter to the next; called once by the module's init, before anything else.
pub fn init(py: pyo3::Python<'_>) {
    counts::init(py);
}
