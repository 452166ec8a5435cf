//! The Python face of `Future`, and what `Task` has in common with it.
//!
//! Everything that asyncio's types have is here, so that no function of theirs meets an object whose fields they did not fill.
//! Each method checks its thread: what only the loop's thread may do ends in [`decide`].

use std::ffi::{c_int, c_void};

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyFrozenSet, PySet, PyTuple};

use super::fields::{Future, FutureKind, Kind, State};
use super::foreign::decide;
use super::{cancel, create, future, iter, life, waiting};
use crate::py::method::{self, function, getter, setter};
use crate::py::{Owned, imports, raw};

/// Immutable, as asyncio's are: short cuts for exact instances rely on the methods being these.
pub(super) const FLAGS: std::ffi::c_ulong = ffi::Py_TPFLAGS_DEFAULT
    | ffi::Py_TPFLAGS_HAVE_GC
    | ffi::Py_TPFLAGS_BASETYPE
    | ffi::Py_TPFLAGS_IMMUTABLETYPE;

pub(super) fn spec() -> raw::TypeSpec {
    raw::TypeSpec {
        name: c"tokioloop.Future",
        // Negative: so much behind the base's fields.
        basicsize: -(size_of::<Future>() as c_int),
        flags: FLAGS,
        slots: slots::<FutureKind>(
            c"Future(*, loop=None)\n--\n\nasyncio.Future for a TokioLoop. Its loop's thread changes it; any thread may read it.",
        ),
        methods: methods::<FutureKind>(),
        getset: getset::<FutureKind>(),
        members: vec![],
    }
}

/// The slots that both types have.
pub(super) fn slots<K: Kind>(doc: &'static std::ffi::CStr) -> Vec<(c_int, *mut c_void)> {
    let init = if K::IS_TASK { create::task_init as *mut c_void } else { create::future_init as *mut c_void };
    vec![
        (ffi::Py_tp_new, life::new::<K> as *mut c_void),
        (ffi::Py_tp_init, init),
        (ffi::Py_tp_repr, repr::<K> as *mut c_void),
        (ffi::Py_tp_iter, iter::get_iter as *mut c_void),
        (ffi::Py_am_await, iter::get_await as *mut c_void),
        (ffi::Py_tp_doc, doc.as_ptr() as *mut c_void),
    ]
}

/// The methods that both types have.
pub(super) fn methods<K: Kind>() -> Vec<ffi::PyMethodDef> {
    let generic = c"Future[int] in annotations.";
    vec![
        raw::no_args(c"result", result::<K>, c"The result, or the exception raised. InvalidStateError while pending. Any thread."),
        raw::no_args(c"exception", exception::<K>, c"The exception, or None. InvalidStateError while pending. Any thread."),
        raw::fast_keywords(c"add_done_callback", add_done_callback::<K>, c"add_done_callback($self, fn, /, *, context=None)\n--\n\nCall fn(self) in the loop's next turn once done. The loop's thread."),
        raw::one_arg(c"remove_done_callback", remove_done_callback::<K>, c"Remove a callback; how often it was there. The loop's thread."),
        raw::no_args(c"cancelled", cancelled::<K>, c"Whether it was cancelled. Any thread."),
        raw::no_args(c"done", done::<K>, c"Whether it has a result or exception, or was cancelled. Any thread."),
        raw::no_args(c"get_loop", get_loop::<K>, c"The loop. Any thread."),
        raw::no_args(c"_make_cancelled_error", make_cancelled_error::<K>, c"The CancelledError to raise; with its traceback once only."),
        raw::one_arg(c"set_result", set_result::<K>, c"Mark it done. InvalidStateError if it is. The loop's thread."),
        raw::one_arg(c"set_exception", set_exception::<K>, c"Mark it failed. InvalidStateError if it is done. The loop's thread."),
        raw::fast_keywords(c"cancel", cancel::<K>, c"cancel($self, /, msg=None)\n--\n\nCancel it; False if it is done. The loop's thread."),
        // Besides the slot that `await` uses: a program that calls it by name may call the methods of what it returns by name too.
        raw::method(c"__await__", ffi::PyMethodDefPointer { PyCFunction: iter::await_by_name }, ffi::METH_NOARGS | ffi::METH_COEXIST, c"An iterator with send(), throw() and close()."),
        raw::method(c"__class_getitem__", ffi::PyMethodDefPointer { PyCFunction: class_getitem }, ffi::METH_O | ffi::METH_CLASS, generic),
    ]
}

/// The attributes that both types have.
pub(super) fn getset<K: Kind>() -> Vec<ffi::PyGetSetDef> {
    vec![
        raw::getter(c"_state", get_state::<K>, c"PENDING, CANCELLED or FINISHED. Any thread."),
        raw::property(
            c"_asyncio_future_blocking",
            get_blocking::<K>,
            set_blocking::<K>,
            c"Yielded by an await.",
        ),
        raw::getter(c"_loop", get_loop_attribute::<K>, c"The loop, or None. Any thread."),
        raw::getter(
            c"_callbacks",
            get_callbacks::<K>,
            c"A list of (callback, context), or None. Any thread.",
        ),
        raw::getter(c"_result", get_result::<K>, c"The result, or None. Any thread."),
        raw::getter(c"_exception", get_exception::<K>, c"The exception, or None. Any thread."),
        raw::property(
            c"_log_traceback",
            get_log_traceback::<K>,
            set_log_traceback::<K>,
            c"Its exception was not retrieved.",
        ),
        raw::getter(c"_source_traceback", get_source_traceback::<K>, c"Where it was made, in debug mode."),
        raw::property(
            c"_cancel_message",
            get_cancel_message::<K>,
            set_cancel_message::<K>,
            c"What cancel() was given.",
        ),
        raw::getter(
            c"_asyncio_awaited_by",
            get_awaited_by::<K>,
            c"The tasks and futures that wait for it, or None. Any thread.",
        ),
    ]
}

/// An object, or None.
pub(super) fn or_none(py: Python<'_>, object: Option<Owned>) -> *mut ffi::PyObject {
    object.map_or_else(|| raw::none(py), Owned::into_ptr)
}

// ---- looking -------------------------------------------------------------------------------------------

function!(enter_hot result<K: Kind>(py, object, future = K::future(object)) Ok(future::result(py, future)?.into_ptr()));
function!(enter_hot cancelled<K: Kind>(py, object, future = K::future(object)) Ok(raw::boolean(py, future.life.state() == State::Cancelled)));
function!(enter_hot done<K: Kind>(py, object, future = K::future(object)) Ok(raw::boolean(py, !future.life.is_pending())));
function!(enter_hot get_loop<K: Kind>(py, object, future = K::future(object)) {
    let _ = py;
    future.alive()?;
    // SAFETY: alive as long as the future.
    Ok(ffi::Py_NewRef(future.loop_pointer()))
});
function!(enter_hot make_cancelled_error<K: Kind>(py, object, future = K::future(object)) Ok(future::cancelled_error(py, future)?.into_ptr()));
function!(enter_hot exception<K: Kind>(py, object, future = K::future(object)) {
    if future.event_loop().is_none() {
        return Err(future::invalid_state(py, "Future object is not initialized."));
    }
    match future.life.state() {
        State::Pending => Err(future::invalid_state(py, "Exception is not set.")),
        State::Cancelled => Err(PyErr::from_value(future::cancelled_error(py, future)?.into_bound(py))),
        State::Finished if future.life.has_failed() => {
            let error = future.alive()?.look_at_tasks(|look| {
                future.life.retrieve(look);
                future.value.peek(look)
            });
            Ok(or_none(py, error))
        }
        State::Finished => Ok(raw::none(py)),
    }
});

getter!(get_state<K: Kind>(py, object, future = K::future(object)) {
    future.alive()?;
    let text = match future.life.state() {
        State::Pending => pyo3::intern!(py, "PENDING"),
        State::Cancelled => pyo3::intern!(py, "CANCELLED"),
        State::Finished => pyo3::intern!(py, "FINISHED"),
    };
    Ok(text.clone().into_ptr())
});
getter!(get_blocking<K: Kind>(py, object, future = K::future(object)) Ok(raw::boolean(py, future.life.is_blocking())));
getter!(get_loop_attribute<K: Kind>(py, object, future = K::future(object)) Ok(or_none(py, future.event_loop().map(|_| Owned::borrow(future.loop_pointer())))));
getter!(get_callbacks<K: Kind>(py, object, future = K::future(object)) Ok(waiting::callbacks(py, future)?.into_ptr()));
getter!(get_result<K: Kind>(py, object, future = K::future(object)) value(py, future, false));
getter!(get_exception<K: Kind>(py, object, future = K::future(object)) value(py, future, true));
getter!(get_log_traceback<K: Kind>(py, object, future = K::future(object)) {
    future.alive()?;
    Ok(raw::boolean(py, future.life.is_unretrieved()))
});
getter!(get_source_traceback<K: Kind>(py, object, future = K::future(object)) {
    let Some(event_loop) = future.event_loop() else { return Ok(raw::none(py)) };
    Ok(or_none(py, event_loop.look_at_tasks(|look| {
        future.rare(look).and_then(|rare| rare.source_traceback.as_ref()).map(|found| found.clone_ref(py))
    })))
});
getter!(get_cancel_message<K: Kind>(py, object, future = K::future(object)) {
    let Some(event_loop) = future.event_loop() else { return Ok(raw::none(py)) };
    Ok(or_none(py, event_loop.look_at_tasks(|look| {
        future.rare(look).and_then(|rare| rare.cancel_message.as_ref()).map(|found| found.clone_ref(py))
    })))
});

getter!(get_awaited_by<K: Kind>(py, object, future = K::future(object)) {
    let waiting = PySet::empty(py)?;
    // Native tasks are in the list of callbacks; asyncio keeps the others, from 3.14 on, in the base's field.
    let callbacks = match future.event_loop() {
        Some(event_loop) => event_loop.look_at_tasks(|look| future.copy_callbacks(py, look)),
        None => vec![],
    };
    for (callback, _) in callbacks.iter().filter(|(_, context)| context.is_none()) {
        waiting.add(callback.bind(py))?;
    }
    if let Some(inherited) = imports::asyncio_future(py)?.getattr_opt("_asyncio_awaited_by")? {
        let object = Bound::<PyAny>::from_borrowed_ptr(py, object);
        let others = inherited.call_method1("__get__", (object,))?;
        if !others.is_none() {
            waiting.call_method1("update", (others,))?;
        }
    }
    if waiting.is_empty() {
        return Ok(raw::none(py));
    }
    Ok(PyFrozenSet::new(py, waiting.iter())?.into_any().into_ptr())
});

/// The result, or the exception; None where it is the other.
fn value(py: Python<'_>, future: &Future, failed: bool) -> PyResult<*mut ffi::PyObject> {
    let event_loop = future.alive()?;
    let found = event_loop.look_at_tasks(|look| {
        let there = future.life.state() == State::Finished && future.life.has_failed() == failed;
        there.then(|| future.value.peek(look)).flatten()
    });
    Ok(or_none(py, found))
}

unsafe extern "C" fn repr<K: Kind>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the kind.
    unsafe {
        raw::enter(|py| {
            raw::check_stack()?;
            let event_loop = K::future(object).alive()?;
            let object = Bound::<PyAny>::from_borrowed_ptr(py, object);
            // Elsewhere it may change while it is looked at.
            let format = match (event_loop.has_still_frames(), K::IS_TASK) {
                (true, true) => imports::task_repr(py)?,
                (true, false) => imports::future_repr(py)?,
                (false, _) => imports::foreign_repr(py)?,
            };
            let text = match format.call1((&object,)) {
                // The loop does not run, so that any thread may have changed something between two looks.
                Err(_) if !event_loop.shared.is_mine() => imports::foreign_repr(py)?.call1((object,)),
                text => text,
            };
            Ok(text?.into_ptr())
        })
    }
}

unsafe extern "C" fn class_getitem(
    class: *mut ffi::PyObject,
    item: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached.
    unsafe { ffi::Py_GenericAlias(class, item) }
}

// ---- changing ------------------------------------------------------------------------------------------

/// The error of what a task does for itself only.
fn not_supported(method: &str) -> PyErr {
    PyRuntimeError::new_err(format!("Task does not support {method} operation"))
}

unsafe extern "C" fn set_result<K: Kind>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the kind and a value.
    unsafe {
        raw::enter_hot(|py| {
            if K::IS_TASK {
                return Err(not_supported("set_result"));
            }
            let ended = future::set_result::<K>(py, object, Owned::borrow(value))?;
            decide::<K, _>(py, object, ended, "set_result", &[value], Some(()))?;
            Ok(raw::none(py))
        })
    }
}

unsafe extern "C" fn set_exception<K: Kind>(
    object: *mut ffi::PyObject,
    error: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the kind and a value.
    unsafe {
        raw::enter(|py| {
            if K::IS_TASK {
                return Err(not_supported("set_exception"));
            }
            let state = K::future(object);
            state.alive()?;
            if !state.life.is_pending() {
                return Err(future::invalid_state(py, "invalid state"));
            }
            let outcome = future::exception_outcome(py, &Bound::from_borrowed_ptr(py, error))?;
            let ended = future::end::<K>(py, object, outcome)?;
            decide::<K, _>(py, object, ended, "set_exception", &[error], Some(()))?;
            Ok(raw::none(py))
        })
    }
}

unsafe extern "C" fn cancel<K: Kind>(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the kind, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            raw::check_stack()?;
            let [message] = method::arguments(py, "cancel", ["msg"], args, nargs, keywords)?;
            let message = message.filter(|message| !message.is_none());
            let pointers: Vec<_> = message.iter().map(|message| message.as_ptr()).collect();
            let pending = K::future(object).life.is_pending();
            let message = message.map(Owned::from);
            let done = if K::IS_TASK {
                cancel::cancel_task(py, object, message)?
            } else {
                cancel::cancel_future::<K>(py, object, message, None)?
            };
            let done = decide::<K, _>(py, object, done, "cancel", &pointers, Some(pending))?;
            Ok(raw::boolean(py, done))
        })
    }
}

unsafe extern "C" fn add_done_callback<K: Kind>(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the kind, as a fast call with keywords.
    unsafe {
        raw::enter_hot(|py| {
            if nargs != 1 {
                return Err(PyTypeError::new_err(format!(
                    "add_done_callback() takes exactly 1 positional argument ({nargs} given)"
                )));
            }
            let callback = *args;
            let given = match keywords.is_null() {
                true => None,
                false => context_argument(py, args.offset(nargs), keywords)?,
            };
            let again = given.as_ref().map(|context| context.clone_ref(py));
            let added = waiting::add_callback::<K>(py, object, callback, given)?;
            // With a context of its own it can't be routed as it is; that is said.
            let routed = again.is_none().then_some(());
            decide::<K, _>(py, object, added, "add_done_callback", &[callback], routed)?;
            Ok(raw::none(py))
        })
    }
}

/// The `context` of a call, unless it is None.
unsafe fn context_argument(
    py: Python<'_>,
    values: *const *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> PyResult<Option<Owned>> {
    // SAFETY: one value per name of the tuple.
    unsafe {
        let keywords = Bound::from_borrowed_ptr(py, keywords).cast_into_unchecked::<PyTuple>();
        let mut given = None;
        for (index, name) in keywords.iter().enumerate() {
            if name.extract::<String>()? != "context" {
                return Err(PyTypeError::new_err(format!(
                    "add_done_callback() got an unexpected keyword argument '{name}'"
                )));
            }
            let value = *values.add(index);
            given = (value != ffi::Py_None()).then(|| Owned::borrow(value));
        }
        Ok(given)
    }
}

unsafe extern "C" fn remove_done_callback<K: Kind>(
    object: *mut ffi::PyObject,
    callback: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the kind and a callback.
    unsafe {
        raw::enter(|py| {
            let unwanted = Bound::from_borrowed_ptr(py, callback);
            let removed = waiting::remove_callback::<K>(py, object, &unwanted)?;
            let removed = decide::<K, _>(py, object, removed, "remove_done_callback", &[callback], None)?;
            Ok(removed.into_pyobject(py)?.into_any().into_ptr())
        })
    }
}

setter!(set_blocking<K: Kind>(py, object, future = K::future(object), value) {
    let value = value.is_truthy()?;
    let changed = future.alive()?.with_tasks(|_, change| future.life.set_blocking(change, value));
    decide::<K, _>(py, object, changed, "_asyncio_future_blocking", &[], None)?;
    Ok(())
});
setter!(set_log_traceback<K: Kind>(py, object, future = K::future(object), value) {
    let value = value.is_truthy()?;
    if value {
        return Err(PyValueError::new_err("_log_traceback can only be set to False"));
    }
    let _ = py;
    future.alive()?.look_at_tasks(|look| future.life.retrieve(look));
    Ok(())
});

unsafe extern "C" fn set_cancel_message<K: Kind>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: called by Python, attached, with an object of the kind.
    unsafe {
        raw::enter(|py| {
            if value.is_null() {
                return Err(PyAttributeError::new_err("cannot delete attribute"));
            }
            let future = K::future(object);
            let value = Owned::borrow(value);
            let changed =
                future.alive()?.with_tasks(|_, change| future.rare_mut(change).cancel_message.replace(value));
            let _former = decide::<K, _>(py, object, changed, "_cancel_message", &[], None)?;
            Ok(0)
        })
    }
}
