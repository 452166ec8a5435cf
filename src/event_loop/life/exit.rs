//! The interpreter's end: the loops' part in it. `tokioloop/_loop/exit.py` decides when.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::registry;
use crate::event_loop::EventLoop;
use crate::py::interpreter;

/// The main thread is about to wait for the others. Never unset.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// From here on a run without a goal that begins in another thread than the main one ends with its first turn. Returns all live
/// loops. On the main thread.
#[pyfunction]
pub fn _begin_exit(py: Python<'_>) -> Vec<Bound<'_, EventLoop>> {
    BEGUN.store(true, Ordering::Relaxed);
    registry::all(py)
}

/// Whether a run that begins now in this thread would keep the interpreter from its end: nothing is left to stop it.
pub(in crate::event_loop) fn forbids(py: Python<'_>, event_loop: &EventLoop) -> bool {
    BEGUN.load(Ordering::Relaxed)
        && !event_loop.shared.has_goal()
        && interpreter::is_main_thread(py).is_ok_and(|main| !main)
}

#[pymethods]
impl EventLoop {
    /// Say whether the runs to come end by themselves, with a future. Returns what was said before.
    fn _set_goal(&self, has_goal: bool) -> bool {
        self.shared.set_goal(has_goal)
    }

    /// Whether the run ends by itself, with a future. Any thread.
    fn _has_goal(&self) -> bool {
        self.shared.has_goal()
    }

    /// End what others wait for that was begun or left here: the loop was stopped because the interpreter ends. RuntimeError
    /// while it runs.
    fn _break_off(&self, py: Python<'_>) -> PyResult<()> {
        let left = self.with(py, |core| {
            core.take_posts();
            (core.kept.drain().map(|(_, kept)| kept).collect::<Vec<_>>(), std::mem::take(&mut core.finished))
        })?;
        drop(left);
        Ok(())
    }

    /// The ident of the thread that the loop runs in or is bound to; 0 for none. Any thread.
    fn _thread(&self) -> usize {
        self.shared.bound_thread.load(Ordering::Relaxed)
    }
}
