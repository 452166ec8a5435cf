//! A strong reference that costs nothing beyond the reference count.
//!
//! pyo3's `Py` asks at every drop whether the thread is attached. State that only the loop's thread touches
//! knows that it is, so it holds [`Owned`].

use std::ptr::NonNull;

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

/// A strong reference to a Python object.
///
/// Invariant: dropped and cloned only by a thread that is attached to the interpreter. Code that stores one in a
/// place that another thread can reach keeps this.
#[repr(transparent)]
pub struct Owned(NonNull<ffi::PyObject>);

// SAFETY: a reference may move between threads as long as each use is attached (the invariant above).
unsafe impl Send for Owned {}

impl Owned {
    /// Takes over a new reference.
    ///
    /// # Safety
    /// `ptr` is a strong reference that no other code will release; the thread is attached.
    #[inline]
    pub unsafe fn steal(ptr: *mut ffi::PyObject) -> Self {
        debug_assert!(!ptr.is_null());
        // SAFETY: non-null is promised.
        Self(unsafe { NonNull::new_unchecked(ptr) })
    }

    /// Takes over the result of a C call, or the error it raised.
    ///
    /// # Safety
    /// As for [`steal`](Self::steal), or null with an exception set.
    #[inline]
    pub unsafe fn steal_or_err(py: Python<'_>, ptr: *mut ffi::PyObject) -> PyResult<Self> {
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Self(ptr)),
            None => Err(PyErr::fetch(py)),
        }
    }

    /// Makes a new reference to a borrowed object.
    ///
    /// # Safety
    /// `ptr` is a live object; the thread is attached.
    #[inline]
    pub unsafe fn borrow(ptr: *mut ffi::PyObject) -> Self {
        // SAFETY: promised.
        unsafe {
            ffi::Py_INCREF(ptr);
            Self::steal(ptr)
        }
    }

    /// Makes a new reference to be released by another thread.
    ///
    /// On the free-threaded build an object belongs to the thread that made it, which counts its own references without
    /// atomics. A reference that the owner adds and another thread drops leaves the two counts to be reconciled through a
    /// queue to the owner. So this one is added to the shared count from the start, as any other thread would add it.
    ///
    /// # Safety
    /// `ptr` is a live object; the thread is attached.
    #[inline]
    pub unsafe fn borrow_for_another_thread(ptr: *mut ffi::PyObject) -> Self {
        #[cfg(Py_GIL_DISABLED)]
        // SAFETY: promised. Immortal objects have no count; the shared count is above two flag bits.
        unsafe {
            use std::sync::atomic::Ordering;
            if (*ptr).ob_ref_local.load(Ordering::Relaxed) != u32::MAX {
                (*ptr).ob_ref_shared.fetch_add(4, Ordering::Relaxed);
            }
            Self::steal(ptr)
        }
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: promised.
        unsafe {
            Self::borrow(ptr)
        }
    }

    /// The same of a `Bound`, whose object is alive and whose thread is attached.
    #[inline]
    pub fn for_another_thread<T>(object: &Bound<'_, T>) -> Self {
        // SAFETY: see above.
        unsafe { Self::borrow_for_another_thread(object.as_ptr()) }
    }

    #[inline]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// A view as pyo3's own reference type.
    #[inline]
    pub fn as_py(&self) -> &Py<PyAny> {
        // SAFETY: both are transparent wrappers of one non-null object pointer.
        unsafe { &*(&raw const *self).cast() }
    }

    /// Gives the reference away.
    #[inline]
    pub fn into_ptr(self) -> *mut ffi::PyObject {
        let ptr = self.0.as_ptr();
        std::mem::forget(self);
        ptr
    }

    #[inline]
    pub fn bind<'a, 'py>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: `self` keeps the object alive for 'a.
        unsafe { Borrowed::from_ptr(py, self.as_ptr()) }
    }

    /// A second reference; the token proves that the thread is attached.
    #[inline]
    pub fn clone_ref(&self, _py: Python<'_>) -> Self {
        // SAFETY: `self` is alive and the thread attached.
        unsafe { Self::borrow(self.as_ptr()) }
    }

    #[inline]
    pub fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: the reference moves over.
        unsafe { Bound::from_owned_ptr(py, self.into_ptr()) }
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        rawthread::quiet::check_over();
        // SAFETY: the invariant: attached, and this is our reference.
        unsafe { ffi::Py_DECREF(self.as_ptr()) };
    }
}

impl<T> From<Bound<'_, T>> for Owned {
    fn from(bound: Bound<'_, T>) -> Self {
        // SAFETY: a Bound is a strong reference held by an attached thread.
        unsafe { Self::steal(bound.into_ptr()) }
    }
}

impl<T> From<&Bound<'_, T>> for Owned {
    fn from(bound: &Bound<'_, T>) -> Self {
        Self::from(bound.clone())
    }
}
