//! What only tokioloop needs of CPython's C API: imports, names, errors, awaitables, types over asyncio's. All else is in the crate
//! `pyraw`, whose rooms are named here too: the layers above use both as `crate::py`, and pyo3's safe types.
//!
//! Rules kept here for all of them:
//! - [`Owned`] is dropped attached to the interpreter only. The loop's thread is attached whenever it runs Rust code
//!   other than the wait; what native threads post carries no Python object.
//! - No Rust borrow of loop or transport state is alive across a call into Python.

pub mod awaitable;
pub mod derived;
pub mod errors;
pub mod imports;
pub mod modules;
pub mod names;
pub mod runtime;

pub use pyraw::{
    Attached, Owned, away, buffer, bytes, call, class, context, fatal, interpreter, panic, pyclass,
};

/// All of `pyraw`, by which the layers above name its functions.
pub(crate) use pyraw as raw;

/// Methods of types made from specs, and their arguments.
pub mod method {
    pub(crate) use pyraw::arguments::{all_arguments, arguments, optional_number, required};
    pub(crate) use pyraw::method::new_value;
    pub(crate) use pyraw::result::IntoResult;
    pub(crate) use pyraw::{function, getter, method, method_with, setter};
}
