//! What is a datagram socket's own in the end of a transport (`net/transport/end.rs`).

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::{Datagram, Transport};
use crate::net::transport::end::{Ends, Life, Step, nothing};
use crate::py::names::names;

impl Ends for Datagram {
    fn life(&mut self) -> &mut Life {
        &mut self.life
    }

    fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    fn take_queue(&mut self) -> impl Sized + use<> {
        self.blocked = false;
        self.public.marks.buffered.store(0, Ordering::Relaxed);
        self.queue.take()
    }

    fn is_quiet(transport: Transport<'_, '_>, error: &PyErr) -> bool {
        error.is_instance_of::<PyOSError>(transport.py())
    }

    fn apply_read_mode(transport: Transport<'_, '_>) -> PyResult<()> {
        transport.apply_read_mode()
    }

    fn close_descriptor(transport: Transport<'_, '_>) -> PyResult<()> {
        if transport.take_fd().is_none() {
            return Ok(());
        }
        transport.sock().call_method0(names().close.bind(transport.py())).map(drop)
    }

    const AFTER_CLOSE: Step<Self> = nothing;
    const LAST: Step<Self> = nothing;
}

impl Transport<'_, '_> {
    /// What was sent while a batch was delivered counts as sent.
    pub(super) fn send_corked(self) -> PyResult<()> {
        let waits = self.with(|state| !state.blocked && !state.queue.is_empty())?;
        if waits { self.flush() } else { Ok(()) }
    }
}
