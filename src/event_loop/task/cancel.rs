//! Cancellation: of a future at once, of a task by what it waits for or in its next step.
//!
//! In the loop's thread, or while the loop does not run; other threads are refused, or routed by the caller.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRecursionError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::{FUTURE, FutureKind, Kind, TASK, Task, TaskKind, task_of};
use super::future::{self, Outcome, Refused};
use crate::event_loop::EventLoop;
use crate::proto::task::Ask;
use crate::py::names::names;
use crate::py::{Owned, call, raw};
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
            Ok(waiting) => waiting.tell(py, future.loop_pointer(), object).map(|()| Ok(true)),
            Err(Refused::Done) => {
                Ok(event_loop.with_tasks(|_, change| future.life.retrieve(change)).map(|()| false))
            }
            Err(Refused::Thread(foreign)) => Ok(Err(foreign)),
        }
    }
}

/// `Task.cancel()`: whether it was pending. The tasks that wait for one another are gone through one by one, however many there are;
/// RecursionError where they wait in a circle.
///
/// # Safety
/// `object` is a live native Task.
pub(super) unsafe fn cancel_task(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    message: Option<Owned>,
) -> PyResult<Result<bool, Foreign>> {
    // SAFETY: promised.
    let mut task = unsafe { task_of(object) };
    let mut waiter = match ask(task)? {
        Ok(Asked::Waits(waiter)) => waiter,
        Ok(Asked::Runs) => return Ok(in_next_step(task, message)?.map(|()| true)),
        Ok(Asked::Done) => return Ok(Ok(false)),
        Err(foreign) => return Ok(Err(foreign)),
    };
    let mut circle = Circle { mark: object, _kept: None, steps: 0, next_mark: 8 };
    // What keeps `task` alive; the caller keeps the first one.
    let mut kept: Option<Owned> = None;
    loop {
        let next = waiter.as_ptr();
        // SAFETY: alive.
        if !unsafe { TASK.is_exact(next) } {
            if cancel_any(py, &waiter, message.as_ref())? {
                // Its end wakes the task, with CancelledError.
                return Ok(Ok(true));
            }
            break;
        }
        circle.pass(py, &waiter)?;
        // SAFETY: a native task, which `waiter` keeps alive.
        let state = unsafe { task_of(next) };
        match ask(state)?.map_err(|foreign| EventLoop::wrong_thread_for(foreign, "task.cancel"))? {
            Asked::Done => break,
            asked => {
                task = state;
                let former = kept.replace(waiter);
                drop(former);
                match asked {
                    Asked::Waits(found) => waiter = found,
                    _ => break,
                }
            }
        }
    }
    Ok(in_next_step(task, message)?.map(|()| true))
}

/// What a task says that is to be cancelled.
enum Asked {
    Done,
    /// It waits for nothing: its next step is to be told.
    Runs,
    Waits(Owned),
}

/// Asks a task to cancel itself, as far as that is its own.
fn ask(task: &Task) -> PyResult<Result<Asked, Foreign>> {
    Ok(task.future.alive()?.with_tasks(|_, change| {
        task.future.check(change);
        if task.future.life.ask_cancel(change) == Ask::Over {
            return Asked::Done;
        }
        let cancels = task.future.cancels.load(Ordering::Relaxed);
        task.future.cancels.store(cancels.wrapping_add(1), Ordering::Relaxed);
        task.waiter.peek(change).map_or(Asked::Runs, Asked::Waits)
    }))
}

/// Has the task's next step raise CancelledError.
fn in_next_step(task: &Task, message: Option<Owned>) -> PyResult<Result<(), Foreign>> {
    let former = task.future.alive()?.with_tasks(|_, change| {
        task.future.life.cancel_next_step(change);
        match message {
            Some(message) => task.future.rare_mut(change).cancel_message.replace(message),
            None => task.future.rare(change).and_then(|rare| rare.cancel_message.take()),
        }
    });
    Ok(former.map(drop))
}

/// Finds out that a walk goes in a circle: it comes by a mark, which is moved on at distances that double.
struct Circle {
    mark: *mut ffi::PyObject,
    /// So that no other object is allocated at the mark's address.
    _kept: Option<Owned>,
    steps: usize,
    next_mark: usize,
}

impl Circle {
    fn pass(&mut self, py: Python<'_>, task: &Owned) -> PyResult<()> {
        if task.as_ptr() == self.mark {
            return Err(PyRecursionError::new_err(
                "maximum recursion depth exceeded: tasks await each other",
            ));
        }
        self.steps += 1;
        if self.steps == self.next_mark {
            self.next_mark *= 2;
            self.mark = task.as_ptr();
            self._kept = Some(task.clone_ref(py));
        }
        Ok(())
    }
}

/// `future.cancel(message)` of whatever a task waits for.
pub(super) fn cancel_any(py: Python<'_>, future: &Owned, message: Option<&Owned>) -> PyResult<bool> {
    let object = future.as_ptr();
    let message = message.map(|message| message.clone_ref(py));
    // SAFETY: alive; exact instances have our layout.
    let native = unsafe {
        if FUTURE.is_exact(object) {
            cancel_future::<FutureKind>(py, object, message, None)
        } else if TASK.is_exact(object) {
            cancel_task(py, object, message)
        } else {
            raw::check_stack()?;
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
    Ok(future.alive()?.with_tasks(|_, change| {
        future.check(change);
        let left = future.cancels.load(Ordering::Relaxed).saturating_sub(1);
        future.cancels.store(left, Ordering::Relaxed);
        if left == 0 {
            future.life.take_cancel(change);
        }
        left
    }))
}
