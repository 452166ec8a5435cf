//! Signals on the main thread: while a loop runs there, CPython's wake-up descriptor is ours, so a signal ends the wait
//! even if it comes in the moment before, and the loop learns which one it was.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::EventLoop;
use super::endpoint::{Endpoint, with_driver};
use crate::driver::{Completion, Interest, Token};
use crate::py::errors::{OrOsError, os_error};
use crate::py::imports;
use crate::py::names::names;
use crate::sys;

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

/// Makes the loop hear of signals. Call on the main thread. None where Python refuses (a subinterpreter).
pub fn install(event_loop: &Bound<'_, EventLoop>) -> PyResult<Option<Installed>> {
    let py = event_loop.py();
    let (read, write) = sys::signal::wakeup_pair().or_os_error()?;
    let token = with_driver(event_loop, |driver| {
        let token = driver.register_watch(read, Endpoint::bare(dispatch));
        driver.watch(token, Interest { readable: true, ..Interest::default() }).map(|()| token)
    })?
    .or_os_error()?;
    match set_wakeup_fd(py, write) {
        Ok(former_fd) => {
            event_loop.get().with(py, |core| core.hears_signals = true)?;
            Ok(Some(Installed { token, former_fd }))
        }
        Err(_) => {
            with_driver(event_loop, |driver| driver.deregister(token))?;
            Ok(None)
        }
    }
}

/// Gives the wake-up descriptor back to whom it belonged before, unless somebody else took it meanwhile.
pub fn uninstall(event_loop: &Bound<'_, EventLoop>, installed: Installed) -> PyResult<()> {
    let py = event_loop.py();
    with_driver(event_loop, |driver| driver.deregister(installed.token))?;
    event_loop.get().with(py, |core| core.hears_signals = false)?;
    let (_, write) = sys::signal::wakeup_pair().or_os_error()?;
    let current = set_wakeup_fd(py, installed.former_fd)?;
    if current != write {
        set_wakeup_fd(py, current)?;
    }
    Ok(())
}

/// Runs Python's handlers and tells the loop which signals came.
fn dispatch(event_loop: &Bound<'_, EventLoop>, _: Token, _: Completion) -> PyResult<()> {
    let py = event_loop.py();
    let mut numbers = [0; 256];
    let count = match sys::signal::read_wakeup(&mut numbers) {
        Ok(count) => count,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(os_error(error)),
    };
    // What a Python handler raises leaves the loop, but the numbers are out of the socket: they must not be lost.
    let handlers = py.check_signals();
    for &number in &numbers[..count] {
        tracing::debug!(number, "signal");
        event_loop.call_method1(names()._on_signal.bind(py), (number,))?;
    }
    handlers
}
