//! A new task's first step, made at once inside of whatever runs. In the loop's thread, inside a run.

use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::task_of;
use super::{step, theirs};
use crate::event_loop::EventLoop;
use crate::py::{Owned, context, raw};

/// Runs a new task's first step now, inside whatever runs. The loop runs in this thread.
pub(super) fn start(event_loop: &Bound<'_, EventLoop>, task: &Owned) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    raw::check_stack()?;
    // SAFETY: a native task.
    let state = unsafe { task_of(task.as_ptr()) };
    // A running task of asyncio's own type gives way for the time, so that asking for the current one finds ours. It may run
    // inside of one of ours.
    let theirs = match theirs::may_run(py) {
        true => Some(theirs::swap_current(event_loop, None)?),
        false => None,
    };
    let mut aside = Aside { event_loop, before: std::ptr::null_mut(), theirs };
    aside.before = lp
        .with_tasks(|_, change| {
            // SAFETY: new, and not in the list yet.
            unsafe { lp.tasks.link(task.as_ptr(), change) };
            lp.tasks.set_current(std::ptr::null_mut(), change)
        })
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    // SAFETY: set before, and stays.
    let context = unsafe { Owned::borrow(state.run_context.pointer()) };
    let result = context::run(py, &context, || match step::step(event_loop, task.clone_ref(py)) {
        Ok(_) => Ok(()),
        Err((error, _)) => Err(error),
    });
    let back = aside.put_back();
    if !state.future.life.is_pending() {
        // No step looks for the coroutine of a task that is done.
        let coro = lp.with_tasks(|_, change| state.coro.take(change));
        drop(coro);
    }
    debug_assert!(state.future.life.is_pending() || !state.future.life.is_linked());
    result.and(back)
}

/// The tasks that gave way for an eager step: ours, and one of asyncio's own type. Dropped, it puts them back.
struct Aside<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
    before: *mut ffi::PyObject,
    theirs: Option<Owned>,
}

impl Aside<'_, '_> {
    fn put_back(&mut self) -> PyResult<()> {
        let (lp, before) = (self.event_loop.get(), std::mem::replace(&mut self.before, std::ptr::null_mut()));
        if !before.is_null() {
            // The claim is this thread's as long as the loop runs.
            let _ = lp.with_tasks(|_, change| lp.tasks.set_current(before, change));
        }
        match self.theirs.take() {
            Some(theirs) if !theirs.bind(self.event_loop.py()).is_none() => {
                theirs::swap_current(self.event_loop, Some(&theirs)).map(drop)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Aside<'_, '_> {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            error.write_unraisable(self.event_loop.py(), Some(self.event_loop));
        }
    }
}
