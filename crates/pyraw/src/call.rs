//! Calls without intermediate objects: arguments on the stack, bound methods never made.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::Owned;
use crate::names::Name;

/// `object.name()`; null with an exception set on failure.
///
/// # Safety
/// Attached; `object` is alive.
#[inline]
pub unsafe fn method0_raw(object: *mut ffi::PyObject, name: Name) -> *mut ffi::PyObject {
    let args = [ptr::null_mut(), object];
    // SAFETY: one argument at args[1]; args[0] is scratch for the callee, as the flag says.
    unsafe {
        ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            args.as_ptr().add(1),
            1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        )
    }
}

/// `object.name(arg)`; null with an exception set on failure.
///
/// # Safety
/// Attached; both objects are alive.
#[inline]
pub unsafe fn method1_raw(
    object: *mut ffi::PyObject,
    name: Name,
    arg: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let args = [ptr::null_mut(), object, arg];
    // SAFETY: two arguments at args[1..]; args[0] is scratch.
    unsafe {
        ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            args.as_ptr().add(1),
            2 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        )
    }
}

/// `object.name(first, second)`; null with an exception set on failure.
///
/// # Safety
/// Attached; all objects are alive.
#[inline]
pub unsafe fn method2_raw(
    object: *mut ffi::PyObject,
    name: Name,
    first: *mut ffi::PyObject,
    second: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let args = [ptr::null_mut(), object, first, second];
    // SAFETY: three arguments at args[1..]; args[0] is scratch.
    unsafe {
        ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            args.as_ptr().add(1),
            3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        )
    }
}

#[inline]
pub fn method0(py: Python<'_>, object: &Owned, name: Name) -> PyResult<Owned> {
    // SAFETY: attached and alive.
    unsafe { Owned::steal_or_err(py, method0_raw(object.as_ptr(), name)) }
}

#[inline]
pub fn method1(py: Python<'_>, object: &Owned, name: Name, arg: &Bound<'_, PyAny>) -> PyResult<Owned> {
    // SAFETY: attached and alive.
    unsafe { Owned::steal_or_err(py, method1_raw(object.as_ptr(), name, arg.as_ptr())) }
}

/// The iterator by which an `await` waits for a future.
pub fn awaiting(py: Python<'_>, future: &Owned) -> PyResult<Owned> {
    let object = future.as_ptr();
    // SAFETY: attached and alive.
    unsafe {
        let slots = (*ffi::Py_TYPE(object)).tp_as_async;
        match slots.as_ref().and_then(|slots| slots.am_await) {
            Some(slot) => Owned::steal_or_err(py, slot(object)),
            None => Err(pyo3::exceptions::PyTypeError::new_err("not awaitable")),
        }
    }
}

/// The iterator's next step: what it yields; None at its end, whatever it returns.
pub fn advance(py: Python<'_>, steps: &Owned) -> PyResult<Option<Owned>> {
    // SAFETY: attached and alive; an iterator, as every result of `awaiting`. Null without an exception is the end.
    unsafe {
        let yielded = ffi::PyIter_Next(steps.as_ptr());
        if !yielded.is_null() {
            return Ok(Some(Owned::steal(yielded)));
        }
        PyErr::take(py).map_or(Ok(None), Err)
    }
}
