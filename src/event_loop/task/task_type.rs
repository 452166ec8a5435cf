//! The Python face of `Task`: what it has beyond a `Future`. As there, each method checks its thread.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::cancel;
use super::fields::{Kind, Slot, Task, TaskKind, name_text, task_of};
use super::foreign::decide;
use super::future_type::{self, or_none};
use crate::py::method::{self, function, getter, setter};
use crate::py::{imports, raw};
use crate::sync::ownership::{Foreign, Why};

pub(super) fn spec() -> raw::TypeSpec {
    let mut methods = future_type::methods::<TaskKind>();
    methods.extend([
        raw::no_args(c"cancelling", cancelling, c"How often it was asked to cancel itself, less what was taken back. Any thread."),
        raw::no_args(c"uncancel", uncancel, c"Take one request back; how many are left. The loop's thread."),
        raw::fast_keywords(c"get_stack", get_stack, c"get_stack($self, *, limit=None)\n--\n\nThe coroutine's frames. The loop's thread."),
        raw::fast_keywords(c"print_stack", print_stack, c"print_stack($self, *, limit=None, file=None)\n--\n\nPrint the coroutine's frames. The loop's thread."),
        raw::no_args(c"get_coro", get_coro, c"The coroutine. Any thread."),
        raw::no_args(c"get_context", get_context, c"The context that it runs in. Any thread."),
        raw::no_args(c"get_name", get_name, c"The name. Any thread."),
        raw::one_arg(c"set_name", set_name, c"Set the name. Any thread."),
    ]);
    let mut getset = future_type::getset::<TaskKind>();
    getset.extend([
        raw::property(
            c"_log_destroy_pending",
            get_log_destroy::<TaskKind>,
            set_log_destroy::<TaskKind>,
            c"Whether its going before its end is told.",
        ),
        raw::getter(
            c"_must_cancel",
            get_must_cancel::<TaskKind>,
            c"It is to be cancelled in its next step. Any thread.",
        ),
        raw::getter(c"_coro", get_coro_attribute::<TaskKind>, c"The coroutine. Any thread."),
        raw::getter(
            c"_fut_waiter",
            get_waiter::<TaskKind>,
            c"The future that it waits for, or None. Any thread.",
        ),
    ]);
    raw::TypeSpec {
        name: c"tokioloop.Task",
        // Negative: so much behind the base's fields.
        basicsize: -(size_of::<Task>() as c_int),
        flags: future_type::FLAGS,
        slots: future_type::slots::<TaskKind>(
            c"Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\nasyncio.Task for a TokioLoop. Its loop's thread changes it; any thread may read it.",
        ),
        methods,
        getset,
        members: vec![],
    }
}

/// A field's object or None, for any thread.
fn look(py: Python<'_>, task: &Task, field: &Slot) -> *mut ffi::PyObject {
    let found = match task.future.event_loop() {
        Some(event_loop) => event_loop.look_at_tasks(|look| field.peek(look)),
        None => None,
    };
    or_none(py, found)
}

function!(enter pub(super) cancelling(py, object, task = task_of(object)) {
    Ok(task.future.cancels.load(Ordering::Relaxed).into_pyobject(py)?.into_any().into_ptr())
});
function!(enter pub(super) uncancel(py, object, task = task_of(object)) {
    let _ = task;
    let left = decide::<TaskKind, _>(py, object, cancel::uncancel(object)?, "uncancel", &[], None)?;
    Ok(left.into_pyobject(py)?.into_any().into_ptr())
});
function!(enter pub(super) get_coro(py, object, task = task_of(object)) Ok(look(py, task, &task.coro)));
function!(enter pub(super) get_context(py, object, task = task_of(object)) Ok(look(py, task, &task.run_context)));
function!(enter pub(super) get_name(py, object, task = task_of(object)) {
    let Some(event_loop) = task.future.event_loop() else { return Ok(raw::none(py)) };
    match event_loop.look_at_tasks(|look| task.peek_name(look)) {
        Ok(number) => Ok(PyString::new(py, &format!("Task-{number}")).into_any().into_ptr()),
        Err(name) => Ok(or_none(py, name)),
    }
});

unsafe extern "C" fn set_name(object: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a Task and an argument.
    unsafe {
        raw::enter(|py| {
            let task = task_of(object);
            let name = name_text(&Bound::from_borrowed_ptr(py, name))?;
            let former = task.future.alive()?.look_at_tasks(|look| task.replace_name(name, look));
            drop(former);
            Ok(raw::none(py))
        })
    }
}

unsafe extern "C" fn get_stack(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a Task, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            raw::expect_args("get_stack", nargs, 0, 0)?;
            let [limit] = method::arguments(py, "get_stack", ["limit"], args, nargs, keywords)?;
            check_frames(py, object, "get_stack")?;
            let task = Bound::<PyAny>::from_borrowed_ptr(py, object);
            Ok(imports::task_get_stack(py)?.call1((task, limit))?.into_ptr())
        })
    }
}

unsafe extern "C" fn print_stack(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a Task, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            raw::expect_args("print_stack", nargs, 0, 0)?;
            let [limit, file] =
                method::arguments(py, "print_stack", ["limit", "file"], args, nargs, keywords)?;
            check_frames(py, object, "print_stack")?;
            let task = Bound::<PyAny>::from_borrowed_ptr(py, object);
            Ok(imports::task_print_stack(py)?.call1((task, limit, file))?.into_ptr())
        })
    }
}

/// Frames of a coroutine that another thread may be running can't be looked at.
unsafe fn check_frames(py: Python<'_>, object: *mut ffi::PyObject, method: &str) -> PyResult<()> {
    // SAFETY: a live Task.
    let event_loop = unsafe { TaskKind::future(object) }.alive()?;
    if event_loop.has_still_frames() {
        return Ok(());
    }
    let owner = event_loop.shared.bound_thread.load(Ordering::Relaxed);
    let why = if event_loop.shared.is_forked() { Why::Forked } else { Why::Runs };
    let claimed = event_loop.shared.claim().map(drop).and(Err(Foreign { owner, why }));
    // SAFETY: as above.
    unsafe { decide::<TaskKind, _>(py, object, claimed, method, &[], None) }
}

getter!(get_log_destroy<K: Kind>(py, object, future = K::future(object)) Ok(raw::boolean(py, future.life.logs_destruction())));
getter!(get_must_cancel<K: Kind>(py, object, future = K::future(object)) Ok(raw::boolean(py, future.life.must_cancel())));
getter!(get_coro_attribute<K: Kind>(py, object, future = K::future(object)) {
    let _ = future;
    let task = task_of(object);
    Ok(look(py, task, &task.coro))
});
getter!(get_waiter<K: Kind>(py, object, future = K::future(object)) {
    let _ = future;
    let task = task_of(object);
    Ok(look(py, task, &task.waiter))
});
setter!(set_log_destroy<K: Kind>(py, object, future = K::future(object), value) {
    let value = value.is_truthy()?;
    let _ = py;
    match future.event_loop() {
        Some(event_loop) => event_loop.look_at_tasks(|look| future.life.log_destruction(look, value)),
        None => future.life.log_destruction_early(value),
    }
    Ok(())
});
