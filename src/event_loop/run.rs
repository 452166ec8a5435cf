//! `run_forever`: everything that stands around the turns and is taken back afterwards, whatever happens.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::binding::{self, RunningScope};
use super::{EventLoop, exit, signal, turn};
use crate::py::errors::both;
use crate::py::names::names;
use crate::py::panic;
use crate::py::{imports, interpreter};
use crate::sys::thread;

/// How deep coroutines note where they were made, in debug mode; asyncio's DEBUG_STACK_DEPTH.
const DEBUG_STACK_DEPTH: i32 = 10;

/// RuntimeError when this loop, or another one in this thread, is running.
pub(super) fn check_not_running(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    if event_loop.get().shared.is_running() {
        return Err(PyRuntimeError::new_err("This event loop is already running"));
    }
    if !imports::get_running_loop_or_none(event_loop.py())?.call0()?.is_none() {
        return Err(PyRuntimeError::new_err("Cannot run the event loop while another loop is running"));
    }
    Ok(())
}

pub(super) fn run_forever(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    lp.check_open()?;
    check_not_running(event_loop)?;
    lp.shared.begin_run().map_err(|foreign| lp.wrong_thread(py, foreign))?;
    if lp.shared.is_closed() {
        // Closed between the check and the claim, which `close` takes too.
        lp.shared.end_run();
        return lp.check_open();
    }
    let owned = OwnedRun(lp);
    if exit::forbids(py, lp) {
        // SAFETY: the owner since just now.
        unsafe { lp.core_mut() }.stopping = true;
    }
    let _running = RunningScope::enter(event_loop);
    tracing::debug!(id = lp.shared.id, thread = thread::current_id(), "loop runs");

    let result = Surroundings::set_up(event_loop).and_then(|mut surroundings| {
        let result = turn::run(event_loop).map_err(PyErr::from);
        // The run's own error comes first; one of the taking down must not hide it.
        both(result, surroundings.take_down(), event_loop)
    });
    if lp.shared.is_forked() {
        // A callback forked and returned in the child.
        return Err(super::forked());
    }
    drop(owned);
    tracing::debug!(id = lp.shared.id, ok = result.is_ok(), "loop stopped");
    result
}

/// The claim of a run; given back when dropped, by a panic too.
struct OwnedRun<'a>(&'a EventLoop);

impl Drop for OwnedRun<'_> {
    fn drop(&mut self) {
        if self.0.shared.is_forked() {
            // The parent's; this process refuses it for ever.
            return;
        }
        // SAFETY: still the owner.
        unsafe { self.0.core_mut() }.stopping = false;
        self.0.shared.end_run();
    }
}

/// What a run changes in its thread, and how it was before. Each field is None until its step is done, so that a set-up that
/// fails half way takes back what it did. So does a panic, which drops it.
struct Surroundings<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
    signals: Option<signal::Installed>,
    bound_before: Option<Option<Bound<'py, EventLoop>>>,
    asyncgen_hooks: Option<Bound<'py, PyAny>>,
    changed: bool,
}

impl<'a, 'py> Surroundings<'a, 'py> {
    fn set_up(event_loop: &'a Bound<'py, EventLoop>) -> PyResult<Self> {
        let mut surroundings =
            Self { event_loop, signals: None, bound_before: None, asyncgen_hooks: None, changed: true };
        match surroundings.change() {
            Ok(()) => Ok(surroundings),
            // The first error is the one to tell; dropping takes back.
            Err(error) => Err(error),
        }
    }

    fn change(&mut self) -> PyResult<()> {
        let event_loop = self.event_loop;
        let py = event_loop.py();
        let main = interpreter::is_main_thread(py)?;
        if main {
            self.signals = signal::install(event_loop)?;
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
            set_origin_tracking(event_loop, true)?;
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
        let event_loop = self.event_loop;
        let py = event_loop.py();
        let steps = [
            imports::set_running_loop(py).and_then(|set| set.call1((py.None(),))).map(drop),
            set_origin_tracking(event_loop, false),
            match self.asyncgen_hooks.take() {
                Some(hooks) => hooks
                    .cast_into::<PyTuple>()
                    .map_err(PyErr::from)
                    .and_then(|hooks| imports::set_asyncgen_hooks(py)?.call1(hooks).map(drop)),
                None => Ok(()),
            },
            self.signals.take().map_or(Ok(()), |installed| signal::uninstall(event_loop, installed)),
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
            error.write_unraisable(self.event_loop.py(), Some(self.event_loop));
        }
        // SAFETY: as above.
        unsafe { ffi::PyErr_SetRaisedException(raised) };
    }
}

/// Switches the noting of coroutine origins on or off for this thread, keeping the former depth.
pub(super) fn set_origin_tracking(event_loop: &Bound<'_, EventLoop>, enabled: bool) -> PyResult<()> {
    let py = event_loop.py();
    let saved = event_loop.get().with(py, |core| core.origin_depth)?;
    let depth = match (enabled, saved) {
        (true, None) => {
            let depth: i32 = imports::get_origin_depth(py)?.call0()?.extract()?;
            event_loop.get().with(py, |core| core.origin_depth = Some(depth))?;
            DEBUG_STACK_DEPTH
        }
        (false, Some(depth)) => {
            event_loop.get().with(py, |core| core.origin_depth = None)?;
            depth
        }
        _ => return Ok(()),
    };
    imports::set_origin_depth(py)?.call1((depth,)).map(drop)
}
