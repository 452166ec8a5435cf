//! For those who make futures for coroutines of ours to wait for.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use super::{FUTURE, FutureKind, Kind, State, create_future, exact_future, future, take};
use crate::event_loop::EventLoop;
use crate::event_loop::reuse::Spare;
use crate::py::names::names;
use crate::py::{Owned, call, raw};

/// Whether a native future was cancelled. Any thread; that it was not may be over the next moment.
pub fn is_cancelled(future: &Owned) -> bool {
    // SAFETY: alive.
    unsafe { exact_future(future.as_ptr()) }.is_some_and(|state| state.state() == State::Cancelled)
}

/// Whether a future of any kind is done.
#[inline]
pub fn is_done(py: Python<'_>, future: &Owned) -> PyResult<bool> {
    // SAFETY: alive.
    match unsafe { exact_future(future.as_ptr()) } {
        Some(state) => Ok(state.state() != State::Pending),
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

/// Keeps a future that was awaited to its end, to be used again, if nobody else has it or can come to have it. On its loop's
/// thread.
#[inline]
pub fn give_back(event_loop: &Bound<'_, EventLoop>, future: Owned) {
    // SAFETY: alive and attached.
    let free = unsafe {
        let object = future.as_ptr();
        FUTURE.is_exact(object) && raw::is_nobody_elses(object) && {
            let state = FutureKind::future(future.as_ptr());
            state.event_loop.get() == event_loop.as_ptr() && state.is_blank()
        }
    };
    if !free {
        return;
    }
    // SAFETY: as just checked.
    let state = unsafe { FutureKind::future(future.as_ptr()) };
    let mut spare = Some(Spare::new(future));
    let former = event_loop.get().with_tasks(|core| {
        if core.closed || core.spare_future.is_some() {
            return None;
        }
        state.flags.store(0, Ordering::Relaxed);
        state.set_state(State::Pending);
        core.spare_future = spare.take();
        // SAFETY: under the lock.
        unsafe { take(&state.value) }
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
            && (FutureKind::future(waiting.as_ptr()).state() != State::Pending
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
