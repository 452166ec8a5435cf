//! Everything between the driver and Python: transports, listeners, watched descriptors, name resolution, signals.
//!
//! Each registered descriptor has an [`Endpoint`] that the driver keeps for its owner; [`dispatch`] hands a completion
//! to it. Threads: all of it runs on the loop's thread.

pub mod address;
pub mod dns;
pub mod listener;
pub mod signal;
pub mod sock;
pub mod stream;
pub mod watch;

use pyo3::prelude::*;

use crate::driver::{Completion, Driver, Token};
use crate::event_loop::EventLoop;
use crate::py::Owned;

/// Who gets the completions of a registered descriptor.
pub enum Endpoint {
    /// A stream transport; the loop keeps it alive while it is registered.
    Stream(Owned),
    Listener(Box<listener::Listener>),
    Watch(Box<watch::Watch>),
    /// The process's wake-up socket for signals.
    Signals,
}

impl Endpoint {
    /// Shows what it holds to the garbage collector.
    pub fn visit<E>(&self, visit: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        match self {
            Endpoint::Stream(transport) => visit(transport),
            Endpoint::Listener(listener) => listener.visit(visit),
            Endpoint::Watch(watch) => watch.visit(visit),
            Endpoint::Signals => Ok(()),
        }
    }
}

/// Hands a completion to its owner. Only errors that must leave the loop are returned.
///
/// The caller is the loop's own thread, inside a run.
#[inline]
pub fn dispatch(event_loop: &Bound<'_, EventLoop>, token: Token, completion: Completion) -> PyResult<()> {
    let py = event_loop.py();
    // SAFETY: this thread owns the core while it runs; each arm takes what it needs out before Python is called.
    let Some(driver) = (unsafe { event_loop.get().core_mut().driver.as_mut() }) else { return Ok(()) };
    match (driver.data(token), completion) {
        (Some(Endpoint::Stream(transport)), Completion::Received(len)) if len > 0 => {
            stream::Delivery::new(py, transport, driver.received(len))?.deliver(py)
        }
        (Some(Endpoint::Stream(transport)), completion) => {
            stream::dispatch(&transport.clone_ref(py).into_bound(py), completion)
        }
        (Some(Endpoint::Watch(_)), Completion::Polled { readable, writable }) => {
            watch::dispatch(event_loop, token, readable, writable)
        }
        (Some(Endpoint::Listener(_)), completion) => listener::dispatch(event_loop, token, completion),
        (Some(Endpoint::Signals), _) => signal::dispatch(event_loop),
        // Closed since the completion was made; a Polled is for watches only.
        _ => Ok(()),
    }
}

/// The loop's driver, for a closure that must not call into Python.
pub(crate) fn with_driver<R>(
    event_loop: &Bound<'_, EventLoop>,
    f: impl FnOnce(&mut Driver<Endpoint>) -> R,
) -> PyResult<R> {
    event_loop.get().with(event_loop.py(), |core| core.driver().map(f))?
}
