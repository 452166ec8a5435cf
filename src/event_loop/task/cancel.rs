//! Cancellation: of a future at once, of a task by what it waits for or in its next step.

use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;

use super::future::{self, Outcome, Refused};
use super::{FutureKind, Kind, LOG_TRACEBACK, MUST_CANCEL, State, TaskKind, peek, task_of, types};
use crate::event_loop::EventLoop;
use crate::py::names::names;
use crate::py::{Owned, call};
use crate::sync::ownership::Foreign;

/// `Future.cancel()`: whether it was pending. A message of None counts as none.
///
/// # Safety
/// `object` is alive and of the kind.
pub(super) unsafe fn cancel_future<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    message: Option<Owned>,
    error: Option<Owned>,
) -> PyResult<Result<bool, Foreign>> {
    // SAFETY: promised.
    unsafe {
        let future = K::future(object);
        let event_loop = future.alive()?;
        match future::finish::<K>(object, event_loop, Outcome::Cancelled { message, error }) {
            Ok(waiting) => waiting.tell(py, future.event_loop.get(), object).map(|()| Ok(true)),
            Err(Refused::Done) => {
                Ok(event_loop.with_tasks(|_| future.set(LOG_TRACEBACK, false)).map(|()| false))
            }
            Err(Refused::Thread(foreign)) => Ok(Err(foreign)),
        }
    }
}

/// `Task.cancel()`: whether it was pending.
///
/// # Safety
/// `object` is a live native Task.
pub(super) unsafe fn cancel_task(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    message: Option<Owned>,
) -> PyResult<Result<bool, Foreign>> {
    // SAFETY: promised.
    let task = unsafe { task_of(object) };
    let event_loop = task.future.alive()?;
    let asked = event_loop.with_tasks(|_| {
        task.future.set(LOG_TRACEBACK, false);
        if task.future.state() != State::Pending {
            return None;
        }
        let cancels = task.future.cancels.load(Ordering::Relaxed);
        task.future.cancels.store(cancels + 1, Ordering::Relaxed);
        // SAFETY: under the lock.
        Some(unsafe { peek(&task.waiter) })
    });
    let waiter = match asked {
        Err(foreign) => return Ok(Err(foreign)),
        Ok(None) => return Ok(Ok(false)),
        Ok(Some(waiter)) => waiter,
    };
    if let Some(waiter) = waiter
        && cancel_any(py, &waiter, message.as_ref())?
    {
        // Its end wakes the task, with CancelledError.
        return Ok(Ok(true));
    }
    let former = event_loop.with_tasks(|_| {
        task.future.set(MUST_CANCEL, true);
        match message {
            Some(message) => task.future.rare_mut().cancel_message.replace(message),
            None => task.future.rare().and_then(|rare| rare.cancel_message.take()),
        }
    });
    Ok(former.map(|_former| true))
}

/// `future.cancel(message)` of whatever a task waits for.
pub(super) fn cancel_any(py: Python<'_>, future: &Owned, message: Option<&Owned>) -> PyResult<bool> {
    let object = future.as_ptr();
    let message = message.map(|message| message.clone_ref(py));
    // SAFETY: alive; exact instances have our layout.
    let native = unsafe {
        let kind = ffi::Py_TYPE(object);
        if kind == types().future {
            cancel_future::<FutureKind>(py, object, message, None)
        } else if kind == types().task {
            cancel_task(py, object, message)
        } else {
            let none = py.None().into_bound(py);
            let message = message.map_or(none, |message| message.into_bound(py));
            return call::method1(py, future, names().cancel, &message)?.bind(py).is_truthy();
        }
    };
    native?.map_err(|foreign| EventLoop::wrong_thread_for(foreign, "future.cancel"))
}

/// `uncancel()`: the requests that are left.
///
/// # Safety
/// `object` is a live native Task.
pub(super) unsafe fn uncancel(object: *mut ffi::PyObject) -> PyResult<Result<u32, Foreign>> {
    // SAFETY: promised.
    let future = unsafe { TaskKind::future(object) };
    Ok(future.alive()?.with_tasks(|_| {
        let left = future.cancels.load(Ordering::Relaxed).saturating_sub(1);
        future.cancels.store(left, Ordering::Relaxed);
        if left == 0 {
            future.set(MUST_CANCEL, false);
        }
        left
    }))
}
