//! One step of a task: resume the coroutine, and wait for what it yields. In the loop's thread, inside a run: from the queue, from a
//! handle, or eagerly.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::{Kind, Task, TaskKind, exact_future, task_of};
use super::future::{self, exception_outcome};
use super::{cancel, wait};
use crate::event_loop::EventLoop;
use crate::event_loop::report::Report;
use crate::proto::task::Step;
use crate::py::context::Entered;
use crate::py::fatal::{self, Fatal, OrFatal};
use crate::py::names::names;
use crate::py::{Owned, call, imports, panic, raw};

/// What a coroutine did with its turn.
enum Turn {
    Yielded(Owned),
    Returned(Owned),
    Raised(Owned),
}

/// Runs one step, in the task's context. What is not the task's is reported.
#[inline]
pub(in crate::event_loop) fn run(event_loop: &Bound<'_, EventLoop>, task: Owned) -> OrFatal {
    let py = event_loop.py();
    // SAFETY: only native tasks are on the queue as themselves. Their context is set before and stays.
    let context = unsafe { task_of(task.as_ptr()) }.run_context.pointer();
    // SAFETY: attached, and alive with the task.
    let entered = unsafe { Entered::enter(context) };
    let result = match &entered {
        Some(_) => step(event_loop, task),
        None => Err((PyErr::fetch(py), task)),
    };
    // No error is set on the thread: one is in `result`.
    let left = entered.is_none_or(Entered::leave);
    let ended = match result {
        Ok(_kept) => Ok(()),
        Err((error, kept)) => report(event_loop, &kept, error),
    };
    if left { ended } else { fatal::both(py, ended, report_not_left(event_loop)) }
}

/// What keeps a task alive until the context is left.
pub(super) enum Kept {
    /// The queue or a future has the reference now, and the loop's thread has not gone on yet.
    Elsewhere,
    Here(#[allow(dead_code)] Owned),
}

/// The context was not left: another thread uses the same one.
#[cold]
fn report_not_left(event_loop: &Bound<'_, EventLoop>) -> OrFatal {
    let error = PyErr::fetch(event_loop.py());
    Report::new("Exception in callback Task.task_step()").error(error).send(event_loop)
}

/// Tells the exception handler what a step itself raised, which is not the coroutine's.
#[cold]
fn report(event_loop: &Bound<'_, EventLoop>, task: &Owned, error: PyErr) -> OrFatal {
    Report::new("Exception in callback Task.task_step()")
        .error(error)
        .with("task", task.bind(event_loop.py()).to_owned())
        .send(event_loop)
}

/// Runs one step. The context is entered.
#[inline]
pub(super) fn step(event_loop: &Bound<'_, EventLoop>, task: Owned) -> Result<Kept, (PyErr, Owned)> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let object = task.as_ptr();
    // SAFETY: a native task.
    let state = unsafe { task_of(object) };
    let begun = lp.with_tasks(|_, change| {
        let current = lp.tasks.current(change);
        if !current.is_null() || state.future.life.enter(change) == Step::IsDone {
            return Err(current);
        }
        lp.tasks.set_current(object, change);
        let throw = state.future.rare(change).and_then(|rare| rare.throw.take());
        Ok((state.waiter.take(change), throw))
    });
    let (waiter, throw) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(current)) => return Err((cannot_enter(py, &task, current), task)),
        Err(foreign) => return Err((lp.wrong_thread(py, foreign), task)),
    };
    let current = Current(lp);
    panic::point("step");
    #[cfg(Py_3_14)]
    if let Some(waiter) = &waiter
        // SAFETY: alive.
        && unsafe { exact_future(waiter.as_ptr()) }.is_none()
        && let Err(error) = imports::discard_from_awaited_by(py)
            .and_then(|discard| discard.call1((waiter.bind(py), task.bind(py))))
    {
        drop(current);
        return Err((error, task));
    }
    match resume(py, state, waiter, throw) {
        Ok(Turn::Yielded(yielded)) => match wait::native(lp, task, yielded) {
            Ok(()) => {
                current.was_left();
                Ok(Kept::Elsewhere)
            }
            Err((task, yielded)) => {
                let waited = match wait::any(event_loop, &task, yielded) {
                    Err(error) if state.waiter.is_empty() => wait::give_back(event_loop, &task, error),
                    waited => waited,
                };
                drop(current);
                waited.map_err(|error| (error, task.clone_ref(py))).map(|()| Kept::Here(task))
            }
        },
        Ok(turn) => {
            let ended = conclude(py, &task, turn);
            drop(current);
            ended.map_err(|error| (error, task.clone_ref(py))).map(|()| Kept::Here(task))
        }
        Err(error) => {
            drop(current);
            Err((error, task))
        }
    }
}

/// The loop's current task, until this is dropped.
struct Current<'a>(&'a EventLoop);

impl Current<'_> {
    /// It gave way together with another change.
    #[inline]
    fn was_left(self) {
        std::mem::forget(self);
    }
}

impl Drop for Current<'_> {
    #[inline]
    fn drop(&mut self) {
        // The claim is this thread's as long as the loop runs.
        let _ = self.0.with_tasks(|_, change| self.0.tasks.set_current(std::ptr::null_mut(), change));
    }
}

/// Resumes the coroutine with what came of the future that the task waited for.
#[inline]
fn resume(py: Python<'_>, task: &Task, waiter: Option<Owned>, throw: Option<Owned>) -> PyResult<Turn> {
    let mut error = match throw {
        Some(error) => Some(error),
        None => waiter.as_ref().map_or(Ok(None), |waiter| failure_of(py, waiter))?,
    };
    if task.future.life.must_cancel() {
        let cancelled = match &error {
            Some(error) => error.bind(py).is_instance(imports::cancelled_error(py)?)?,
            None => false,
        };
        if !cancelled {
            error = Some(future::cancelled_error(py, &task.future)?);
        }
        let _ = task.future.alive()?.with_tasks(|_, change| task.future.life.take_cancel(change));
    }
    drop(waiter);
    let coro = task.coro.pointer();
    if coro.is_null() {
        return Err(PyRuntimeError::new_err("uninitialized Task object"));
    }
    match error {
        None => {
            let mut result = std::ptr::null_mut();
            // SAFETY: attached; the task holds its coroutine.
            let status = unsafe { ffi::PyIter_Send(coro, ffi::Py_None(), &mut result) };
            // SAFETY: a new reference for the first two, an exception for the last.
            Ok(unsafe {
                match status {
                    ffi::PySendResult::PYGEN_NEXT => Turn::Yielded(Owned::steal(result)),
                    ffi::PySendResult::PYGEN_RETURN => Turn::Returned(Owned::steal(result)),
                    ffi::PySendResult::PYGEN_ERROR => raised(py),
                }
            })
        }
        Some(error) => {
            // SAFETY: attached; all alive. A null result comes with an exception.
            unsafe {
                let result = call::method1_raw(coro, names().throw, error.as_ptr());
                if !result.is_null() {
                    return Ok(Turn::Yielded(Owned::steal(result)));
                }
                Ok(raised(py))
            }
        }
    }
}

/// The exception that is set on the thread: that of a coroutine that returned is its value.
unsafe fn raised(py: Python<'_>) -> Turn {
    // SAFETY: an exception is set, or (a generator in C that just ends) none.
    unsafe {
        let error = ffi::PyErr_GetRaisedException();
        if error.is_null() {
            return Turn::Returned(Owned::steal(raw::none(py)));
        }
        let error = Owned::steal(error);
        if error.bind(py).is_instance_of::<PyStopIteration>() {
            return match error.bind(py).getattr(names().value.bind(py)) {
                Ok(value) => Turn::Returned(value.into()),
                Err(error) => Turn::Raised(error.into_value(py).into_bound(py).into_any().into()),
            };
        }
        Turn::Raised(error)
    }
}

/// What a done future makes its waiting task raise, if anything.
#[inline]
fn failure_of(py: Python<'_>, waiter: &Owned) -> PyResult<Option<Owned>> {
    // SAFETY: alive.
    if let Some(future) = unsafe { exact_future(waiter.as_ptr()) } {
        return match future::failure(py, future) {
            Ok(failure) => Ok(failure),
            Err(error) => Ok(Some(error.into_value(py).into_bound(py).into_any().into())),
        };
    }
    match call::method0(py, waiter, names().result) {
        Ok(_) => Ok(None),
        Err(error) => Ok(Some(error.into_value(py).into_bound(py).into_any().into())),
    }
}

/// Ends the task as its coroutine ended. KeyboardInterrupt and SystemExit are the task's and leave the loop as well.
#[inline]
fn conclude(py: Python<'_>, task: &Owned, turn: Turn) -> PyResult<()> {
    let object = task.as_ptr();
    // SAFETY: a native task.
    let state = unsafe { task_of(object) };
    let ended = match turn {
        Turn::Returned(value) if !state.future.life.must_cancel() => {
            // SAFETY: alive, a task.
            unsafe { future::set_result::<TaskKind>(py, object, value)? }
        }
        Turn::Returned(_) => {
            // Cancelled right before the coroutine ended.
            let event_loop = state.future.alive()?;
            let message = event_loop.with_tasks(|_, change| {
                state.future.life.take_cancel(change);
                let message = state.future.rare(change).and_then(|rare| rare.cancel_message.as_ref());
                message.map(|message| message.clone_ref(py))
            });
            let message = message.map_err(|foreign| event_loop.wrong_thread(py, foreign))?;
            // SAFETY: as above.
            unsafe { cancel::cancel_future::<TaskKind>(py, object, message, None)?.map(drop) }
        }
        Turn::Raised(error) if error.bind(py).is_instance(imports::cancelled_error(py)?)? => {
            // SAFETY: as above.
            unsafe { cancel::cancel_future::<TaskKind>(py, object, None, Some(error))?.map(drop) }
        }
        Turn::Raised(error) => {
            let outcome = exception_outcome(py, &error.bind(py))?;
            // SAFETY: as above.
            let ended = unsafe { future::end::<TaskKind>(py, object, outcome)? };
            let error = PyErr::from_value(error.into_bound(py));
            let _ordinary = Fatal::split(py, error)?;
            ended
        }
        Turn::Yielded(_) => unreachable!("dealt with by the caller"),
    };
    ended.map_err(|foreign| match state.future.alive() {
        Ok(event_loop) => event_loop.wrong_thread(py, foreign),
        Err(error) => error,
    })
}

#[cold]
fn cannot_enter(py: Python<'_>, task: &Owned, current: *mut ffi::PyObject) -> PyErr {
    let text = |object: &Bound<'_, PyAny>| Ok(object.repr()?.to_string());
    let mine: String = match text(&task.bind(py)) {
        Ok(mine) => mine,
        // As C code that formats a message, which raises what its part raised.
        Err(error) => return error,
    };
    if current.is_null() {
        return future::invalid_state(py, &format!("_step(): already done: {mine} None"));
    }
    // SAFETY: the running task is alive.
    let other = match text(&unsafe { Bound::from_borrowed_ptr(py, current) }) {
        Ok(other) => other,
        Err(error) => return error,
    };
    PyRuntimeError::new_err(format!(
        "Cannot enter into task {mine} while another task {other} is being executed."
    ))
}

/// Has wake-ups run steps.
pub(super) fn init() {
    super::wakeup::init(wakeup);
}

/// Runs a step now: called by a handle, in the task's context. The future that is done, if given, is the one waited for.
unsafe extern "C" fn wakeup(
    object: *mut ffi::PyObject,
    _args: *mut *mut ffi::PyObject,
    _nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, bound to a native task.
    unsafe {
        raw::enter(|py| {
            let task = Owned::borrow(object);
            let event_loop = TaskKind::future(object).loop_object(py)?;
            let lp = event_loop.get();
            lp.check_thread(py)?;
            if !lp.shared.is_mine() {
                // Without a run nothing would keep other threads out until the step is over.
                return Err(PyRuntimeError::new_err("the task's loop does not run"));
            }
            step(&event_loop, task).map_err(|(error, _)| error)?;
            Ok(raw::none(py))
        })
    }
}
