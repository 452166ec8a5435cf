//! What the rooms above use of futures and tasks. Pools and calls across loops run coroutines for others: they begin one, are told
//! when it ends, and learn how. Transports, `sock_*` calls and streams make futures for coroutines to wait for, and wake them.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::create::create_future;
use super::fields::{FUTURE, FutureKind, Kind, State, TaskKind, exact_future};
use super::{create, future, waiting};
use crate::event_loop::EventLoop;
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::reuse::Spare;
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use crate::py::{Owned, call, context, imports, raw};

/// How a task ended.
pub enum End {
    Result(Owned),
    Error(Owned),
    Cancelled,
}

impl End {
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Result(value) => Self::Result(value.clone_ref(py)),
            Self::Error(error) => Self::Error(error.clone_ref(py)),
            Self::Cancelled => Self::Cancelled,
        }
    }
}

/// Makes a task of `coro` that runs in `context`. Its first step is made at once, unless the program has a say in how tasks of
/// this loop are made. On the loop's thread, inside a run and outside of any task.
pub fn begin(event_loop: &Bound<'_, EventLoop>, coro: &Bound<'_, PyAny>, context: Owned) -> PyResult<Owned> {
    let py = event_loop.py();
    let plain = event_loop.get().with(py, |core| core.task_factory.is_none())?;
    if plain && event_loop.get().shared.has_native_tasks() {
        return create::eager_task(event_loop, coro, context.into_bound(py));
    }
    // The factory is the program's. In a copy, since an eager task enters its context.
    let around = context::copy(py, &context)?;
    let options = PyDict::new(py);
    options.set_item(names().context.bind(py), context.into_bound(py))?;
    context::run(py, &around, || Ok(event_loop.call_method("create_task", (coro,), Some(&options))?.into()))
}

/// How the task ended; None if it has not. An exception counts as retrieved.
pub fn end_of(py: Python<'_>, task: &Owned) -> PyResult<Option<End>> {
    // SAFETY: alive.
    let Some(state) = (unsafe { exact_future(task.as_ptr()) }) else { return end_of_foreign(py, task) };
    match state.life.state() {
        State::Pending => Ok(None),
        State::Cancelled => Ok(Some(End::Cancelled)),
        State::Finished => match future::failure(py, state)? {
            Some(error) => Ok(Some(End::Error(error))),
            None => Ok(Some(End::Result(future::result(py, state)?))),
        },
    }
}

/// The same for tasks of other types, as their methods tell.
fn end_of_foreign(py: Python<'_>, task: &Owned) -> PyResult<Option<End>> {
    let task = task.bind(py);
    if !task.call_method0(names().done.bind(py))?.is_truthy()? {
        return Ok(None);
    }
    if task.call_method0("cancelled")?.is_truthy()? {
        return Ok(Some(End::Cancelled));
    }
    let error = task.call_method0("exception")?;
    if error.is_none() {
        return Ok(Some(End::Result(task.call_method0(names().result.bind(py))?.into())));
    }
    Ok(Some(End::Error(error.into())))
}

/// Has `callback(task)` called in `context` when the task ends. On its loop's thread.
pub fn when_ended(py: Python<'_>, task: &Owned, callback: &Bound<'_, PyAny>, context: Owned) -> PyResult<()> {
    // SAFETY: alive; an exact native future that `begin` made is a task.
    let native = unsafe { exact_future(task.as_ptr()) };
    if let Some(state) = native {
        // SAFETY: alive, and a task.
        let added = unsafe {
            waiting::add_callback::<TaskKind>(py, task.as_ptr(), callback.as_ptr(), Some(context))?
        };
        return added.map_err(|foreign| match state.alive() {
            Ok(lp) => lp.wrong_thread(py, foreign),
            Err(error) => error,
        });
    }
    let options = PyDict::new(py);
    options.set_item(names().context.bind(py), context.into_bound(py))?;
    task.bind(py).call_method("add_done_callback", (callback,), Some(&options)).map(drop)
}

/// Asks the task to cancel itself; what that raises (what it waits for may be of any type) is reported, and the task goes on. On its
/// loop's thread, in `context`.
pub fn cancel(event_loop: &Bound<'_, EventLoop>, task: &Owned, context: &Owned) -> OrFatal {
    let py = event_loop.py();
    context::run_if_outside(py, context, || call::method0(py, task, names().cancel))
        .or_report(event_loop, || {
            Report::new("Exception in the cancellation of a task").with("task", task.bind(py).to_owned())
        })
        .map(drop)
}

/// Whether an error is asyncio's CancelledError.
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    Ok(error.is_instance(py, imports::cancelled_error(py)?))
}

/// Gives a native future of this thread's loop what a job's end was. One that is done already (cancelled) stays so.
pub fn pass_on(event_loop: &Bound<'_, EventLoop>, waiting: &Owned, end: &End) -> OrFatal {
    let py = event_loop.py();
    settle(py, waiting, end)
        .or_report(event_loop, || {
            Report::new("Exception at the end of a job").with("future", waiting.bind(py).to_owned())
        })
        .map(drop)
}

fn settle(py: Python<'_>, waiting: &Owned, end: &End) -> PyResult<()> {
    if call::method0(py, waiting, names().done)?.bind(py).is_truthy()? {
        return Ok(());
    }
    match end {
        End::Result(value) => call::method1(py, waiting, names().set_result, &value.bind(py)),
        End::Error(error) => call::method1(py, waiting, names().set_exception, &error.bind(py)),
        End::Cancelled => call::method0(py, waiting, names().cancel),
    }
    .map(drop)
}

// ---- futures that others make for coroutines to wait for ------------------------------------------------

/// Whether a native future was cancelled. Any thread; that it was not may be over the next moment.
pub fn is_cancelled(future: &Owned) -> bool {
    // SAFETY: alive.
    unsafe { exact_future(future.as_ptr()) }.is_some_and(|state| state.life.state() == State::Cancelled)
}

/// Whether a future of any kind is done.
#[inline]
pub fn is_done(py: Python<'_>, future: &Owned) -> PyResult<bool> {
    // SAFETY: alive.
    match unsafe { exact_future(future.as_ptr()) } {
        Some(state) => Ok(!state.life.is_pending()),
        None => call::method0(py, future, names().done)?.bind(py).is_truthy(),
    }
}

/// A pending future of the loop, as `create_future` makes it: one that was given back, if there is one.
#[inline]
pub fn renewed_future(event_loop: &Bound<'_, EventLoop>) -> PyResult<Owned> {
    let py = event_loop.py();
    let spare = event_loop.get().with(py, |core| core.spare_future.take())?;
    match spare.and_then(|spare| spare.again(py)) {
        Some(future) if !event_loop.get().shared.is_debug() => Ok(future),
        _ => create_future(event_loop),
    }
}

/// Keeps a future that was awaited to its end, to be used again, if the caller has the only reference to it. On its loop's
/// thread.
#[inline]
pub fn give_back(event_loop: &Bound<'_, EventLoop>, future: Owned) {
    // SAFETY: alive and attached.
    let free = unsafe {
        let object = future.as_ptr();
        FUTURE.is_exact(object) && raw::is_nobody_elses(object) && {
            let state = FutureKind::future(future.as_ptr());
            state.loop_pointer() == event_loop.as_ptr() && state.is_blank()
        }
    };
    if !free {
        return;
    }
    // SAFETY: as just checked.
    let state = unsafe { FutureKind::future(future.as_ptr()) };
    let mut spare = Some(Spare::new(future));
    let former = event_loop.get().with_tasks(|core, change| {
        if core.closed || core.spare_future.is_some() {
            return None;
        }
        state.life.renew(change);
        core.spare_future = spare.take();
        state.value.take(change)
    });
    drop(former);
}

/// Ends a future with None; one that is done already (cancelled) stays so. On its loop's thread.
#[inline]
pub fn wake(py: Python<'_>, waiting: &Owned) -> PyResult<()> {
    let none = || Owned::from(py.None().into_bound(py));
    // SAFETY: alive; an exact native future.
    unsafe {
        if FUTURE.is_exact(waiting.as_ptr())
            && (!FutureKind::future(waiting.as_ptr()).life.is_pending()
                || future::set_result::<FutureKind>(py, waiting.as_ptr(), none())?.is_ok())
        {
            return Ok(());
        }
    }
    // A future of another type; or of ours, from another thread: its method says what is wrong with that.
    if call::method0(py, waiting, names().done)?.bind(py).is_truthy()? {
        return Ok(());
    }
    call::method1(py, waiting, names().set_result, &none().bind(py)).map(drop)
}
