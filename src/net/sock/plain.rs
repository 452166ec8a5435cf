//! Exact `socket.socket` objects: what they are is known, so that they can be asked without looking anything up.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::{Owned, imports, raw};

struct Known {
    class: *mut ffi::PyTypeObject,
    /// The C function behind the method.
    fileno: ffi::PyCFunction,
}
// SAFETY: the type is never freed, and safe to use from any attached thread.
unsafe impl Send for Known {}
// SAFETY: as above.
unsafe impl Sync for Known {}

static KNOWN: OnceLock<Known> = OnceLock::new();

pub fn init(py: Python<'_>) -> PyResult<()> {
    let class = imports::socket_type(py)?;
    let fileno = raw::method_without_arguments(&class.getattr("fileno")?)
        .ok_or_else(|| PyRuntimeError::new_err("socket.socket.fileno is not a method in C"))?;
    let _ = KNOWN.set(Known { class: class.clone().into_ptr().cast(), fileno });
    Ok(())
}

fn known() -> &'static Known {
    KNOWN.get().expect("looked up by the module's init")
}

#[inline]
pub fn is_plain(sock: &Bound<'_, PyAny>) -> bool {
    // SAFETY: alive; only the type is looked at.
    unsafe { ffi::Py_TYPE(sock.as_ptr()) == known().class }
}

/// Of an exact `socket.socket`; -1 when it is closed.
#[inline]
pub fn descriptor(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    // SAFETY: attached; an instance of the method's class, alive. The result is a new reference or null.
    unsafe {
        let number = (known().fileno)(sock.as_ptr(), ptr::null_mut());
        let number = Owned::steal_or_err(sock.py(), number)?;
        match ffi::PyLong_AsLong(number.as_ptr()) {
            -1 if !ffi::PyErr_Occurred().is_null() => Err(PyErr::fetch(sock.py())),
            fd => Ok(fd as RawFd),
        }
    }
}
