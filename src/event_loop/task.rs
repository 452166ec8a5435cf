//! `create_future` and `create_task`.

use std::slice;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{Borrowed, ffi};

use super::EventLoop;
use crate::py::names::{Name, names};
use crate::py::{Owned, imports, raw};

/// A pending `asyncio.Future` of the loop.
pub(crate) fn create_future(event_loop: &Bound<'_, EventLoop>) -> PyResult<Owned> {
    let py = event_loop.py();
    let class = imports::asyncio_future(py)?;
    let args = [std::ptr::null_mut(), event_loop.as_ptr()];
    // SAFETY: no positional argument and one keyword value at args[1]; args[0] is scratch.
    unsafe {
        Owned::steal_or_err(
            py,
            ffi::PyObject_Vectorcall(
                class.as_ptr(),
                args.as_ptr().add(1),
                ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                names().loop_keyword.as_ptr(),
            ),
        )
    }
}

/// `create_task(coro, *, name=None, context=None, **kwargs)`: through the task factory if one is set.
unsafe extern "C" fn create_task(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let event_loop = Bound::from_borrowed_ptr(py, object).cast_into_unchecked::<EventLoop>();
            let lp = event_loop.get();
            lp.check_open()?;
            lp.check_thread(py)?;
            if nargs > 1 {
                return Err(PyTypeError::new_err(format!(
                    "create_task() takes 1 positional argument but {nargs} were given"
                )));
            }
            let plain = keywords.is_null() || ffi::PyTuple_GET_SIZE(keywords) == 0;
            if nargs == 1 && plain && lp.with(py, |core| core.task_factory.is_none())? {
                return Ok(plain_task(py, object, *args)?.into_ptr());
            }
            let options = PyDict::new(py);
            if !keywords.is_null() {
                let names = Bound::from_borrowed_ptr(py, keywords).cast_into_unchecked::<PyTuple>();
                let values = slice::from_raw_parts(args.offset(nargs), names.len());
                for (name, &value) in names.iter().zip(values) {
                    options.set_item(name, Borrowed::<PyAny>::from_ptr(py, value))?;
                }
            }
            let coro = match nargs {
                1 => Some(Bound::from_borrowed_ptr(py, *args)),
                _ => options.get_item("coro")?,
            };
            let Some(coro) = coro else {
                return Err(super::schedule::missing_arguments("create_task", &["coro"]));
            };
            if nargs == 0 {
                options.del_item("coro")?;
            }
            Ok(task_with_options(&event_loop, &coro, &options)?.into_ptr())
        })
    }
}

/// `asyncio.Task(coro, loop=loop)`.
unsafe fn plain_task(
    py: Python<'_>,
    event_loop: *mut ffi::PyObject,
    coro: *mut ffi::PyObject,
) -> PyResult<Owned> {
    let class = imports::asyncio_task(py)?;
    let args = [std::ptr::null_mut(), coro, event_loop];
    // SAFETY: one positional argument at args[1], one keyword value behind it; args[0] is scratch.
    unsafe {
        Owned::steal_or_err(
            py,
            ffi::PyObject_Vectorcall(
                class.as_ptr(),
                args.as_ptr().add(1),
                1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                names().loop_keyword.as_ptr(),
            ),
        )
    }
}

fn task_with_options<'py>(
    event_loop: &Bound<'py, EventLoop>,
    coro: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let factory =
        event_loop.get().with(py, |core| core.task_factory.as_ref().map(|factory| factory.clone_ref(py)))?;
    let Some(factory) = factory else {
        options.set_item(names().r#loop.bind(py), event_loop)?;
        return imports::asyncio_task(py)?.call((coro,), Some(options));
    };
    // From 3.14 on asyncio hands every option to the factory; before, it set the name afterwards.
    let name = if cfg!(Py_3_14) { None } else { take_option(options, names().name)? };
    if options.get_item(names().context.bind(py))?.is_some_and(|context| context.is_none()) {
        options.del_item(names().context.bind(py))?;
    }
    let task = factory.bind(py).call((event_loop, coro), Some(options))?;
    if let Some(name) = name {
        task.call_method1("set_name", (name,))?;
    }
    Ok(task)
}

/// Takes an option out of the dict; None counts as absent.
fn take_option<'py>(options: &Bound<'py, PyDict>, name: Name) -> PyResult<Option<Bound<'py, PyAny>>> {
    let name = name.bind(options.py());
    let value = options.get_item(name)?;
    if value.is_some() {
        options.del_item(name)?;
    }
    Ok(value.filter(|value| !value.is_none()))
}

/// Adds `create_task` to the type that pyo3 made.
pub fn add_methods(class: &Bound<'_, PyAny>) -> PyResult<()> {
    let doc = c"create_task($self, coro, *, name=None, context=None, **kwargs)\n--\n\nWrap the coroutine in a Task and schedule it.";
    raw::add_method(class, raw::fast_keywords(c"create_task", create_task, doc))
}
