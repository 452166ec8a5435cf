//! Rust errors as the Python exceptions that CPython itself would raise.

use std::io;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

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
