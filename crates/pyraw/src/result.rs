//! What C functions return: an object, a number, or the sign of an error.

use std::ffi::c_int;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

/// What a C function pointer of a type returns; `FAILED` with an exception set means an error.
pub trait Returned: Copy {
    const FAILED: Self;
}

impl Returned for *mut ffi::PyObject {
    const FAILED: Self = ptr::null_mut();
}

impl Returned for c_int {
    const FAILED: Self = -1;
}

/// A new reference to None.
#[inline]
pub fn none(py: Python<'_>) -> *mut ffi::PyObject {
    py.None().into_ptr()
}

#[inline]
pub fn boolean(py: Python<'_>, value: bool) -> *mut ffi::PyObject {
    value.into_pyobject(py).map_or(ptr::null_mut(), |object| object.to_owned().into_any().into_ptr())
}

/// What the methods' bodies return.
pub trait IntoResult {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject;
}

impl IntoResult for () {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject {
        none(py)
    }
}

impl IntoResult for bool {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject {
        boolean(py, self)
    }
}

impl IntoResult for Bound<'_, PyAny> {
    fn into_result(self, _: Python<'_>) -> *mut ffi::PyObject {
        self.into_ptr()
    }
}
