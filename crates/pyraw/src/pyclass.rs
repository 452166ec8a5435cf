//! What pyo3's classes leave out as bases of Python classes: each instance holds a reference to its class, which a class in C has to
//! show to the collector and to release. pyo3 (0.28) does neither, so a class over one of ours would live forever.
//!
//! None of these classes has a list of weak references or a dict of its own (pyo3 would release the fields before it clears the
//! one). The Python classes over them have both, and CPython's order.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;

/// A pyo3 class that Python classes derive from.
pub trait BaseClass: PyClass {
    fn functions() -> &'static Functions;
}

/// The functions that pyo3 gave a class.
pub struct Functions(OnceLock<(ffi::destructor, Option<ffi::traverseproc>)>);

impl Default for Functions {
    fn default() -> Self {
        Self::new()
    }
}

impl Functions {
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
}

/// Gives a class functions that do all. Called by the module's init.
pub fn complete<T: BaseClass>(py: Python<'_>) {
    let class = py.get_type::<T>().as_type_ptr();
    // SAFETY: a live type of ours that has no instance and is not a base yet.
    unsafe {
        debug_assert!((*class).tp_weaklistoffset == 0 && (*class).tp_dictoffset == 0);
        let Some(original) = (*class).tp_dealloc else { return };
        if T::functions().0.set((original, (*class).tp_traverse)).is_ok() {
            (*class).tp_dealloc = Some(dealloc::<T>);
            if (*class).tp_traverse.is_some() {
                (*class).tp_traverse = Some(traverse::<T>);
            }
        }
    }
}

unsafe extern "C" fn dealloc<T: BaseClass>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference, or by the function of a class over the type, which leaves the type to us
    // and touches nothing afterwards.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        if let Some((original, _)) = T::functions().0.get() {
            original(object);
        }
        ffi::Py_DECREF(kind.cast());
    }
}

unsafe extern "C" fn traverse<T: BaseClass>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector with its own arguments. The function of a derived class leaves the type to us.
    unsafe {
        match (visit(ffi::Py_TYPE(object).cast(), argument), T::functions().0.get()) {
            (0, Some((_, Some(original)))) => original(object, visit, argument),
            (stopped, _) => stopped,
        }
    }
}
