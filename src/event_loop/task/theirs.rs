//! The tasks of asyncio's own types that run in this thread: ours make them give way for the time of an eager step.
//! In the thread that runs the loop.

use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::event_loop::EventLoop;
use crate::py::{Owned, imports};

/// Where 3.13 keeps the running tasks of asyncio's own types; null where there is no such dict.
static RUNNING: AtomicPtr<ffi::PyObject> = AtomicPtr::new(std::ptr::null_mut());

/// Looks for that dict in asyncio's C module.
pub(super) fn init(asyncio: &Bound<'_, PyModule>) -> PyResult<()> {
    let found = asyncio.getattr_opt("_current_tasks")?;
    if let Some(running) = found.and_then(|found| found.cast_into::<PyDict>().ok()) {
        RUNNING.store(running.into_ptr(), Ordering::Relaxed);
    }
    Ok(())
}

/// Whether a task of asyncio's own types may be running in this thread.
pub(super) fn may_run(_py: Python<'_>) -> bool {
    let running = RUNNING.load(Ordering::Relaxed);
    // SAFETY: attached; the dict is kept forever. Only its size is read.
    running.is_null() || unsafe { ffi::PyDict_Size(running) } != 0
}

/// Makes another task of asyncio's own types (or none) the current one; returns the one before, or None.
pub(super) fn swap_current(event_loop: &Bound<'_, EventLoop>, task: Option<&Owned>) -> PyResult<Owned> {
    let py = event_loop.py();
    let task = task.map(|task| task.bind(py));
    Ok(imports::swap_current_task(py)?.call1((event_loop, task))?.into())
}
