//! The door to a loop: which thread may use it. It is asked here, once for each operation, and everything behind asks for the proof.
//!
//! [`OnLoop`] is the proof that no other thread runs the loop. There are three ways to it:
//!
//! - [`run`]: the thread runs the loop until the guard is dropped; turns hand the proof to everything that they call.
//! - [`OnLoop::mine`]: a method was called from a callback of the run, which is the usual case, and costs a comparison.
//! - [`enter`]: the same, or a *visit* where the loop is not running. It keeps other threads from running the loop until its guard is dropped.
//!
//! So an operation that has begun is never refused in the middle of its changes. It touches the loop by [`OnLoop::core`], for a few
//! instructions that call no Python, and calls Python in between. In a visit other threads may use the loop between two accesses, as
//! Python that was called may in a run.
//!
//! A single access needs no more than a claim: [`EventLoop::with`].
//!
//! All refusals of a wrong thread are [`wrong_thread`]'s.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::EventLoop;
use super::core::Core;
use super::endpoint::Endpoint;
pub use super::on_loop::OnLoop;
use super::report::Report;
use crate::driver::Driver;
use crate::py::fatal::OrFatal;
use crate::py::imports;
use crate::sync::ownership::{Foreign, Running, Visiting, Why};
use crate::sync::quiet::{Quiet, Under};
use crate::sys::thread;

impl<'a, 'py> OnLoop<'a, 'py> {
    /// Looks at or changes the core. `f` must not call into Python: everything that may run Python code (a decref included) happens
    /// outside. In a forked child the core is an emptied one, which is closed.
    #[inline]
    pub fn core<R>(self, f: impl FnOnce(&mut Core) -> R) -> R {
        let lp = self.get();
        let claim = self.claim();
        let quiet = Quiet::begin(Under::Claim);
        // SAFETY: claimed; `f` does not come back here, so this is the only borrow.
        let result = f(unsafe { &mut *lp.core.get() });
        drop(quiet);
        drop(claim);
        result
    }

    /// Asks something of the driver. As for [`core`](Self::core), `f` does not call into Python. An error where there is none: once the
    /// loop is closed.
    #[inline]
    pub fn driver<R>(self, f: impl FnOnce(&mut Driver<Endpoint>) -> R) -> PyResult<R> {
        // What it captured is dropped outside of the claim where there is no driver.
        let mut f = Some(f);
        self.core(|core| core.driver().map(|driver| f.take().map(|f| f(driver)).expect("called once")))
    }

    /// Calls the exception handler.
    #[cold]
    pub fn report(self, report: Report<'py>) -> OrFatal {
        report.send(self.event_loop())
    }
}

/// A run of the loop in this thread, until dropped.
#[must_use]
pub struct RunGuard<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
    _running: Running<'a>,
}

impl<'a, 'py> RunGuard<'a, 'py> {
    pub fn on(&self) -> OnLoop<'_, 'py> {
        // SAFETY: inside of what the guard stands for, which outlasts the result.
        unsafe { OnLoop::promised(self.event_loop) }
    }
}

/// Begins to run the loop. Waits for visits of other threads; RuntimeError where another thread runs the loop.
pub fn run<'a, 'py>(event_loop: &'a Bound<'py, EventLoop>) -> PyResult<RunGuard<'a, 'py>> {
    let running = event_loop.get().shared.run().map_err(|foreign| wrong_thread(foreign, None))?;
    Ok(RunGuard { event_loop, _running: running })
}

/// An operation on the loop, until dropped.
#[must_use]
pub struct EnterGuard<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
    _visiting: Option<Visiting<'a>>,
}

impl<'a, 'py> EnterGuard<'a, 'py> {
    #[inline]
    pub fn on(&self) -> OnLoop<'_, 'py> {
        // SAFETY: inside of what the guard stands for, which outlasts the result.
        unsafe { OnLoop::promised(self.event_loop) }
    }
}

/// Begins an operation on the loop: in a run of this thread, or as a visit where it is not running. RuntimeError where another thread
/// runs the loop.
#[inline]
pub fn enter<'a, 'py>(event_loop: &'a Bound<'py, EventLoop>) -> PyResult<EnterGuard<'a, 'py>> {
    let visiting = match OnLoop::mine(event_loop) {
        Some(_) => None,
        None => Some(visit(event_loop)?),
    };
    Ok(EnterGuard { event_loop, _visiting: visiting })
}

#[cold]
fn visit<'a>(event_loop: &'a Bound<'_, EventLoop>) -> PyResult<Visiting<'a>> {
    event_loop.get().shared.visit().map_err(|foreign| wrong_thread(foreign, None))
}

/// RuntimeError where another thread runs the loop.
#[inline]
pub fn check(event_loop: &EventLoop) -> PyResult<()> {
    event_loop.shared.claim().map(drop).map_err(|foreign| wrong_thread(foreign, None))
}

/// The error of a call from a thread that may not use the loop: it names the thread that may, the one that called, and the `call` that
/// `call_soon_threadsafe` takes instead.
#[cold]
pub fn wrong_thread(foreign: Foreign, call: Option<&str>) -> PyErr {
    let caller = thread::current_id();
    // Looking up names may drop errors, for which pyo3 must know that the thread is attached: hot paths end here.
    let names = Python::try_attach(|py| [foreign.owner, caller].map(|ident| describe_thread(py, ident)));
    let [owner, caller] =
        names.unwrap_or_else(|| [foreign.owner, caller].map(|ident| format!("ident {ident}")));
    let instead = call.map(|call| format!(": use loop.call_soon_threadsafe({call})")).unwrap_or_default();
    PyRuntimeError::new_err(match foreign.why {
        Why::Forked => return super::forked(),
        Why::Runs => format!(
            "the loop is running in thread {owner}; this call came from thread {caller}: \
             only call_soon_threadsafe() and stop() may reach it from there{instead}",
        ),
        Why::Visits => format!(
            "thread {owner} has been in one call to the loop for seconds; thread {caller} can't run it before that returns",
        ),
    })
}

fn describe_thread(py: Python<'_>, ident: usize) -> String {
    let name = || -> PyResult<String> {
        let known = imports::threads_by_ident(py)?.get_item(ident)?;
        known.getattr("name")?.extract()
    };
    match name() {
        Ok(name) => format!("{name} (ident {ident})"),
        // Not started by `threading`.
        Err(_) => format!("ident {ident}"),
    }
}
