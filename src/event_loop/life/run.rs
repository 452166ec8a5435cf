//! `run_forever`: everything that stands around the turns and is taken back afterwards, whatever happens.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::binding::{self, RunningScope};
use super::exit;
use crate::event_loop::door::{self, OnLoop, RunGuard};
use crate::event_loop::{EventLoop, forked, signal, turn};
use crate::py::errors::both;
use crate::py::names::names;
use crate::py::panic;
use crate::py::{imports, interpreter};
use crate::sys::thread;

/// How deep coroutines note where they were made, in debug mode; asyncio's DEBUG_STACK_DEPTH.
const DEBUG_STACK_DEPTH: i32 = 10;

/// RuntimeError when this loop, or another one in this thread, is running.
pub(in crate::event_loop) fn check_not_running(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    if event_loop.get().shared.is_running() {
        return Err(PyRuntimeError::new_err("This event loop is already running"));
    }
    if !imports::get_running_loop_or_none(event_loop.py())?.call0()?.is_none() {
        return Err(PyRuntimeError::new_err("Cannot run the event loop while another loop is running"));
    }
    Ok(())
}

pub(in crate::event_loop) fn run_forever(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    lp.check_open()?;
    check_not_running(event_loop)?;
    let run = door::run(event_loop)?;
    // Closed between the check and the run, or while that waited.
    lp.check_open()?;
    let owned = OwnedRun(run);
    if exit::forbids(py, lp) {
        owned.0.on().core(|core| core.stopping = true);
    }
    let _running = RunningScope::enter(event_loop);
    tracing::debug!(id = lp.shared.id, thread = thread::current_id(), "loop runs");

    let result = Surroundings::set_up(owned.0.on()).and_then(|mut surroundings| {
        let result = turn::run(owned.0.on()).map_err(PyErr::from);
        // The run's own error comes first; one of the taking down must not hide it.
        both(result, surroundings.take_down(), event_loop)
    });
    if lp.shared.is_forked() {
        // A callback forked and returned in the child.
        return Err(forked());
    }
    drop(owned);
    tracing::debug!(id = lp.shared.id, ok = result.is_ok(), "loop stopped");
    result
}

/// A run that leaves the loop without a request to stop.
struct OwnedRun<'a, 'py>(RunGuard<'a, 'py>);

impl Drop for OwnedRun<'_, '_> {
    fn drop(&mut self) {
        // A forked child's loop stays as it is: it never runs again.
        if !self.0.on().get().shared.is_forked() {
            self.0.on().core(|core| core.stopping = false);
        }
    }
}

/// What a run changes in its thread, and how it was before. Each field is None until its step is done, so that a set-up that
/// fails half way takes back what it did. So does a panic, which drops it.
struct Surroundings<'a, 'py> {
    on: OnLoop<'a, 'py>,
    signals: Option<signal::Installed>,
    bound_before: Option<Option<Bound<'py, EventLoop>>>,
    asyncgen_hooks: Option<Bound<'py, PyAny>>,
    changed: bool,
}

impl<'a, 'py> Surroundings<'a, 'py> {
    fn set_up(on: OnLoop<'a, 'py>) -> PyResult<Self> {
        let mut surroundings =
            Self { on, signals: None, bound_before: None, asyncgen_hooks: None, changed: true };
        match surroundings.change() {
            Ok(()) => Ok(surroundings),
            // The first error is the one to report; the guard's drop restores the rest.
            Err(error) => Err(error),
        }
    }

    fn change(&mut self) -> PyResult<()> {
        let (py, event_loop) = (self.on.py(), self.on.event_loop());
        let main = interpreter::is_main_thread(py)?;
        if main {
            self.signals = signal::install(self.on)?;
        }
        self.bound_before = Some(binding::bound(py)?);
        binding::bind(py, Some(event_loop))?;
        if !main {
            event_loop.call_method0(names()._adopt_thread.bind(py))?;
        }
        let hooks = PyDict::new(py);
        hooks.set_item("firstiter", event_loop.getattr(names()._asyncgen_firstiter_hook.bind(py))?)?;
        hooks.set_item("finalizer", event_loop.getattr(names()._asyncgen_finalizer_hook.bind(py))?)?;
        self.asyncgen_hooks = Some(imports::get_asyncgen_hooks(py)?.call0()?);
        imports::set_asyncgen_hooks(py)?.call((), Some(&hooks))?;
        if event_loop.get().shared.is_debug() {
            set_origin_tracking(self.on, true)?;
        }
        imports::set_running_loop(py)?.call1((event_loop,))?;
        panic::point("set-up");
        Ok(())
    }

    /// Each step is made, whatever becomes of the others; the first error is returned, others go to `sys.unraisablehook`.
    fn take_down(&mut self) -> PyResult<()> {
        if !std::mem::replace(&mut self.changed, false) {
            return Ok(());
        }
        let (py, event_loop) = (self.on.py(), self.on.event_loop());
        let steps = [
            imports::set_running_loop(py).and_then(|set| set.call1((py.None(),))).map(drop),
            set_origin_tracking(self.on, false),
            match self.asyncgen_hooks.take() {
                Some(hooks) => hooks
                    .cast_into::<PyTuple>()
                    .map_err(PyErr::from)
                    .and_then(|hooks| imports::set_asyncgen_hooks(py)?.call1(hooks).map(drop)),
                None => Ok(()),
            },
            self.signals.take().map_or(Ok(()), |installed| signal::uninstall(self.on, installed)),
            match self.bound_before.take() {
                // A loop that only visits a thread (a Runner inside a bound thread) hands it back.
                Some(Some(before)) if !before.is(event_loop) => {
                    event_loop.get().shared.bound_thread.store(0, Ordering::Relaxed);
                    binding::bind(py, Some(&before))
                }
                _ => Ok(()),
            },
        ];
        let mut taken = Ok(());
        for step in steps {
            taken = both(taken, step, event_loop);
        }
        taken
    }
}

impl Drop for Surroundings<'_, '_> {
    fn drop(&mut self) {
        if !self.changed {
            return;
        }
        // After a panic an exception may be set, with which nothing can be called.
        // SAFETY: attached; it is set back.
        let raised = unsafe { ffi::PyErr_GetRaisedException() };
        if let Err(error) = self.take_down() {
            error.write_unraisable(self.on.py(), Some(self.on.event_loop()));
        }
        // SAFETY: as above.
        unsafe { ffi::PyErr_SetRaisedException(raised) };
    }
}

/// Switches the noting of coroutine origins on or off for this thread, keeping the former depth.
pub(in crate::event_loop) fn set_origin_tracking(on: OnLoop<'_, '_>, enabled: bool) -> PyResult<()> {
    let py = on.py();
    let saved = on.core(|core| core.origin_depth);
    let depth = match (enabled, saved) {
        (true, None) => {
            let depth: i32 = imports::get_origin_depth(py)?.call0()?.extract()?;
            on.core(|core| core.origin_depth = Some(depth));
            DEBUG_STACK_DEPTH
        }
        (false, Some(depth)) => {
            on.core(|core| core.origin_depth = None);
            depth
        }
        _ => return Ok(()),
    };
    imports::set_origin_depth(py)?.call1((depth,)).map(drop)
}
