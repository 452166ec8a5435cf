//! Methods of types made from specs: from the C signature to a Rust expression and back.

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Defines a C function, without or with one argument, whose body sees the object as a `$view`: something made by
/// `$view::new(&Bound<PyAny>)`. The body is an expression of type `PyResult<impl IntoResult>`.
#[macro_export]
macro_rules! method {
    ($name:ident($object:ident: $view:ident) $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut ::pyo3::ffi::PyObject,
            _: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type.
            unsafe {
                $crate::enter(|py| {
                    let object = ::pyo3::Bound::from_borrowed_ptr(py, object);
                    let $object = $view::new(&object);
                    $body.map(|value| $crate::result::IntoResult::into_result(value, py))
                })
            }
        }
    };
    ($name:ident($object:ident: $view:ident, $argument:ident) $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut ::pyo3::ffi::PyObject,
            argument: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type and an argument.
            unsafe {
                $crate::enter(|py| {
                    let object = ::pyo3::Bound::from_borrowed_ptr(py, object);
                    let $argument = ::pyo3::Bound::from_borrowed_ptr(py, argument);
                    let $object = $view::new(&object);
                    $body.map(|value| $crate::result::IntoResult::into_result(value, py))
                })
            }
        }
    };
}

/// As [`method!`], for fast calls with optional arguments, by position or by name: the body sees each as an
/// `Option<Bound<PyAny>>`. `$text` is the method's name in messages.
#[macro_export]
macro_rules! method_with {
    ($name:ident($object:ident: $view:ident, $text:literal, $($argument:ident),+) $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut ::pyo3::ffi::PyObject,
            args: *const *mut ::pyo3::ffi::PyObject,
            nargs: isize,
            keywords: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type, as a fast call with keywords.
            unsafe {
                $crate::enter(|py| {
                    let names = [$(stringify!($argument)),+];
                    let [$($argument),+] =
                        $crate::arguments::arguments(py, $text, names, args, nargs, keywords)?;
                    let object = ::pyo3::Bound::from_borrowed_ptr(py, object);
                    let $object = $view::new(&object);
                    $body.map(|value| $crate::result::IntoResult::into_result(value, py))
                })
            }
        }
    };
}

/// Defines a C function, without or with one argument, that enters Rust by `$enter` (see [`enter`](mod@crate::enter)). The body is an expression of type
/// `PyResult<*mut PyObject>`; it sees what `$make` makes of the object.
#[macro_export]
macro_rules! function {
    ($enter:ident $visible:vis $name:ident $(<$kind:ident: $bound:ident>)? (
        $py:ident, $object:ident, $view:ident = $make:expr $(, $argument:ident)?
    ) $body:expr) => {
        $visible unsafe extern "C" fn $name $(<$kind: $bound>)? (
            $object: *mut ::pyo3::ffi::PyObject,
            _argument: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type and an argument that stays alive. A body that is
            // entered by `enter_hot` drops no `Py`.
            unsafe {
                $crate::$enter(|$py| {
                    let $view = $make;
                    $(let $argument = ::pyo3::Bound::<::pyo3::PyAny>::from_borrowed_ptr($py, _argument);)?
                    $body
                })
            }
        }
    };
}

/// Defines the C function that reads an attribute; as [`function!`].
#[macro_export]
macro_rules! getter {
    ($name:ident $(<$kind:ident: $bound:ident>)? ($py:ident, $object:ident, $view:ident = $make:expr) $body:expr) => {
        unsafe extern "C" fn $name $(<$kind: $bound>)? (
            $object: *mut ::pyo3::ffi::PyObject,
            _: *mut ::std::ffi::c_void,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type.
            unsafe {
                $crate::enter(|$py| {
                    let $view = $make;
                    $body
                })
            }
        }
    };
}

/// Defines the C function that sets an attribute, which can't be deleted. The body is an expression of type `PyResult<()>`; it sees
/// the new value as a `Bound<PyAny>`.
#[macro_export]
macro_rules! setter {
    ($name:ident $(<$kind:ident: $bound:ident>)? (
        $py:ident, $object:ident, $view:ident = $make:expr, $value:ident
    ) $body:expr) => {
        unsafe extern "C" fn $name $(<$kind: $bound>)? (
            $object: *mut ::pyo3::ffi::PyObject,
            value: *mut ::pyo3::ffi::PyObject,
            _: *mut ::std::ffi::c_void,
        ) -> ::std::ffi::c_int {
            // SAFETY: called by Python, attached, with an object of the type and a value, or null to delete it.
            unsafe {
                $crate::enter(|$py| {
                    let $value = $crate::method::new_value($py, value)?;
                    let $view = $make;
                    $body.map(|()| 0)
                })
            }
        }
    };
}

/// The new value of an attribute. AttributeError for a deletion.
///
/// # Safety
/// Null, or alive in the caller's hands.
pub unsafe fn new_value<'py>(py: Python<'py>, value: *mut ffi::PyObject) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: promised.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, value) }
        .ok_or_else(|| PyAttributeError::new_err("cannot delete attribute"))
}
