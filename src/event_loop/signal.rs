//! Signals of a loop, and the wake-up descriptor of the main thread.
//!
//! A loop that asks for signals has a slot of the process's handler (`sys/signal.rs`), whose descriptor its driver watches for
//! the rest of its life. Numbers that come while it does not run wait there.
//!
//! While a loop runs on the main thread, CPython's wake-up descriptor is ours too, so that a signal with a Python handler ends the
//! wait even if it comes in the moment before.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::EventLoop;
use super::core::Core;
use super::door::OnLoop;
use super::endpoint::Endpoint;
use super::report::{OrReport, Report};
use crate::driver::{Completion, Driver, Interest, Token};
use crate::py::errors::OrOsError;
use crate::py::fatal::{Fatal, OrFatal};
use crate::py::imports;
use crate::py::names::names;
use crate::sys;
use crate::sys::signal::{Slot, Subscription};

fn watch(driver: &mut Driver<Endpoint>, fd: i32, endpoint: Endpoint) -> std::io::Result<Token> {
    let token = driver.register_watch(fd, endpoint);
    let watched = driver.watch(token, Interest { readable: true, ..Interest::default() });
    if watched.is_err() {
        driver.deregister(token);
    }
    watched
}

/// The loop's slot, taken now if this is its first signal. RuntimeError once the loop is closed.
fn slot(core: &mut Core) -> PyResult<&'static Slot> {
    if let Some(signals) = &core.signals {
        return Ok(signals.slot());
    }
    core.driver()?;
    let signals = Subscription::new().or_os_error()?;
    let slot = signals.slot();
    watch(core.driver()?, slot.event(), Endpoint::bare(deliver)).or_os_error()?;
    core.signals = Some(signals);
    core.signal_watches += 1;
    Ok(slot)
}

/// Passes the signals that came to the loop.
fn deliver(on: OnLoop<'_, '_>, _: Token, _: Completion) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    let Some(slot) = on.core(|core| core.signals.as_ref().map(|signals| signals.slot())) else {
        return Ok(());
    };
    let mut numbers = slot.take();
    while numbers != 0 {
        let number = numbers.trailing_zeros() + 1;
        numbers &= numbers - 1;
        tracing::debug!(number, "signal");
        let told = event_loop
            .call_method1(names()._on_signal.bind(py), (number,))
            .or_report(event_loop, || Report::new(format!("Exception at signal {number}")));
        if told.is_err() && numbers != 0 {
            // What leaves the loop must not take the other numbers along.
            slot.set(numbers);
        }
        told?;
    }
    Ok(())
}

/// ValueError for anything but a signal's number.
fn check(number: i32) -> PyResult<()> {
    match sys::signal::is_number(number) {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("invalid signal number {number}"))),
    }
}

#[pymethods]
impl EventLoop {
    /// Have `_on_signal` called for a signal number. ValueError for what is none, OSError (EINVAL) for one that cannot be caught.
    fn _want_signal(&self, py: Python<'_>, number: i32) -> PyResult<()> {
        check(number)?;
        // All of it under the claim: a slot that `close` has left must not want anything.
        self.with(py, |core| slot(core)?.want(number).or_os_error())?
    }

    /// Undo `_want_signal`. Whether that brought back what handled the signal before.
    fn _unwant_signal(&self, py: Python<'_>, number: i32) -> PyResult<bool> {
        check(number)?;
        self.with(py, |core| core.signals.as_ref().is_some_and(|signals| signals.slot().unwant(number)))
    }
}

/// Whether a loop of this process wants the signal. Any thread.
#[pyfunction]
pub fn _is_signal_wanted(number: i32) -> bool {
    sys::signal::is_wanted(number)
}

/// Make the signal pending for each loop that wants it, as if it had come; whether there is one. Any thread.
#[pyfunction]
pub fn _raise_signal(number: i32) -> bool {
    sys::signal::raise(number)
}

/// Take the signal back from a handler that was installed while loops want it. Any thread.
#[pyfunction]
pub fn _insist_on_signal(number: i32) -> PyResult<()> {
    check(number)?;
    sys::signal::insist(number).or_os_error()
}

/// What `install` did, to be taken back.
pub struct Installed {
    token: Token,
    former_fd: i32,
}

fn set_wakeup_fd(py: Python<'_>, fd: i32) -> PyResult<i32> {
    let options = PyDict::new(py);
    options.set_item("warn_on_full_buffer", false)?;
    imports::set_wakeup_fd(py)?.call((fd,), Some(&options))?.extract()
}

/// Makes signals end the loop's wait. Call on the main thread. None where Python refuses (a subinterpreter).
pub fn install(on: OnLoop<'_, '_>) -> PyResult<Option<Installed>> {
    let py = on.py();
    let (read, write) = sys::signal::wakeup_pair().or_os_error()?;
    let token = on.driver(|driver| watch(driver, read, Endpoint::bare(run_handlers)))?.or_os_error()?;
    match set_wakeup_fd(py, write) {
        Ok(former_fd) => {
            on.core(|core| core.signal_watches += 1);
            Ok(Some(Installed { token, former_fd }))
        }
        Err(error) => {
            drop(on.driver(|driver| driver.deregister(token))?);
            // So it says where it refuses.
            if error.is_instance_of::<PyValueError>(py) { Ok(None) } else { Err(error) }
        }
    }
}

/// Restores the previous wake-up descriptor, unless other code has set another one meanwhile.
pub fn uninstall(on: OnLoop<'_, '_>, installed: Installed) -> PyResult<()> {
    let py = on.py();
    drop(on.driver(|driver| driver.deregister(installed.token))?);
    on.core(|core| core.signal_watches -= 1);
    let (_, write) = sys::signal::wakeup_pair().or_os_error()?;
    // Whose it is can only be learnt by setting one: ours, so that what comes in the meantime is not lost.
    let current = set_wakeup_fd(py, write)?;
    let heir = if current == write { installed.former_fd } else { current };
    // Where that was closed meanwhile there is none to give back.
    if set_wakeup_fd(py, heir).is_err() {
        set_wakeup_fd(py, -1)?;
        return Ok(());
    }
    sys::signal::pass_wakeup(heir).or_os_error()
}

/// Runs Python's handlers.
fn run_handlers(on: OnLoop<'_, '_>, _: Token, _: Completion) -> OrFatal {
    let py = on.py();
    let run = || {
        sys::signal::drain_wakeup().or_os_error()?;
        py.check_signals()
    };
    // Whatever a handler raises ends the run, as in asyncio, where it interrupts the wait.
    run().map_err(|error| Fatal::of_loop(py, error))
}
