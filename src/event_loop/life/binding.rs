//! Which loop belongs to the calling thread, and the native `get_running_loop` and `get_event_loop`.
//!
//! Two slots: the *running* loop is a thread-local pointer, set for the length of a run (during which the caller of
//! `run_forever` holds the loop). The *bound* loop is a weak reference in Python's own per-thread dict,
//! which Python clears with the thread; it is the loop made or last run there and not yet closed.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyWeakrefMethods, PyWeakrefReference};

use crate::event_loop::EventLoop;
use crate::py::imports;
use crate::sys::thread;

thread_local! {
    static RUNNING: Cell<*mut ffi::PyObject> = const { Cell::new(ptr::null_mut()) };
}

const BOUND: &str = "tokioloop.bound_loop";

/// Sets the thread's running loop for a scope; the former one comes back when it ends.
pub struct RunningScope {
    former: *mut ffi::PyObject,
}

impl RunningScope {
    /// The caller keeps `event_loop` alive longer than the scope.
    pub fn enter(event_loop: &Bound<'_, EventLoop>) -> Self {
        Self { former: RUNNING.replace(event_loop.as_ptr()) }
    }
}

impl Drop for RunningScope {
    fn drop(&mut self) {
        RUNNING.set(self.former);
    }
}

/// The `TokioLoop` running in this thread.
pub fn running(py: Python<'_>) -> Option<Bound<'_, EventLoop>> {
    let running = RUNNING.get();
    // SAFETY: the run that set the slot keeps the loop alive.
    (!running.is_null()).then(|| unsafe { Bound::from_borrowed_ptr(py, running).cast_into_unchecked() })
}

/// Forgets the running loop, in a forked child; returns it.
pub fn forget_running(py: Python<'_>) -> Option<Bound<'_, EventLoop>> {
    let found = running(py);
    RUNNING.set(ptr::null_mut());
    found
}

fn thread_dict(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    // SAFETY: attached; the dict is borrowed from the thread state, null only when memory is out.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyThreadState_GetDict()) }
        .map(|dict| unsafe { dict.cast_into_unchecked() })
}

/// The live, open loop bound to this thread.
pub fn bound(py: Python<'_>) -> PyResult<Option<Bound<'_, EventLoop>>> {
    let Some(dict) = thread_dict(py) else { return Ok(None) };
    let Some(reference) = dict.get_item(BOUND)? else { return Ok(None) };
    let Some(object) = reference.cast_into::<PyWeakrefReference>()?.upgrade() else { return Ok(None) };
    let event_loop = object.cast_into::<EventLoop>()?;
    Ok((!event_loop.get().shared.is_closed()).then_some(event_loop))
}

/// Binds a loop to this thread, or with None unbinds whichever is bound.
pub fn bind(py: Python<'_>, event_loop: Option<&Bound<'_, EventLoop>>) -> PyResult<()> {
    let Some(dict) = thread_dict(py) else { return Ok(()) };
    if let Some(former) = bound(py)?
        && event_loop.is_none_or(|new| !new.is(&former))
        && !former.get().shared.is_running()
    {
        former.get().shared.bound_thread.store(0, Ordering::Relaxed);
    }
    match event_loop {
        Some(event_loop) => {
            let shared = &event_loop.get().shared;
            tracing::debug!(id = shared.id, thread = thread::current_id(), "loop bound");
            // A loop that runs in another thread meanwhile stays that thread's; a run takes the claim first.
            if let Ok(_claim) = shared.claim() {
                shared.bound_thread.store(thread::current_id(), Ordering::Relaxed);
            }
            dict.set_item(BOUND, PyWeakrefReference::new(event_loop)?)
        }
        None if dict.contains(BOUND)? => dict.del_item(BOUND),
        None => Ok(()),
    }
}

/// The loop running in this thread. RuntimeError when there is none.
#[pyfunction]
pub fn get_running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let running = RUNNING.get();
    if running.is_null() {
        return imports::asyncio_get_running_loop(py)?.call0();
    }
    // SAFETY: the run that set the slot keeps the loop alive.
    Ok(unsafe { Bound::from_borrowed_ptr(py, running) })
}

/// The loop running in this thread, else the one bound to it, else what asyncio's own function says.
#[pyfunction]
pub fn get_event_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let running = RUNNING.get();
    if !running.is_null() {
        // SAFETY: the run that set the slot keeps the loop alive.
        return Ok(unsafe { Bound::from_borrowed_ptr(py, running) });
    }
    match bound(py)? {
        Some(event_loop) => Ok(event_loop.into_any()),
        None => imports::asyncio_get_event_loop(py)?.call0(),
    }
}

/// The loop bound to this thread, or None.
#[pyfunction]
#[pyo3(name = "_bound_loop")]
pub fn bound_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, EventLoop>>> {
    bound(py)
}

/// Bind a loop to this thread; None unbinds.
#[pyfunction]
#[pyo3(name = "_bind", signature = (event_loop))]
pub fn bind_loop(py: Python<'_>, event_loop: Option<Bound<'_, EventLoop>>) -> PyResult<()> {
    bind(py, event_loop.as_ref())
}

/// Looks up asyncio's own functions now, before anybody replaces them.
pub fn init(py: Python<'_>) -> PyResult<()> {
    imports::asyncio_get_running_loop(py)?;
    imports::asyncio_get_event_loop(py)?;
    Ok(())
}
