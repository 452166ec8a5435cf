//! Exact `bytes` objects: making them, looking into them, receiving into them. None of this runs Python code.

use std::{io, ptr, slice};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::Owned;

/// What an object holds.
///
/// # Safety
/// An exact `bytes` object.
#[inline]
pub unsafe fn contents(bytes: &Owned) -> &[u8] {
    // SAFETY: promised; it does not change and lives as long as the reference.
    unsafe { contents_raw(bytes.as_ptr()) }
}

/// The same of an object that is borrowed elsewhere.
///
/// # Safety
/// An exact `bytes` object, alive as long as the result.
#[inline]
pub unsafe fn contents_raw<'a>(bytes: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: promised.
    unsafe {
        let start = ffi::PyBytes_AsString(bytes).cast::<u8>();
        slice::from_raw_parts(start, ffi::PyBytes_Size(bytes) as usize)
    }
}

/// An object that holds a copy.
#[inline]
pub fn copy(py: Python<'_>, data: &[u8]) -> PyResult<Owned> {
    // SAFETY: attached; a new reference or null with MemoryError set.
    unsafe {
        let bytes = ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), data.len() as isize);
        Owned::steal_or_err(py, bytes)
    }
}

/// An object that `call` received into: it gets memory for `limit` bytes, at least one, and says how many it filled, beside what
/// else it returns.
pub fn received<T>(
    py: Python<'_>,
    limit: usize,
    call: impl FnOnce(*mut u8, usize) -> io::Result<(usize, T)>,
) -> PyResult<io::Result<(Owned, T)>> {
    // SAFETY: attached; the object is ours alone until it has its final size. Resizing frees it on failure and sets null.
    unsafe {
        let mut object = ffi::PyBytes_FromStringAndSize(ptr::null(), limit as isize);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        match call(ffi::PyBytes_AsString(object).cast(), limit) {
            Ok((count, other)) => {
                if count < limit && ffi::_PyBytes_Resize(&mut object, count as isize) != 0 {
                    return Err(PyErr::fetch(py));
                }
                Ok(Ok((Owned::steal(object), other)))
            }
            Err(error) => {
                ffi::Py_DECREF(object);
                Ok(Err(error))
            }
        }
    }
}
