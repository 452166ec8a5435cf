//! Attribute and keyword names, interned once for the process so that look-ups compare pointers.

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};

/// An interned string (or a tuple of them) that lives as long as the process.
#[derive(Clone, Copy)]
pub struct Name(*mut ffi::PyObject);

// SAFETY: the object is never freed and immutable.
unsafe impl Send for Name {}
// SAFETY: as above.
unsafe impl Sync for Name {}

impl Name {
    /// The interned string.
    pub fn intern(py: Python<'_>, text: &str) -> Self {
        Self(PyString::intern(py, text).into_ptr())
    }

    /// Keeps an immutable object forever.
    pub fn keep<T>(object: Bound<'_, T>) -> Self {
        Self(object.into_ptr())
    }

    #[inline]
    pub fn as_ptr(self) -> *mut ffi::PyObject {
        self.0
    }

    pub fn bind(self, py: Python<'_>) -> Borrowed<'_, '_, PyString> {
        // SAFETY: a live str; names of tuples are never bound.
        unsafe { Borrowed::from_ptr(py, self.0).cast_unchecked() }
    }
}
