//! Inherited loops in a forked child: the parent's loops are dead objects there, which raise errors.
//!
//! Only the forking thread is in the child. The interpreter stops every other attached thread before it forks (or holds the
//! GIL), at a point where it runs Python, and detached ones touch a driver or the runtime only. So none of the others was inside
//! a claim, a biased lock or a mutex of ours: nothing is left locked or half changed without a thread to finish it.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{binding, registry};
use crate::event_loop::EventLoop;
use crate::{sync, sys};

/// Called once in a forked child, by its only thread, before anything else of Python runs there.
#[pyfunction]
pub fn _after_fork_in_child(py: Python<'_>) {
    sync::ownership::begin_generation();
    sys::signal::forget_parent();
    let running = binding::forget_running(py);
    let mut inherited = registry::take_all(py);
    // A derived class may not have called `__init__`, which enters a loop into the registry.
    inherited.extend(running.filter(|running| !inherited.iter().any(|found| found.is(running))));
    for event_loop in &inherited {
        // This thread may be in a callback of the loop, or in Python that an operation on it has called, and go on with that.
        // SAFETY: no other thread is left, and no borrow of a core is alive in a call into Python.
        unsafe { &mut *event_loop.get().core.get() }.leave_to_parent();
        event_loop.get().shared.die();
    }
    // Only now: the last reference to a loop may be among them.
    drop::<Vec<Bound<'_, EventLoop>>>(inherited);
}

/// Has the interpreter call it.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let hook = wrap_pyfunction!(_after_fork_in_child, module)?;
    let options = PyDict::new(py);
    options.set_item("after_in_child", hook)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&options)).map(drop)
}
