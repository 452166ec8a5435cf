//! From the protocol to ciphertext, and to the transport below.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{Phase, TlsTransport};
use crate::net::stream::{self, Data, LOG_LOST_WRITES};
use crate::net::transport::flow::Caller;
use crate::proto::flow::FlowChange;
use crate::py::errors::both;
use crate::py::imports;
use crate::py::names::names;

/// How much is encrypted at a time, in bytes: four records. In between the transport below may say that it is full.
const STEP: usize = 64 * 1024;

impl<'py> TlsTransport<'_, 'py> {
    pub(super) fn write(self, object: &Bound<'py, PyAny>) -> PyResult<()> {
        let data = Data::new(object)?;
        self.write_data(&data)
    }

    pub(super) fn writelines(self, lines: &Bound<'py, PyAny>) -> PyResult<()> {
        let joined = PyBytes::new(self.py(), b"").call_method1("join", (lines,))?;
        self.write(&joined)
    }

    fn write_data(self, data: &Data<'py>) -> PyResult<()> {
        let py = self.py();
        let bytes = data.bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        let (phase, at_once) =
            self.with(|tls| (tls.phase, tls.phase == Phase::Open && tls.backlog.is_empty()))?;
        if matches!(phase, Phase::Flushing | Phase::Closing | Phase::Over) {
            return self.lost_write();
        }
        let sent = if at_once {
            match self.encrypt(bytes) {
                Ok(sent) => sent,
                Err(error) => return self.fatal(error, "Fatal error on SSL protocol").map(drop),
            }
        } else {
            0
        };
        if sent == bytes.len() {
            return Ok(());
        }
        let (chunk, gone) = data.keep(py, sent);
        let change = self.with(|tls| {
            if tls.phase == Phase::Over {
                return FlowChange::None;
            }
            tls.backlog.push(chunk, gone);
            tls.publish_size();
            tls.common.flow.grown(tls.backlog.len())
        })?;
        self.tell(change, Caller::User)
    }

    /// Encrypts and sends until all is gone or the transport below is full; how much that was.
    fn encrypt(self, bytes: &[u8]) -> PyResult<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            // In use: called from one of the connection's own callbacks.
            let ready = self.with(|tls| {
                tls.missed |= tls.engine.is_none();
                !tls.below_full && tls.engine.is_some()
            })?;
            if !ready {
                break;
            }
            let step = &bytes[sent..bytes.len().min(sent + STEP)];
            let count = self.drive(&mut &[][..], |engine, wire| engine.write(wire, step))?;
            if count == 0 {
                break;
            }
            sent += count;
        }
        Ok(sent)
    }

    /// Sends waiting data, as far as possible; after that, if the connection is being closed, close_notify.
    pub(super) fn flush(self) -> PyResult<()> {
        self.flush_called_from(Caller::Loop)
    }

    pub(super) fn flush_called_from(self, caller: Caller) -> PyResult<()> {
        let py = self.py();
        // An error that leaves the run on the way does so at the end: nothing else would send the rest, or say goodbye after it.
        let mut told = Ok(());
        loop {
            let first = self.with(|tls| {
                let ready = matches!(tls.phase, Phase::Open | Phase::Flushing);
                tls.missed |= ready && tls.engine.is_none();
                if !ready || tls.below_full || tls.engine.is_none() {
                    return None;
                }
                tls.backlog.first().map(|(chunk, gone)| (chunk.clone_ref(py), gone))
            })?;
            let Some((chunk, gone)) = first else { break };
            let sent = match self.encrypt(&chunk.as_ref()[gone..]) {
                Ok(sent) => sent,
                Err(error) => {
                    let failed = self.fatal(error, "Fatal error on SSL protocol").map(drop);
                    return both(told, failed, self.object);
                }
            };
            let mut done = Vec::new();
            let (change, all) = self.with(|tls| {
                // It may have ended meanwhile, with nothing left.
                let sent = sent.min(tls.backlog.len());
                tls.backlog.advance(sent, &mut done);
                tls.publish_size();
                (tls.common.flow.shrunk(tls.backlog.len()), sent == chunk.as_ref().len() - gone)
            })?;
            drop(done);
            told = both(told, self.tell(change, caller), self.object);
            if !all {
                break;
            }
        }
        both(told, self.say_goodbye(), self.object)
    }

    /// Ciphertext on its way out.
    pub(super) fn send_below(self, ciphertext: &[u8]) -> PyResult<()> {
        let py = self.py();
        let below = self
            .with(|tls| tls.below.as_ref().map(|below| (below.transport.clone_ref(py), below.is_stream)))?;
        match below {
            None => Ok(()),
            Some((transport, true)) => stream::send(&transport.into_bound(py), ciphertext),
            Some((transport, false)) => {
                let data = PyBytes::new(py, ciphertext);
                transport.bind(py).call_method1(names().write.bind(py), (data,)).map(drop)
            }
        }
    }

    fn lost_write(self) -> PyResult<()> {
        let writes = self.with(|tls| {
            tls.lost_writes += 1;
            tls.lost_writes
        })?;
        if writes > LOG_LOST_WRITES {
            imports::logger(self.py())?.call_method1("warning", ("SSL connection is closed",))?;
        }
        Ok(())
    }

    /// The transport below asks for no more, or for more again.
    pub(super) fn set_below_full(self, full: bool) -> PyResult<()> {
        self.with(|tls| tls.below_full = full)?;
        if full { Ok(()) } else { self.flush() }
    }
}
