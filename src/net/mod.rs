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

/// What a dispatch needs of the endpoint, taken out so that no borrow of the driver lasts into Python.
enum Target {
    Stream(Owned),
    Listener,
    Watch,
    Signals,
}

/// Hands a completion to its owner. Only errors that must leave the loop are returned.
pub fn dispatch(event_loop: &Bound<'_, EventLoop>, token: Token, completion: Completion) -> PyResult<()> {
    let py = event_loop.py();
    let target = event_loop.get().with(py, |core| {
        Some(match core.driver.as_ref()?.data(token)? {
            Endpoint::Stream(transport) => Target::Stream(transport.clone_ref(py)),
            Endpoint::Listener(_) => Target::Listener,
            Endpoint::Watch(_) => Target::Watch,
            Endpoint::Signals => Target::Signals,
        })
    })?;
    match (target, completion) {
        (Some(Target::Stream(transport)), completion) => stream::dispatch(event_loop, &transport, completion),
        (Some(Target::Watch), Completion::Polled { readable, writable }) => {
            watch::dispatch(event_loop, token, readable, writable)
        }
        (Some(Target::Listener), completion) => listener::dispatch(event_loop, token, completion),
        (Some(Target::Signals), _) => signal::dispatch(event_loop),
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
