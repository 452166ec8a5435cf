//! Ciphertext from below to the protocol.

use std::cell::Cell;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::{Phase, READ_HIGH, TlsTransport};
use crate::proto::tls::Stop;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::py::{Owned, buffer, bytes, call, context};

/// Room for what one receive of the driver may hold, in bytes.
const PLAINTEXT: usize = 256 * 1024;

thread_local! {
    /// Memory to decrypt into, lent to one connection after the other.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn scratch() -> Vec<u8> {
    let mut scratch = SCRATCH.take();
    scratch.resize(PLAINTEXT, 0);
    scratch
}

/// Bytes from a stream of ours.
pub(super) fn receive(object: &Bound<'_, PyAny>, data: &[u8]) -> PyResult<()> {
    TlsTransport::new(object).received(data)
}

impl<'py> TlsTransport<'_, 'py> {
    /// Ciphertext came in.
    pub(super) fn received(self, data: &[u8]) -> PyResult<()> {
        let mut kept = self.with(|tls| std::mem::take(&mut tls.unread))?;
        let mut input = data;
        if !kept.is_empty() {
            kept.extend_from_slice(data);
            input = &kept;
        }
        let result = self.advance(&mut input);
        if let Err(error) = &result
            && Fatal::is(self.py(), error)
        {
            // It leaves the run, the connection stays: what is here is looked at when the loop runs again.
            self.schedule("_resume")?;
        }
        if !input.is_empty() {
            let rest = input.to_vec();
            self.with(|tls| {
                if tls.phase != Phase::Over {
                    tls.unread = rest;
                }
            })?;
        }
        self.control_below()?;
        result
    }

    /// Goes on with what came in while reading was paused.
    pub(super) fn resume(self) -> PyResult<()> {
        let (phase, eof) = self.with(|tls| (tls.phase, tls.eof))?;
        if matches!(phase, Phase::New | Phase::Over) {
            return Ok(());
        }
        match self.received(&[]) {
            // Unless it was paused again: then there may be more.
            Ok(()) if eof && !self.with(|tls| tls.waits())? => self.ended(),
            Ok(()) => Ok(()),
            Err(error) => self.fatal(error, "Fatal error on SSL protocol").map(drop),
        }
    }

    /// Does with the input what the connection's phase calls for.
    fn advance(self, input: &mut &[u8]) -> PyResult<()> {
        loop {
            if self.with(|tls| tls.peer_closed)? {
                // Nothing may come after the peer's close_notify.
                *input = &[];
                return Ok(());
            }
            match self.phase()? {
                Phase::Handshake => {
                    if !self.handshake(input)? {
                        return Ok(());
                    }
                }
                Phase::Open | Phase::Flushing => {
                    if !self.read(input)? {
                        return Ok(());
                    }
                }
                Phase::Closing => return self.discard(input),
                // Kept until there is a connection to answer on.
                Phase::New => return Ok(()),
                Phase::Over => {
                    *input = &[];
                    return Ok(());
                }
            }
        }
    }

    /// Reads once and delivers; false when there is nothing more to be had from the input now.
    fn read(self, input: &mut &[u8]) -> PyResult<bool> {
        let (wanted, buffered) =
            self.with(|tls| (!tls.paused() || tls.phase == Phase::Flushing, tls.buffered_protocol))?;
        if !wanted {
            return Ok(false);
        }
        let stop = if self.phase()? == Phase::Flushing {
            self.skip(input)
        } else if buffered {
            self.read_into_offered(input)
        } else {
            self.read_copied(input)
        };
        match stop {
            Ok(Some(Stop::Full)) => Ok(true),
            // What the engine could not encrypt before it had this input.
            Ok(Some(Stop::Drained)) => self.flush().map(|()| false),
            Ok(Some(Stop::Closed)) => self.peer_closed().map(|()| false),
            Ok(None) => Ok(false),
            Err(error) => self.fatal(error, "Fatal error on SSL protocol").map(|_| {
                *input = &[];
                false
            }),
        }
    }

    fn read_copied(self, input: &mut &[u8]) -> PyResult<Option<Stop>> {
        let py = self.py();
        let mut plaintext = scratch();
        let read = self.drive(input, |engine, wire| engine.read(wire, &mut plaintext));
        let (count, stop) = match read {
            Ok(read) => read,
            Err(error) => {
                SCRATCH.set(plaintext);
                return Err(error);
            }
        };
        if count == 0 {
            SCRATCH.set(plaintext);
            return Ok(Some(stop));
        }
        let data = bytes::copy(py, &plaintext[..count]);
        SCRATCH.set(plaintext);
        let data = data?;
        let (protocol, context) = self.callee()?;
        // SAFETY: attached, all alive.
        let result = unsafe {
            context::run_raw(context.as_ptr(), || {
                call::method1_raw(protocol.as_ptr(), names().data_received, data.as_ptr())
            })
        };
        // SAFETY: a new reference or null with an exception set.
        match unsafe { Owned::steal_or_err(py, result) } {
            Ok(_) => Ok(Some(stop)),
            Err(error) => self.failed_above(error, "Fatal error: protocol.data_received() call failed."),
        }
    }

    /// Decrypts straight into the memory that a BufferedProtocol offers.
    fn read_into_offered(self, input: &mut &[u8]) -> PyResult<Option<Stop>> {
        let py = self.py();
        let (protocol, context) = self.callee()?;
        let hint: Owned = input.len().into_pyobject(py)?.into_any().into();
        // SAFETY: attached, all alive.
        let offered = unsafe {
            context::run_raw(context.as_ptr(), || {
                call::method1_raw(protocol.as_ptr(), names().get_buffer, hint.as_ptr())
            })
        };
        // SAFETY: a new reference or null with an exception set.
        let offered = match unsafe { Owned::steal_or_err(py, offered) } {
            Ok(offered) => offered.into_bound(py),
            Err(error) => {
                return self.failed_above(error, "Fatal error: protocol.get_buffer() call failed.");
            }
        };
        // It may have closed or paused the connection, or replaced the protocol.
        let on = self.with(|tls| {
            tls.phase == Phase::Open && !tls.paused() && tls.common.protocol == protocol.as_ptr()
        })?;
        if !on {
            return Ok(Some(Stop::Full));
        }
        let read = buffer::with_writable(&offered, |start, len| {
            if len == 0 {
                return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
            }
            // SAFETY: the view, which the caller holds, keeps the memory valid.
            let plaintext = unsafe { std::slice::from_raw_parts_mut(start, len) };
            self.drive(input, |engine, wire| engine.read(wire, plaintext))
        })?;
        let (count, stop) = read?;
        if count == 0 {
            return Ok(Some(stop));
        }
        let count: Owned = count.into_pyobject(py)?.into_any().into();
        // SAFETY: attached, all alive.
        let result = unsafe {
            context::run_raw(context.as_ptr(), || {
                call::method1_raw(protocol.as_ptr(), names().buffer_updated, count.as_ptr())
            })
        };
        // SAFETY: a new reference or null with an exception set.
        match unsafe { Owned::steal_or_err(py, result) } {
            Ok(_) => Ok(Some(stop)),
            Err(error) => self.failed_above(error, "Fatal error: protocol.buffer_updated() call failed."),
        }
    }

    fn failed_above(self, error: PyErr, message: &'static str) -> PyResult<Option<Stop>> {
        let error = Fatal::split(self.py(), error)?;
        self.fatal(error, message)?;
        Ok(None)
    }

    /// Decrypts and drops data that is not wanted any more.
    fn skip(self, input: &mut &[u8]) -> PyResult<Option<Stop>> {
        let mut plaintext = scratch();
        let read = self.drive(input, |engine, wire| engine.read(wire, &mut plaintext));
        SCRATCH.set(plaintext);
        Ok(Some(read?.1))
    }

    /// After our close_notify: looks for the peer's.
    fn discard(self, input: &mut &[u8]) -> PyResult<()> {
        loop {
            match self.skip(input) {
                Ok(Some(Stop::Full)) if self.phase()? == Phase::Closing => {}
                Ok(Some(Stop::Closed)) => return self.peer_closed(),
                Ok(_) => return Ok(()),
                Err(error) => {
                    *input = &[];
                    return self.fatal(error, "Fatal error on SSL protocol").map(drop);
                }
            }
        }
    }

    pub(super) fn set_paused(self, paused: bool) -> PyResult<()> {
        use std::sync::atomic::Ordering;
        let changed = self.with(|tls| {
            let on = matches!(tls.phase, Phase::New | Phase::Handshake | Phase::Open);
            on && tls.public.marks.paused.swap(paused, Ordering::Relaxed) != paused
        })?;
        // In a turn of its own: the caller may be in the middle of a callback.
        if changed && !paused { self.schedule("_resume") } else { Ok(()) }
    }

    /// Pauses reading below when much waits here, and resumes it.
    fn control_below(self) -> PyResult<()> {
        let py = self.py();
        let name = self.with(|tls| {
            if !tls.below_paused && tls.unread.is_empty() {
                return None;
            }
            let held = tls.unread.len();
            if held >= READ_HIGH && !tls.below_paused && tls.paused() {
                tls.below_paused = true;
                return Some(names().pause_reading);
            }
            if tls.below_paused && held <= READ_HIGH / 4 {
                tls.below_paused = false;
                return Some(names().resume_reading);
            }
            None
        })?;
        match (name, self.below()?) {
            (Some(name), Some(below)) => below.call_method0(name.bind(py)).map(drop),
            _ => Ok(()),
        }
    }
}
