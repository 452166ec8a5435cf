//! What futures do, whichever of the two types they are: they end, schedule what waits for them, and give their result.
//!
//! A future ends in its loop's thread, or while the loop does not run; any thread may ask for the result.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::{Future, Kind, State};
use super::waiting::Waiting;
use crate::event_loop::EventLoop;
use crate::proto::task::{Ended, Ending, Yield};
use crate::py::{Owned, imports};
use crate::sync::held::Change;
use crate::sync::ownership::Foreign;

/// How a future ends.
pub(super) enum Outcome {
    Result(Owned),
    Exception { error: Owned, traceback: Option<Owned> },
    Cancelled { message: Option<Owned>, error: Option<Owned> },
}

/// Why a future did not end.
pub(super) enum Refused {
    /// It is done already.
    Done,
    Thread(Foreign),
}

#[cold]
pub(super) fn invalid_state(py: Python<'_>, text: &str) -> PyErr {
    match imports::invalid_state_error(py).and_then(|class| class.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Ends a future: stores how, and takes out what waits for it. A single waiting task goes onto the queue at once.
///
/// # Safety
/// `object` is alive, and of the kind.
#[inline]
pub(super) unsafe fn finish<K: Kind>(
    object: *mut ffi::PyObject,
    event_loop: &EventLoop,
    outcome: Outcome,
) -> Result<Waiting, Refused> {
    // SAFETY: promised.
    let future = unsafe { K::future(object) };
    let mut outcome = Some(outcome);
    let done = event_loop.with_tasks(|core, change| {
        let ending = future.life.end(change)?;
        let former = future.store(outcome.take().expect("taken once"), ending, change);
        if K::IS_TASK {
            // SAFETY: a task of this loop.
            unsafe { event_loop.tasks.unlink(object, change) };
        }
        Some(future.take_waiting(event_loop, core, former, change))
    });
    match done {
        Ok(Some(waiting)) => Ok(waiting),
        // What was not stored is dropped here, outside of the lock.
        Ok(None) => Err(Refused::Done),
        Err(foreign) => Err(Refused::Thread(foreign)),
    }
}

impl Future {
    /// Stores how it ended, and then ends it; returns what was replaced.
    #[inline]
    fn store(&self, outcome: Outcome, ending: Ending<'_>, change: Change<'_>) -> Option<Owned> {
        match outcome {
            Outcome::Result(value) => {
                self.value.put(value, change);
                ending.with(Ended::Result);
            }
            Outcome::Exception { error, traceback } => {
                self.value.put(error, change);
                if traceback.is_some() {
                    self.rare_mut(change).exception_traceback = traceback;
                }
                ending.with(Ended::Exception);
            }
            Outcome::Cancelled { message, error } => {
                if message.is_some() || error.is_some() {
                    self.rare_mut(change).cancelled_error = error;
                }
                let former =
                    self.rare(change).and_then(|rare| std::mem::replace(&mut rare.cancel_message, message));
                ending.with(Ended::Cancelled);
                return former;
            }
        }
        None
    }
}

/// `set_result`, for a caller that may change the future.
///
/// # Safety
/// `object` is alive and of the kind.
#[inline]
pub(super) unsafe fn set_result<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    value: Owned,
) -> PyResult<Result<(), Foreign>> {
    // SAFETY: promised.
    unsafe { end::<K>(py, object, Outcome::Result(value)) }
}

/// Ends a future and schedules what waits for it. InvalidStateError when it is done; what is not stored is dropped here.
///
/// # Safety
/// `object` is alive and of the kind.
#[inline]
pub(super) unsafe fn end<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    outcome: Outcome,
) -> PyResult<Result<(), Foreign>> {
    // SAFETY: promised.
    unsafe {
        let future = K::future(object);
        match finish::<K>(object, future.alive()?, outcome) {
            Ok(waiting) => waiting.tell(py, future.loop_pointer(), object).map(Ok),
            Err(Refused::Done) => Err(invalid_state(py, "invalid state")),
            Err(Refused::Thread(foreign)) => Ok(Err(foreign)),
        }
    }
}

/// What `set_exception` makes of its argument: an instance, never StopIteration.
pub(super) fn exception_outcome(py: Python<'_>, given: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    // SAFETY: only the type is looked at.
    let is_class = unsafe { ffi::PyExceptionClass_Check(given.as_ptr()) != 0 };
    let error = if is_class { given.call0()? } else { given.clone() };
    // SAFETY: as above.
    if unsafe { ffi::PyExceptionInstance_Check(error.as_ptr()) } == 0 {
        return Err(PyTypeError::new_err("invalid exception object"));
    }
    let error = if error.is_instance_of::<PyStopIteration>() {
        let text = "StopIteration interacts badly with generators and cannot be raised into a Future";
        let instead = PyRuntimeError::new_err(text).into_value(py).into_bound(py).into_any();
        instead.setattr("__cause__", &error)?;
        instead.setattr("__context__", &error)?;
        instead
    } else {
        error
    };
    // SAFETY: an exception; the answer is a new reference or null.
    let traceback = unsafe { ffi::PyException_GetTraceback(error.as_ptr()) };
    // SAFETY: a new reference, since it is not null.
    let traceback = (!traceback.is_null()).then(|| unsafe { Owned::steal(traceback) });
    Ok(Outcome::Exception { error: error.into(), traceback })
}

/// The error that a cancelled future raises. Any thread.
pub(super) fn cancelled_error(py: Python<'_>, future: &Future) -> PyResult<Owned> {
    let (made, message) = match future.event_loop() {
        None => (None, None),
        Some(event_loop) => event_loop.look_at_tasks(|look| match future.rare(look) {
            None => (None, None),
            Some(rare) => {
                let message = rare.cancel_message.as_ref().map(|message| message.clone_ref(py));
                (rare.cancelled_error.take(), message)
            }
        }),
    };
    if let Some(made) = made {
        return Ok(made);
    }
    let class = imports::cancelled_error(py)?;
    Ok(match message.map(|message| message.into_bound(py)).filter(|message| !message.is_none()) {
        Some(message) => class.call1((message,))?.into(),
        None => class.call0()?.into(),
    })
}

/// How a future ended, as a task is told: None, or what to throw into its coroutine. Marks an exception as retrieved.
#[inline]
pub(super) fn failure(py: Python<'_>, future: &Future) -> PyResult<Option<Owned>> {
    match future.life.state() {
        State::Finished if !future.life.has_failed() => Ok(None),
        State::Finished => exception(py, future).map(Some),
        State::Cancelled => cancelled_error(py, future).map(Some),
        State::Pending => Err(invalid_state(py, "Result is not set.")),
    }
}

/// The exception of a failed future with the traceback it came with. Any thread.
#[cold]
fn exception(py: Python<'_>, future: &Future) -> PyResult<Owned> {
    let (error, traceback) = future.alive()?.look_at_tasks(|look| {
        future.life.retrieve(look);
        let traceback = future.rare(look).and_then(|rare| rare.exception_traceback.take());
        (future.value.peek(look), traceback)
    });
    let error = error.ok_or_else(|| invalid_state(py, "Result is not set."))?;
    let none = Owned::from(py.None().into_bound(py));
    // SAFETY: an exception and a traceback or None.
    unsafe { ffi::PyException_SetTraceback(error.as_ptr(), traceback.unwrap_or(none).as_ptr()) };
    Ok(error)
}

/// `result()`. Any thread.
#[inline]
pub(super) fn result(py: Python<'_>, future: &Future) -> PyResult<Owned> {
    let event_loop =
        future.event_loop().ok_or_else(|| invalid_state(py, "Future object is not initialized."))?;
    if let Some(error) = failure(py, future)? {
        return Err(PyErr::from_value(error.into_bound(py)));
    }
    let value = event_loop
        .read_mine(|mine| future.value.peek(mine))
        .unwrap_or_else(|| event_loop.look_at_tasks(|look| future.value.peek(look)));
    value.ok_or_else(|| invalid_state(py, "Result is not set."))
}

/// What an `await` does first with a pending future: marks it as yielded. RuntimeError when that was done before.
#[inline]
pub(super) fn yield_once(future: &Future) -> PyResult<Result<(), Foreign>> {
    match future.alive()?.with_tasks(|_, change| future.life.yielded(change)) {
        Ok(Yield::First) => Ok(Ok(())),
        Ok(Yield::Again) => Err(not_awaited()),
        Err(foreign) => Ok(Err(foreign)),
    }
}

/// The error of a pending future that is stepped again.
#[cold]
pub(super) fn not_awaited() -> PyErr {
    PyRuntimeError::new_err("await wasn't used with future")
}
