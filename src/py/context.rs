//! Running calls inside a `contextvars.Context`.

use pyo3::ffi;
use pyo3::prelude::*;

use super::Owned;

/// A copy of the current context.
pub fn copy_current(py: Python<'_>) -> PyResult<Owned> {
    // SAFETY: attached; returns a new reference or raises.
    unsafe { Owned::steal_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// A new, empty context.
pub fn new(py: Python<'_>) -> PyResult<Owned> {
    // SAFETY: attached; returns a new reference or raises.
    unsafe { Owned::steal_or_err(py, ffi::PyContext_New()) }
}

/// Whether no variable is set in a context. Something that is no context at all counts as not empty.
pub fn is_empty(py: Python<'_>, context: &Owned) -> PyResult<bool> {
    // SAFETY: attached and alive.
    unsafe {
        if ffi::PyContext_CheckExact(context.as_ptr()) == 0 {
            return Ok(false);
        }
        match ffi::PyObject_Size(context.as_ptr()) {
            -1 => Err(PyErr::fetch(py)),
            size => Ok(size == 0),
        }
    }
}

/// A copy of `context`.
pub fn copy(py: Python<'_>, context: &Owned) -> PyResult<Owned> {
    // SAFETY: attached; contexts kept by the loop are `Context` objects, checked when they were given.
    unsafe { Owned::steal_or_err(py, ffi::PyContext_Copy(context.as_ptr())) }
}

/// Calls `call` inside `context`; what it raises is left set and shows as a null result, as in C.
///
/// # Safety
/// Attached; `context` is a live object (one that is no Context, or entered already, makes this raise).
#[inline]
pub unsafe fn run_raw(
    context: *mut ffi::PyObject,
    call: impl FnOnce() -> *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller; Exit must follow each successful Enter, also when the call raised.
    unsafe {
        if ffi::PyContext_Enter(context) != 0 {
            return std::ptr::null_mut();
        }
        let result = call();
        if result.is_null() {
            // Exit may not be called with an exception set.
            let raised = ffi::PyErr_GetRaisedException();
            ffi::PyContext_Exit(context);
            ffi::PyErr_SetRaisedException(raised);
        } else {
            ffi::PyContext_Exit(context);
        }
        result
    }
}

/// As [`run_raw`], for closures over pyo3's safe types.
pub fn run<R>(py: Python<'_>, context: &Owned, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    // SAFETY: attached; `context` is alive.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    let result = call();
    // SAFETY: entered above; a PyErr in `result` is not set on the thread.
    unsafe { ffi::PyContext_Exit(context.as_ptr()) };
    result
}
