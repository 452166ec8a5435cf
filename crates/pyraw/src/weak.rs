//! Weak references, looked at without running Python code.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::Owned;

/// A weak reference without a callback.
pub fn weak_reference(object: &Bound<'_, PyAny>) -> PyResult<Owned> {
    // SAFETY: attached and alive; a new reference or null with an exception set.
    unsafe { Owned::steal_or_err(object.py(), ffi::PyWeakref_NewRef(object.as_ptr(), ptr::null_mut())) }
}

/// What a weak reference refers to, while that lives. Runs no Python code.
pub fn referent(_py: Python<'_>, reference: &Owned) -> Option<Owned> {
    let mut object = ptr::null_mut();
    // SAFETY: attached; a live weak reference. GetRef gives a new reference or null.
    unsafe {
        ffi::compat::PyWeakref_GetRef(reference.as_ptr(), &mut object);
        (!object.is_null()).then(|| Owned::steal(object))
    }
}

/// Whether anybody made a weak reference to the object.
///
/// # Safety
/// Attached; the object is alive, and no thread makes one meanwhile.
#[inline]
pub(crate) unsafe fn has_weak_references(object: *mut ffi::PyObject) -> bool {
    // SAFETY: promised; the list is at the type's offset, if it has one.
    unsafe {
        let offset = (*ffi::Py_TYPE(object)).tp_weaklistoffset;
        offset != 0 && !(*object.byte_offset(offset).cast::<*mut ffi::PyObject>()).is_null()
    }
}

/// Whether a weak reference refers to `object`, which is alive. Counts nothing and takes no lock.
pub fn refers_to(reference: &Owned, object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live weak reference; the field is a word, emptied before the memory of what it names is used again. So whatever
    // other threads do meanwhile, it names a referenced object only if it refers to that one.
    unsafe {
        let field = &raw mut (*reference.as_ptr().cast::<ffi::PyWeakReference>()).wr_object;
        let field = std::sync::atomic::AtomicPtr::from_ptr(field);
        field.load(std::sync::atomic::Ordering::Relaxed) == object.as_ptr()
    }
}

/// Whether what a weak reference referred to is gone. Runs no Python code and drops nothing.
pub fn is_dead(reference: &Owned) -> bool {
    // SAFETY: as above. None stands for what is gone.
    unsafe {
        let field = &raw mut (*reference.as_ptr().cast::<ffi::PyWeakReference>()).wr_object;
        let field = std::sync::atomic::AtomicPtr::from_ptr(field);
        field.load(std::sync::atomic::Ordering::Relaxed) == ffi::Py_None()
    }
}
