//! Everything that touches CPython's C API directly: owned pointers, interned names, imports, contexts, calls,
//! types made from specs, awaitables. The layers above use these and pyo3's safe types.
//!
//! Rules kept here for all of them:
//! - [`Owned`] is dropped attached to the interpreter only. The loop's thread is attached whenever it runs Rust code
//!   other than the wait; what native threads post carries no Python object.
//! - No Rust borrow of loop or transport state is alive across a call into Python.

pub mod attached;
pub mod awaitable;
pub mod buffer;
pub mod bytes;
pub mod call;
pub mod class;
pub mod context;
pub mod derived;
pub mod errors;
pub mod fatal;
pub mod imports;
pub mod method;
pub mod modules;
pub mod names;
mod nesting;
pub mod owned;
pub mod panic;
pub mod pyclass;
pub mod raw;
pub mod runtime;

pub use attached::Attached;
pub use owned::Owned;
