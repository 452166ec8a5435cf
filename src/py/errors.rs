//! Rust errors as the Python exceptions that CPython itself would raise.

use std::{io, ptr};

use pyo3::exceptions::{PyDeprecationWarning, PyOSError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::{Owned, imports, raw};
use crate::sys;

/// `OSError(errno, strerror)`: Python picks the subclass by the number. An error of Rust's own making, which has no
/// number, becomes the exception of its kind.
pub fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(code) => PyOSError::new_err((code, sys::error_text(code))),
        None if error.kind() == io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
        None => error.into(),
    }
}

/// Turns the error of a system call's result into the exception.
pub trait OrOsError<T> {
    fn or_os_error(self) -> PyResult<T>;
}

impl<T> OrOsError<T> for io::Result<T> {
    fn or_os_error(self) -> PyResult<T> {
        self.map_err(os_error)
    }
}

/// What `tp_iternext` gives for a return: null, with StopIteration set unless the result is None.
#[inline]
pub fn end_with(py: Python<'_>, value: Owned) -> PyResult<*mut ffi::PyObject> {
    if !value.bind(py).is_none() {
        stop_with(py, value)?;
    }
    Ok(ptr::null_mut())
}

/// What a method gives that does as `tp_iternext`: unlike the slot it must raise.
///
/// # Safety
/// Attached; the slot's result.
pub unsafe fn raise_the_end(result: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: promised.
    unsafe {
        if result.is_null() && ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_SetNone(ffi::PyExc_StopIteration);
        }
    }
    result
}

/// Raises StopIteration with a value, of whatever kind that is.
fn stop_with(py: Python<'_>, value: Owned) -> PyResult<()> {
    let object = value.as_ptr();
    // SAFETY: alive. A tuple would be taken for the arguments, an exception for the instance to raise: those are wrapped first.
    unsafe {
        if ffi::PyTuple_Check(object) == 0 && ffi::PyExceptionInstance_Check(object) == 0 {
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, object);
            return Ok(());
        }
    }
    let stop = py.get_type::<PyStopIteration>().call1((value.bind(py),))?;
    PyErr::from_value(stop).restore(py);
    Ok(())
}

/// The exception that an awaitable's `throw(exception)` was given, or the deprecated `throw(type, value, traceback)`.
///
/// # Safety
/// Attached; `nargs` arguments, all alive.
pub unsafe fn thrown(py: Python<'_>, args: *const *mut ffi::PyObject, nargs: isize) -> PyResult<PyErr> {
    raw::expect_args("throw", nargs, 1, 3)?;
    let given = |index: isize| {
        // SAFETY: promised.
        (index < nargs).then(|| unsafe { Bound::<PyAny>::from_borrowed_ptr(py, *args.offset(index)) })
    };
    if nargs > 1 {
        let text =
            "the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        imports::warn(py)?.call1((text, py.get_type::<PyDeprecationWarning>()))?;
    }
    let kind = given(0).expect("checked");
    let value = given(1).filter(|value| !value.is_none());
    let traceback = given(2).filter(|traceback| !traceback.is_none());
    // SAFETY: only types are looked at.
    let (is_class, is_instance, is_traceback) = unsafe {
        (
            ffi::PyExceptionClass_Check(kind.as_ptr()) != 0,
            ffi::PyExceptionInstance_Check(kind.as_ptr()) != 0,
            traceback.as_ref().is_none_or(|traceback| ffi::PyTraceBack_Check(traceback.as_ptr()) != 0),
        )
    };
    if !is_traceback {
        return Err(PyTypeError::new_err("throw() third argument must be a traceback"));
    }
    let error = if is_class {
        match value {
            Some(value) if value.is_instance(&kind)? => value,
            Some(value) => kind.call1((value,))?,
            None => kind.call0()?,
        }
    } else if is_instance {
        if value.is_some() {
            return Err(PyTypeError::new_err("instance exception may not have a separate value"));
        }
        kind
    } else {
        return Err(PyTypeError::new_err(
            "exceptions must be classes deriving BaseException or instances of such a class",
        ));
    };
    if let Some(traceback) = traceback {
        error.setattr("__traceback__", traceback)?;
    }
    Ok(PyErr::from_value(error))
}

/// The error of the first of two steps that are both made, whatever becomes of the other. Where both have failed, the second one's
/// error goes to `sys.unraisablehook`.
pub fn both(first: PyResult<()>, second: PyResult<()>, object: &Bound<'_, PyAny>) -> PyResult<()> {
    match (first, second) {
        (Err(first), Err(second)) => {
            second.write_unraisable(object.py(), Some(object));
            Err(first)
        }
        (first, second) => first.and(second),
    }
}
