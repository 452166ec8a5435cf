//! From the driver to the protocol.
//!
//! A batch is out of the driver while its datagrams are delivered one by one, so no other code writes into it, whatever the
//! protocol does. Undelivered datagrams (the protocol paused, or raised KeyboardInterrupt) go back to the driver and
//! are handed out again first.

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Phase, Transport};
use crate::driver::{ReadMode, Token};
use crate::event_loop::endpoint::with_driver;
use crate::event_loop::report::Report;
use crate::event_loop::turn;
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use crate::py::{Owned, bytes, call, context, derived, imports, panic};
use crate::sys::clock::monotonic_ns;
use crate::sys::datagram::Batch;

/// What asyncio gives to `recvfrom`.
const MAX_SIZE: usize = 256 * 1024;

/// One datagram on its way to the protocol: what the call needs, taken out of the transport so that no borrow of it lasts into
/// Python.
struct Delivery {
    protocol: Owned,
    data: Owned,
    sender: Owned,
}

/// A batch that is out of the driver; what is left of it goes back when this is dropped, and the transport is corked no more.
struct Taken<'a, 'py> {
    transport: Transport<'a, 'py>,
    token: Token,
    batch: Option<Box<Batch>>,
}

impl Taken<'_, '_> {
    fn give_back(&mut self) -> PyResult<()> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        with_driver(&self.transport.event_loop(), |driver| driver.give_back(self.token, batch))
    }
}

impl Drop for Taken<'_, '_> {
    fn drop(&mut self) {
        if self.batch.is_some() {
            // A panic. Both fail only in a forked child, which has no use of the transport.
            let _ = self.transport.with(|state| state.corked = false);
            let _ = self.give_back();
        }
    }
}

impl<'py> Transport<'_, 'py> {
    /// A batch came in. On the loop's thread, inside a run.
    pub(super) fn received(self, token: Token, batch: Box<Batch>) -> PyResult<()> {
        let py = self.py();
        let event_loop = self.event_loop();
        // SAFETY: this thread owns the core while it runs; the borrow ends with the statement.
        if unsafe { event_loop.get().core_mut().ready.is_empty() } {
            let context = self.context()?;
            return context::run(py, &context, || self.deliver(token, batch));
        }
        // As in asyncio, what was scheduled before runs first: it may be what gets the protocol ready.
        with_driver(&event_loop, |driver| driver.hold(token, batch))?;
        let callback = self.object.getattr("_deliver")?;
        let context = self.context()?;
        let arguments = PyTuple::empty(py);
        let handle =
            event_loop.get().make_handle(&event_loop, &callback, &arguments, Some(&context.bind(py)))?;
        turn::schedule(py, event_loop.get(), handle)
    }

    /// The turn of a batch that was held has come.
    pub(super) fn deliver_held(self) -> PyResult<()> {
        let Some(token) = self.with(|state| state.life.token)? else { return Ok(()) };
        match with_driver(&self.event_loop(), |driver| driver.take_held(token))? {
            Some(batch) => self.deliver(token, batch),
            None => Ok(()),
        }
    }

    /// Hands a batch to the protocol, inside the transport's context.
    fn deliver(self, token: Token, batch: Box<Batch>) -> PyResult<()> {
        // One alone is answered at once; of several the answers leave together.
        let cork = batch.len() > 1;
        self.with(|state| state.corked = cork)?;
        let mut taken = Taken { transport: self, token, batch: Some(batch) };
        panic::point("datagrams");
        let delivered = taken.batch.as_mut().map_or(Ok(()), |batch| self.deliver_each(batch));
        let flushed = if cork { self.uncork() } else { Ok(()) };
        taken.give_back()?;
        delivered.and(flushed)
    }

    fn deliver_each(self, batch: &mut Batch) -> PyResult<()> {
        let py = self.py();
        while let Some(delivery) = self.next_delivery(batch)? {
            let event_loop = self.event_loop();
            let start = event_loop.get().shared.is_debug().then(monotonic_ns);
            // SAFETY: attached, all alive.
            let result = unsafe {
                let name = names().datagram_received;
                let Delivery { protocol, data, sender } = &delivery;
                call::method2_raw(protocol.as_ptr(), name, data.as_ptr(), sender.as_ptr())
            };
            // SAFETY: a new reference or null with an exception set.
            let result = unsafe { Owned::steal_or_err(py, result) }.map(drop);
            if let Some(start) = start {
                self.log_if_slow(start, &delivery.protocol)?;
            }
            self.reported(result, "datagram_received")?;
        }
        Ok(())
    }

    /// Takes the next datagram out, unless the transport receives no more.
    #[inline]
    fn next_delivery(self, batch: &mut Batch) -> PyResult<Option<Delivery>> {
        let py = self.py();
        // SAFETY: the state is this thread's; making and releasing bytes and addresses runs no Python code.
        let state = unsafe { &mut *derived::state_of::<super::Datagram>(self.object.as_ptr()) };
        if state.read_mode() != ReadMode::Bytes {
            return Ok(None);
        }
        let Some((data, sender)) = batch.take() else { return Ok(None) };
        let sender = state.addresses.sender(py, sender)?;
        let data = bytes::copy(py, data)?;
        // SAFETY: attached; the protocol is alive in `public`.
        let protocol = unsafe { Owned::borrow(state.common.protocol) };
        Ok(Some(Delivery { protocol, data, sender }))
    }

    #[cold]
    fn log_if_slow(self, start: u64, protocol: &Owned) -> PyResult<()> {
        let py = self.py();
        let seconds = (monotonic_ns() - start) as f64 / 1e9;
        if seconds >= self.event_loop().get().with(py, |core| core.slow_callback_duration)? {
            let text = "Executing a callback of %r took %.3f seconds";
            imports::logger(py)?.call_method1("warning", (text, protocol.bind(py), seconds))?;
        }
        Ok(())
    }

    /// As [`deliver`](Self::deliver), for one datagram of a family whose addresses only Python's socket can put into words.
    pub(super) fn receive_by_python(self, token: Token) -> PyResult<()> {
        let py = self.py();
        let result = match self.sock().call_method1("recvfrom", (MAX_SIZE,)) {
            Ok(received) => {
                let arguments = received.cast_into::<PyTuple>()?;
                self.protocol().call_method1(names().datagram_received.bind(py), arguments).map(drop)
            }
            Err(error)
                if error.is_instance_of::<PyBlockingIOError>(py)
                    || error.is_instance_of::<PyInterruptedError>(py) =>
            {
                return with_driver(&self.event_loop(), |driver| driver.drained(token));
            }
            Err(error) if error.is_instance_of::<PyOSError>(py) => self.error_received(error),
            Err(error) => return self.fatal(error, "Fatal read error on datagram transport"),
        };
        Ok(self.reported(result, "datagram_received")?)
    }

    /// Calls error_received() for an error that does not end the transport; returns the callback's error.
    pub(super) fn error_received(self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        let protocol = self.protocol();
        protocol.call_method1(names().error_received.bind(py), (error.into_value(py),)).map(drop)
    }

    /// Gives what a callback raised to the loop's exception handler; the transport goes on, as in asyncio.
    pub(super) fn reported(self, result: PyResult<()>, callback: &str) -> OrFatal {
        let Err(error) = result else { return Ok(()) };
        Report::new(format!("Exception in callback protocol.{callback}()"))
            .error(error)
            .transport(self.object)
            .protocol(self.protocol())
            .send(&self.event_loop())
    }

    pub(super) fn set_paused(self, paused: bool) -> PyResult<()> {
        use std::sync::atomic::Ordering;
        let changed = self.with(|state| {
            state.life.phase == Phase::Open
                && state.public.marks.paused.swap(paused, Ordering::Relaxed) != paused
        })?;
        if changed { self.apply_read_mode() } else { Ok(()) }
    }
}
