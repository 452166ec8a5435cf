//! Calls that come from another thread than the loop's: what only the loop's thread may do goes through the inbox, if the loop was made
//! so, or is refused.

use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::fields::Kind;
use crate::event_loop::{EventLoop, door};
use crate::py::names::names;
use crate::sync::ownership::Foreign;
use crate::sys::thread;

impl EventLoop {
    /// The error of a call that may only be made in the loop's thread: it names the way that is safe.
    #[cold]
    pub(super) fn wrong_thread_for(foreign: Foreign, what: &str) -> PyErr {
        door::wrong_thread(foreign, Some(what))
    }

    /// Whether the frames of the loop's coroutines can be looked at: it runs in this thread, or it does not run and is bound to
    /// no other thread, which might run it meanwhile.
    pub(super) fn has_still_frames(&self) -> bool {
        let bound = self.shared.bound_thread.load(Ordering::Relaxed);
        self.shared.is_mine() || !self.shared.is_running() && (bound == 0 || bound == thread::current_id())
    }
}

/// What a change comes to that only the loop's thread may make: from elsewhere it goes through the inbox, if the loop was made
/// so, or raises.
pub(super) unsafe fn decide<K: Kind, R>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    changed: Result<R, Foreign>,
    method: &str,
    args: &[*mut ffi::PyObject],
    routed: Option<R>,
) -> PyResult<R> {
    let foreign = match changed {
        Ok(value) => return Ok(value),
        Err(foreign) => foreign,
    };
    // SAFETY: alive in the caller's hands.
    let event_loop = unsafe { K::future(object) }.alive()?;
    match routed {
        Some(value) if event_loop.shared.routes() && !foreign.is_forked() => {
            route(py, object, method, args)?;
            Ok(value)
        }
        _ => {
            let name = if K::IS_TASK { "task" } else { "future" };
            let rest = if args.is_empty() { "" } else { ", ..." };
            Err(EventLoop::wrong_thread_for(foreign, &format!("{name}.{method}{rest}")))
        }
    }
}

/// Calls a method of a future in its loop's thread, at some later time.
#[cold]
fn route(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    method: &str,
    args: &[*mut ffi::PyObject],
) -> PyResult<()> {
    // SAFETY: all alive in the caller's hands.
    let (future, args): (_, Vec<_>) = unsafe {
        (
            Bound::<PyAny>::from_borrowed_ptr(py, object),
            args.iter().map(|&arg| Bound::<PyAny>::from_borrowed_ptr(py, arg)).collect(),
        )
    };
    let event_loop = future.getattr(names()._loop.bind(py))?;
    let args: Vec<_> = std::iter::once(future.getattr(method)?).chain(args).collect();
    event_loop.call_method1("call_soon_threadsafe", PyTuple::new(py, args)?).map(drop)
}
