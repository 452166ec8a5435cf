//! Method descriptors: what a class holds for each of its methods in C.

use std::ffi::CStr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use crate::Owned;

/// Adds a raw method to a type that pyo3 made.
pub fn add_method(class: &Bound<'_, PyAny>, definition: ffi::PyMethodDef) -> PyResult<()> {
    let definition = Box::leak(Box::new(definition));
    // SAFETY: the definition and its name live forever; the class is a live type.
    unsafe {
        let name = CStr::from_ptr(definition.ml_name);
        let descriptor = ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition);
        let descriptor = Owned::steal_or_err(class.py(), descriptor)?;
        class.setattr(&*name.to_string_lossy(), descriptor.bind(class.py()))
    }
}

/// Gives a class method descriptors of its own for the methods in C that it inherits from `base`. A descriptor looks for its class
/// among all those an object's class is derived from, in their order, at each call: the first is found at once.
pub fn own_methods(class: &Bound<'_, PyType>, base: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    for entry in base.getattr("__dict__")?.call_method0("items")?.try_iter()? {
        let (name, inherited): (Bound<'_, PyString>, Bound<'_, PyAny>) = entry?.extract()?;
        if let Some(definition) = definition(&inherited)
            && class.getattr(&name)?.is(&inherited)
        {
            // SAFETY: attached; the class is a live type, and the definition lives as long as the base.
            let own = unsafe {
                Owned::steal_or_err(py, ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition))?
            };
            class.setattr(&name, own.bind(py))?;
        }
    }
    Ok(())
}

/// Whether two method descriptors are of one method, even in different classes.
pub fn is_same_method(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
    definition(one).is_some_and(|method| definition(other) == Some(method))
}

/// The definition behind a method descriptor of a type in C, which lives as long as the type.
fn definition(descriptor: &Bound<'_, PyAny>) -> Option<*mut ffi::PyMethodDef> {
    // SAFETY: of the type with that layout, as is checked.
    unsafe {
        (ffi::Py_TYPE(descriptor.as_ptr()) == &raw mut ffi::PyMethodDescr_Type)
            .then(|| (*descriptor.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method)
    }
}

/// The C function behind a method descriptor of a type in C, if that takes no arguments.
pub fn method_without_arguments(descriptor: &Bound<'_, PyAny>) -> Option<ffi::PyCFunction> {
    let definition = definition(descriptor)?;
    // SAFETY: alive with its type; its flags say which of the kinds of function it is.
    unsafe {
        let method = &*definition;
        (method.ml_flags == ffi::METH_NOARGS).then_some(method.ml_meth.PyCFunction)
    }
}
