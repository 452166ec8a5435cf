//! The loop: `EventLoop` is the native half of `tokioloop.TokioLoop`, a Python class derived from it.
//!
//! | room             | what lives there                                                        |
//! |------------------|-------------------------------------------------------------------------|
//! | `shared`         | what every thread may see; the ownership claim                          |
//! | `core`           | what the loop's thread owns                                             |
//! | `door`           | which thread may use the loop: `OnLoop`, the proof                      |
//! | `schedule`       | `call_soon`, `call_later` and the like: from Python onto a queue        |
//! | `queue`          | callbacks onto the ready queue                                          |
//! | `handle`         | the queue's items, and their Python types                               |
//! | `remote`         | what other threads ask for                                              |
//! | `reuse`          | what is used again: the rule for handles, timers, futures               |
//! | `turn`           | one turn: poll, dispatch, inbox, timers, ready queue                    |
//! | `life`           | binding to threads, live loops, runs, forks, the interpreter's end      |
//! | `feed`           | what gives a loop work beyond its own queue                             |
//! | `report`         | what goes to the exception handler                                      |
//! | `endpoint`       | what the driver keeps for transports, listeners, watches                |
//! | `signal`         | a loop's signals; the main thread's wake-up descriptor                  |
//! | `task`           | native futures and tasks: types, steps, registry                        |
//! | `methods`        | the other Python methods                                                |
//!
//! Threads: everything but `shared` is for one thread at a time. `door` says for which, and refuses others.

pub mod core;
pub mod door;
pub mod endpoint;
pub mod feed;
pub mod handle;
pub mod life;
mod methods;
mod on_loop;
pub mod queue;
pub mod remote;
pub mod report;
pub mod reuse;
mod schedule;
pub mod shared;
pub mod signal;
pub mod task;
pub mod turn;

use std::cell::UnsafeCell;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use self::core::Core;
use crate::inbox::Inbox;
use crate::py::names::names;
use crate::py::pyclass::{self, BaseClass, Functions};
use crate::py::{imports, raw};
use crate::sync::ownership::Foreign;
use crate::sync::quiet::{Quiet, Under};
use crate::sys::clock::monotonic_ns;
use shared::Shared;
use task::registry::Tasks;

#[pyclass(frozen, subclass, module = "tokioloop._tokioloop")]
pub struct EventLoop {
    pub(crate) shared: Arc<Shared>,
    core: UnsafeCell<Core>,
    /// Changed under the claim and the lock inside, looked at under the lock.
    tasks: Tasks,
}

// SAFETY: the core is touched under the ownership claim only, which one thread holds at a time; the tasks under their lock.
unsafe impl Sync for EventLoop {}
// SAFETY: as above; a loop may be made in one thread and run in another.
unsafe impl Send for EventLoop {}

impl BaseClass for EventLoop {
    fn functions() -> &'static Functions {
        static FUNCTIONS: Functions = Functions::new();
        &FUNCTIONS
    }
}

impl EventLoop {
    fn create(py: Python<'_>) -> PyResult<Self> {
        let debug = imports::coroutines(py)?.call_method0(names()._is_debug_mode.bind(py))?.is_truthy()?;
        let inbox = Inbox::new();
        let shared = Arc::new(Shared::new(inbox.sender(), debug));
        Ok(Self { shared, core: UnsafeCell::new(Core::new(inbox)), tasks: Tasks::new() })
    }

    /// Looks at or changes the core, once, where no [`OnLoop`](door::OnLoop) is at hand. `f` must not call into Python: everything that
    /// may run Python code (a decref included) happens outside. RuntimeError when another thread runs the loop.
    #[inline]
    pub(crate) fn with<R>(&self, _py: Python<'_>, f: impl FnOnce(&mut Core) -> R) -> PyResult<R> {
        self.with_claim(f).map_err(|foreign| door::wrong_thread(foreign, None))
    }

    /// As [`with`](Self::with), for callers that have an answer to the core being another thread's.
    #[inline]
    pub(crate) fn with_claim<R>(&self, f: impl FnOnce(&mut Core) -> R) -> Result<R, Foreign> {
        let claim = self.shared.claim()?;
        let quiet = Quiet::begin(Under::Claim);
        // SAFETY: claimed; `f` does not come back here, so this is the only borrow.
        let result = f(unsafe { &mut *self.core.get() });
        drop(quiet);
        drop(claim);
        Ok(result)
    }

    /// The core, for the loop's own thread while it runs.
    ///
    /// # Safety
    /// The calling thread owns the loop, and the reference is not alive across any call into Python.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(crate) unsafe fn core_mut(&self) -> &mut Core {
        // A run that a forked child comes back to finds its core emptied, see `fork`.
        debug_assert!(self.shared.is_mine() || self.shared.is_forked());
        // SAFETY: promised.
        unsafe { &mut *self.core.get() }
    }

    /// RuntimeError when the loop is closed.
    #[inline]
    pub(crate) fn check_open(&self) -> PyResult<()> {
        if self.shared.is_closed() { Err(self.refusal()) } else { Ok(()) }
    }

    /// The error of a call to a loop that takes nothing any more.
    #[cold]
    pub(crate) fn refusal(&self) -> PyErr {
        if self.shared.is_forked() { forked() } else { closed() }
    }

    /// RuntimeError when another thread runs the loop.
    #[inline]
    pub(crate) fn check_thread(&self, _py: Python<'_>) -> PyResult<()> {
        door::check(self)
    }

    #[cold]
    pub(crate) fn wrong_thread(&self, _py: Python<'_>, foreign: Foreign) -> PyErr {
        door::wrong_thread(foreign, None)
    }
}

/// asyncio's error for the use of a closed loop.
#[cold]
pub(crate) fn closed() -> PyErr {
    PyRuntimeError::new_err("Event loop is closed")
}

/// The error for the use of a loop that was inherited by a forked process.
#[cold]
pub(crate) fn forked() -> PyErr {
    PyRuntimeError::new_err(
        "the loop belongs to the process that forked this one, which has no use of it: make a new loop here",
    )
}

/// The loop's clock, in seconds.
#[inline]
pub(crate) fn time() -> f64 {
    monotonic_ns() as f64 / 1e9
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Attached: Python's last reference went. No other thread can have a claim, but senders may outlive us, so the
        // inbox is closed here, where Python objects may be dropped.
        life::registry::remove(&self.shared);
        let remains = self.core.get_mut().take_all();
        if self.shared.is_forked() {
            // Releasing it might touch what the parent uses: its epoll instance, its connections.
            std::mem::forget(remains);
        }
    }
}

/// Gives a class derived from the native core the core's methods as its own, which makes calling them cheaper.
#[pyfunction]
pub fn _own_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    raw::own_methods(class, &class.py().get_type::<EventLoop>())
}

/// Adds the class to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    handle::init(module)?;
    pyclass::complete::<EventLoop>(module.py());
    let class = module.py().get_type::<EventLoop>();
    schedule::add_methods(class.as_any())?;
    task::add_methods(class.as_any())?;
    task::init(module)?;
    // SAFETY: the class is not yet known to any other thread.
    unsafe { raw::share_cheaply(class.as_ptr()) };
    module.add("EventLoop", class)
}
