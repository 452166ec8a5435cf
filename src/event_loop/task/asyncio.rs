//! asyncio's own `current_task` and, from 3.14 on, `all_tasks` answer for our loops too, however they were imported.
//!
//! Programs hold these functions by imports made before tokioloop's, so replacing the modules' attributes is not enough. The
//! builtin function object itself is given another definition, which asks the loop and hands everything else on to the
//! original. It has the same calling convention, so one pointer changes, and a thread that is calling it at that moment sees
//! the one or the other. (3.13's `all_tasks` is Python: `tokioloop/_loop/tasks.py` does the same by its code.)

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PySet;

use super::fields::TASK;
use super::{registry, task_type, theirs};
use crate::event_loop::life::binding;
use crate::event_loop::{EventLoop, schedule};
use crate::py::{Owned, imports, raw};

type Function = raw::FastKeywords;

static CURRENT_TASK: OnceLock<Function> = OnceLock::new();
static ALL_TASKS: OnceLock<Function> = OnceLock::new();

pub(super) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let asyncio = py.import("_asyncio")?;
    redefine(&asyncio.getattr("current_task")?, &CURRENT_TASK, current_task)?;
    theirs::init(&asyncio)?;
    if let Some(all) = asyncio.getattr_opt("all_tasks")? {
        redefine(&all, &ALL_TASKS, all_tasks)?;
    }
    #[cfg(Py_3_14)]
    registers::redefine_all(&asyncio)?;
    redefine_get_context(&imports::asyncio_task(py)?.getattr("get_context")?)?;
    module.add_function(wrap_pyfunction!(native_tasks, module)?)
}

/// Gives a builtin function another implementation; the former one is kept.
fn redefine(function: &Bound<'_, PyAny>, original: &OnceLock<Function>, new: Function) -> PyResult<()> {
    if original.get().is_some() {
        return Ok(());
    }
    let flags = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
    let object = function.as_ptr();
    // SAFETY: the layout is checked before it is used. The definition lives forever, as the module's own does.
    unsafe {
        let known = ffi::PyCFunction_CheckExact(object) != 0
            && (*(*object.cast::<ffi::PyCFunctionObject>()).m_ml).ml_flags == flags;
        if !known {
            return Err(PyImportError::new_err(format!(
                "{function} is not what this Python should have: not supported"
            )));
        }
        let place = &raw mut (*object.cast::<ffi::PyCFunctionObject>()).m_ml;
        let definition = **place;
        let _ = original.set(definition.ml_meth.PyCFunctionFastWithKeywords);
        let ml_meth = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: new };
        let definition = Box::into_raw(Box::new(ffi::PyMethodDef { ml_meth, ..definition }));
        // Release: a thread that reads the pointer finds the definition written.
        AtomicPtr::from_ptr(place).store(definition, Ordering::Release);
    }
    Ok(())
}

static GET_CONTEXT: OnceLock<ffi::PyCFunction> = OnceLock::new();

/// Does the same to `asyncio.Task.get_context`: from 3.14 on, called unbound on a native task, it would take a reference to the
/// content of the base's empty field, and crash.
fn redefine_get_context(method: &Bound<'_, PyAny>) -> PyResult<()> {
    if GET_CONTEXT.get().is_some() {
        return Ok(());
    }
    let object = method.as_ptr();
    // SAFETY: as in `redefine`.
    unsafe {
        let known = ffi::Py_TYPE(object) == &raw mut ffi::PyMethodDescr_Type
            && (*(*object.cast::<ffi::PyMethodDescrObject>()).d_method).ml_flags == ffi::METH_NOARGS;
        if !known {
            return Err(PyImportError::new_err(format!(
                "{method} is not what this Python should have: not supported"
            )));
        }
        let place = &raw mut (*object.cast::<ffi::PyMethodDescrObject>()).d_method;
        let definition = **place;
        let _ = GET_CONTEXT.set(definition.ml_meth.PyCFunction);
        let ml_meth = ffi::PyMethodDefPointer { PyCFunction: get_context };
        let definition = Box::into_raw(Box::new(ffi::PyMethodDef { ml_meth, ..definition }));
        // Release: a thread that reads the pointer finds the definition written.
        AtomicPtr::from_ptr(place).store(definition, Ordering::Release);
    }
    Ok(())
}

unsafe extern "C" fn get_context(task: *mut ffi::PyObject, none: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let original = GET_CONTEXT.get().expect("set before this was installed");
    // SAFETY: called by Python, attached, as the original would be: with an asyncio.Task.
    unsafe {
        match TASK.is_instance(task) {
            false => original(task, none),
            true => task_type::get_context(task, none),
        }
    }
}

/// The loop that a call asks about, if it is one of ours: that given, else the one running here.
unsafe fn loop_asked_about<'py>(
    py: Python<'py>,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> Option<Bound<'py, EventLoop>> {
    // SAFETY: the arguments of a fast call with keywords.
    unsafe {
        let named = if keywords.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(keywords) };
        let given = match (nargs, named) {
            (0, 0) => ffi::Py_None(),
            (1, 0) => *args,
            (0, 1) if schedule::is_text(ffi::PyTuple_GET_ITEM(keywords, 0), "loop") => *args,
            // An error, which the original raises.
            _ => return None,
        };
        if given == ffi::Py_None() {
            return binding::running(py);
        }
        Bound::<PyAny>::from_borrowed_ptr(py, given).cast_into::<EventLoop>().ok()
    }
}

unsafe extern "C" fn current_task(
    module: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let original = CURRENT_TASK.get().expect("set before this was installed");
    // SAFETY: called by Python, attached, as the original would be.
    unsafe {
        let Some(event_loop) = loop_asked_about(Python::assume_attached(), args, nargs, keywords) else {
            return original(module, args, nargs, keywords);
        };
        let lp = event_loop.get();
        if !lp.shared.is_mine() {
            // On 3.14 the original stops the world for a loop of another thread: only where nothing is found here.
            return match registry::current(event_loop.py(), lp) {
                Some(task) => task.into_ptr(),
                None => original(module, args, nargs, keywords),
            };
        }
        // A task of asyncio's own type, if one runs, runs inside of ours: ours make those give way (see `eager.rs`).
        let theirs = original(module, args, nargs, keywords);
        if theirs != ffi::Py_None() {
            return theirs;
        }
        match registry::current(event_loop.py(), lp) {
            Some(task) => {
                ffi::Py_DECREF(theirs);
                task.into_ptr()
            }
            None => theirs,
        }
    }
}

unsafe extern "C" fn all_tasks(
    module: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let original = ALL_TASKS.get().expect("set before this was installed");
    // SAFETY: called by Python, attached, as the original would be.
    unsafe {
        raw::enter(|py| {
            let Some(event_loop) = loop_asked_about(py, args, nargs, keywords) else {
                let theirs = original(module, args, nargs, keywords);
                return Ok(Owned::steal_or_err(py, theirs)?.into_ptr());
            };
            let ours = registry::pending(py, event_loop.get())?;
            let foreign = !event_loop.get().shared.is_mine();
            if foreign && !event_loop.get().shared.may_have_asyncio_tasks() {
                // The original would stop every thread of the process to look for what is not there.
                return Ok(ours.into_ptr());
            }
            let theirs = Owned::steal_or_err(py, original(module, args, nargs, keywords))?;
            let theirs = theirs.into_bound(py).cast_into::<PySet>()?;
            for task in ours.iter() {
                theirs.add(task)?;
            }
            Ok(theirs.into_ptr())
        })
    }
}

/// The native tasks of a loop that are not done. Any thread.
#[pyfunction]
#[pyo3(name = "_native_tasks")]
fn native_tasks<'py>(event_loop: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PySet>> {
    registry::pending(event_loop.py(), event_loop.get())
}

/// `_register_task` and the three functions like it. A native task is in its loop's list, and is not to enter the list of C tasks too, which
/// is threaded through fields that nothing would take it out of again.
#[cfg(Py_3_14)]
mod registers {
    use super::*;

    pub(super) fn redefine_all(asyncio: &Bound<'_, PyAny>) -> PyResult<()> {
        redefine(&asyncio.getattr("_register_task")?, &REGISTER, register)?;
        redefine(&asyncio.getattr("_unregister_task")?, &UNREGISTER, unregister)?;
        redefine(&asyncio.getattr("_register_eager_task")?, &REGISTER_EAGER, register_eager)?;
        redefine(&asyncio.getattr("_unregister_eager_task")?, &UNREGISTER_EAGER, unregister_eager)
    }

    macro_rules! leaves_native_alone {
        ($original:ident, $name:ident) => {
            static $original: OnceLock<Function> = OnceLock::new();

            unsafe extern "C" fn $name(
                module: *mut ffi::PyObject,
                args: *const *mut ffi::PyObject,
                nargs: ffi::Py_ssize_t,
                keywords: *mut ffi::PyObject,
            ) -> *mut ffi::PyObject {
                let original = $original.get().expect("set before this was installed");
                // SAFETY: called by Python, attached, as the original would be. The one argument comes first, by position or by name.
                unsafe {
                    let named = if keywords.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(keywords) };
                    if nargs + named == 1 && TASK.is_instance(*args) {
                        return raw::none(Python::assume_attached());
                    }
                    original(module, args, nargs, keywords)
                }
            }
        };
    }

    leaves_native_alone!(REGISTER, register);
    leaves_native_alone!(UNREGISTER, unregister);
    leaves_native_alone!(REGISTER_EAGER, register_eager);
    leaves_native_alone!(UNREGISTER_EAGER, unregister_eager);
}
