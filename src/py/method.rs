//! Methods of types made from specs: from the C signature to a Rust expression and back.

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi};

use super::raw;

/// What the methods' bodies return.
pub trait IntoResult {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject;
}

impl IntoResult for () {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject {
        raw::none(py)
    }
}

impl IntoResult for bool {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject {
        raw::boolean(py, self)
    }
}

impl IntoResult for Bound<'_, PyAny> {
    fn into_result(self, _: Python<'_>) -> *mut ffi::PyObject {
        self.into_ptr()
    }
}

/// Defines a C function, without or with one argument, whose body sees the object as a `$view`: something made by
/// `$view::new(&Bound<PyAny>)`. The body is an expression of type `PyResult<impl IntoResult>`.
macro_rules! method {
    ($name:ident($object:ident: $view:ident) $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut ::pyo3::ffi::PyObject,
            _: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type.
            unsafe {
                $crate::py::raw::enter(|py| {
                    let object = ::pyo3::Bound::from_borrowed_ptr(py, object);
                    let $object = $view::new(&object);
                    $body.map(|value| $crate::py::method::IntoResult::into_result(value, py))
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
                $crate::py::raw::enter(|py| {
                    let object = ::pyo3::Bound::from_borrowed_ptr(py, object);
                    let $argument = ::pyo3::Bound::from_borrowed_ptr(py, argument);
                    let $object = $view::new(&object);
                    $body.map(|value| $crate::py::method::IntoResult::into_result(value, py))
                })
            }
        }
    };
}

/// As [`method!`], for fast calls with optional arguments, by position or by name: the body sees each as an
/// `Option<Bound<PyAny>>`. `$text` is the method's name in messages.
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
                $crate::py::raw::enter(|py| {
                    let names = [$(stringify!($argument)),+];
                    let [$($argument),+] =
                        $crate::py::method::arguments(py, $text, names, args, nargs, keywords)?;
                    let object = ::pyo3::Bound::from_borrowed_ptr(py, object);
                    let $object = $view::new(&object);
                    $body.map(|value| $crate::py::method::IntoResult::into_result(value, py))
                })
            }
        }
    };
}

/// Defines a C function, without or with one argument, that enters Rust by `$enter` (see [`raw`]). The body is an expression of type
/// `PyResult<*mut PyObject>`; it sees what `$make` makes of the object.
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
                $crate::py::raw::$enter(|$py| {
                    let $view = $make;
                    $(let $argument = ::pyo3::Bound::<::pyo3::PyAny>::from_borrowed_ptr($py, _argument);)?
                    $body
                })
            }
        }
    };
}

/// Defines the C function that reads an attribute; as [`function!`].
macro_rules! getter {
    ($name:ident $(<$kind:ident: $bound:ident>)? ($py:ident, $object:ident, $view:ident = $make:expr) $body:expr) => {
        unsafe extern "C" fn $name $(<$kind: $bound>)? (
            $object: *mut ::pyo3::ffi::PyObject,
            _: *mut ::std::ffi::c_void,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type.
            unsafe {
                $crate::py::raw::enter(|$py| {
                    let $view = $make;
                    $body
                })
            }
        }
    };
}

/// Defines the C function that sets an attribute, which can't be deleted. The body is an expression of type `PyResult<()>`; it sees
/// the new value as a `Bound<PyAny>`.
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
                $crate::py::raw::enter(|$py| {
                    let $value = $crate::py::method::new_value($py, value)?;
                    let $view = $make;
                    $body.map(|()| 0)
                })
            }
        }
    };
}

pub(crate) use {function, getter, method, method_with, setter};

/// The new value of an attribute. AttributeError for a deletion.
///
/// # Safety
/// Null, or alive in the caller's hands.
pub unsafe fn new_value<'py>(py: Python<'py>, value: *mut ffi::PyObject) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: promised.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, value) }
        .ok_or_else(|| PyAttributeError::new_err("cannot delete attribute"))
}

/// The values of optional arguments, given by position or by name.
///
/// # Safety
/// The arguments are those of a fast call with keywords.
pub unsafe fn arguments<'py, const N: usize>(
    py: Python<'py>,
    method: &str,
    names: [&str; N],
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    raw::expect_args(method, nargs, 0, N as isize)?;
    let mut values = [const { None }; N];
    // SAFETY: `nargs` positional values, then one per keyword name.
    unsafe {
        for (index, value) in values.iter_mut().enumerate().take(nargs as usize) {
            *value = Some(Bound::from_borrowed_ptr(py, *args.add(index)));
        }
        if !keywords.is_null() {
            let keywords = Borrowed::from_ptr(py, keywords).cast_unchecked::<PyTuple>();
            for (index, keyword) in keywords.iter().enumerate() {
                let keyword: String = keyword.extract()?;
                let Some(place) = names.iter().position(|name| *name == keyword) else {
                    return Err(PyTypeError::new_err(format!(
                        "{method}() got an unexpected keyword argument '{keyword}'"
                    )));
                };
                let value = Bound::from_borrowed_ptr(py, *args.offset(nargs + index as isize));
                if values[place].replace(value).is_some() {
                    return Err(PyTypeError::new_err(format!(
                        "{method}() got multiple values for argument '{keyword}'"
                    )));
                }
            }
        }
    }
    Ok(values)
}

/// The values of arguments that all have to be given, nearly always by position.
///
/// # Safety
/// The arguments are those of a fast call with keywords.
#[inline]
pub unsafe fn all_arguments<'py, const N: usize>(
    py: Python<'py>,
    method: &str,
    names: [&str; N],
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> PyResult<[Bound<'py, PyAny>; N]> {
    // SAFETY: promised.
    unsafe {
        if nargs == N as isize && keywords.is_null() {
            return Ok(std::array::from_fn(|index| Bound::from_borrowed_ptr(py, *args.add(index))));
        }
        named_arguments(py, method, names, args, nargs, keywords)
    }
}

#[cold]
unsafe fn named_arguments<'py, const N: usize>(
    py: Python<'py>,
    method: &str,
    names: [&str; N],
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> PyResult<[Bound<'py, PyAny>; N]> {
    // SAFETY: as for the caller.
    let values = unsafe { arguments(py, method, names, args, nargs, keywords)? };
    if let Some(index) = values.iter().position(Option::is_none) {
        required(None, method, names[index])?;
    }
    Ok(values.map(|value| value.expect("checked")))
}

/// An argument that has to be given.
pub fn required<'py>(
    value: Option<Bound<'py, PyAny>>,
    method: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    value.ok_or_else(|| PyTypeError::new_err(format!("{method}() missing required argument '{name}'")))
}

/// A whole number, unless it is missing or None.
pub fn optional_number(value: Option<Bound<'_, PyAny>>) -> PyResult<Option<i64>> {
    value.filter(|value| !value.is_none()).map(|value| value.extract()).transpose()
}
