//! Running calls inside a `contextvars.Context`.

use pyo3::ffi;
use pyo3::prelude::*;

use crate::Owned;

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

/// Whether no variable is set in a context. An object that is not a context counts as not empty.
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

/// A context that this thread has entered, and leaves when this is dropped. The thread itself keeps the context alive meanwhile.
#[must_use]
pub struct Entered(*mut ffi::PyObject);

impl Entered {
    /// None with an exception set for an object that is not a Context, or one entered already.
    ///
    /// # Safety
    /// Attached; `context` is alive. The result is dropped by this thread, before what was entered earlier is left.
    #[inline]
    pub unsafe fn enter(context: *mut ffi::PyObject) -> Option<Self> {
        // SAFETY: promised.
        if unsafe { ffi::PyContext_Enter(context) } == 0 { Some(Self(context)) } else { None }
    }

    /// The cheaper way out, where no exception is set. False with one set where another thread entered or left the same context
    /// meanwhile: a free-threaded 3.13 does not notice that it is in use, and then refuses to leave it.
    #[inline]
    #[must_use]
    pub fn leave(self) -> bool {
        // SAFETY: entered, and kept by the thread.
        let left = unsafe { ffi::PyContext_Exit(self.0) };
        std::mem::forget(self);
        left == 0
    }
}

impl Drop for Entered {
    /// For a way out with an exception set, and for a panic.
    #[cold]
    fn drop(&mut self) {
        // SAFETY: entered, and kept by the thread, which is attached.
        unsafe {
            let raised = ffi::PyErr_GetRaisedException();
            ffi::PyContext_Exit(self.0);
            ffi::PyErr_SetRaisedException(raised);
        }
    }
}

/// Calls `call` inside `context`; what it raises is left set and shows as a null result, as in C.
///
/// # Safety
/// Attached; `context` is a live object (one that is not a Context, or entered already, makes this raise).
#[inline]
pub unsafe fn run_raw(
    context: *mut ffi::PyObject,
    call: impl FnOnce() -> *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller; Exit must follow each successful Enter, also when the call raised.
    unsafe {
        let Some(entered) = Entered::enter(context) else { return std::ptr::null_mut() };
        let result = call();
        // Exit may not be called with an exception set.
        if result.is_null() {
            drop(entered)
        } else if !entered.leave() {
            ffi::Py_DECREF(result);
            return std::ptr::null_mut();
        }
        result
    }
}

/// As [`run`], except that the call is made even if the context cannot be entered, most often because this is inside of it.
#[cold]
pub fn run_if_outside<R>(py: Python<'_>, context: &Owned, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    // SAFETY: attached; `context` is alive.
    let entered = unsafe { Entered::enter(context.as_ptr()) };
    if entered.is_none() {
        // Says no more than that.
        drop(PyErr::take(py));
    }
    let result = call();
    drop(entered);
    result
}

/// As [`run_raw`], for closures over pyo3's safe types.
pub fn run<R>(py: Python<'_>, context: &Owned, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    // SAFETY: attached; `context` is alive.
    let Some(entered) = (unsafe { Entered::enter(context.as_ptr()) }) else { return Err(PyErr::fetch(py)) };
    let result = call();
    // A PyErr in `result` is not set on the thread.
    if !entered.leave() {
        let refused = PyErr::fetch(py);
        return result.and(Err(refused));
    }
    result
}
