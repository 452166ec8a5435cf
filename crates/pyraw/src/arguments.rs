//! The arguments of fast calls: by position, by name, and how many.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi};

/// The arguments of a fast call as a slice. A call without any may come without an array.
///
/// # Safety
/// `args` is null, or points to `count` objects that live as long as the result.
#[inline]
pub unsafe fn slice_of<'a>(args: *const *mut ffi::PyObject, count: usize) -> &'a [*mut ffi::PyObject] {
    if args.is_null() {
        return &[];
    }
    // SAFETY: promised.
    unsafe { std::slice::from_raw_parts(args, count) }
}

/// Checks a `nargs` count given to a fast-call method.
pub fn expect_args(name: &str, nargs: isize, min: isize, max: isize) -> PyResult<()> {
    if nargs < min || nargs > max {
        let wanted = if min == max { format!("{min}") } else { format!("{min} to {max}") };
        return Err(PyTypeError::new_err(format!(
            "{name}() takes {wanted} positional arguments but {nargs} were given"
        )));
    }
    Ok(())
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
    expect_args(method, nargs, 0, N as isize)?;
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
