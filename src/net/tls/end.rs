//! How a connection ends: close_notify both ways, timeouts, fatal errors, `connection_lost`.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::handshake::is_expected;
use super::{Phase, TlsTransport, Told};
use crate::event_loop::report::{self, Report};
use crate::event_loop::turn;
use crate::net::transport::flow::Caller;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::py::{Owned, context, imports};

impl<'py> TlsTransport<'_, 'py> {
    /// Reads no more, sends what waits, says goodbye, waits for the peer to do the same, then closes below.
    pub(super) fn close(self) -> PyResult<()> {
        let phase = self.with(|tls| {
            let phase = tls.phase;
            tls.public.marks.closing.store(true, Ordering::Relaxed);
            match phase {
                Phase::New => tls.phase = Phase::Over,
                Phase::Open => tls.phase = Phase::Flushing,
                _ => {}
            }
            phase
        })?;
        match phase {
            Phase::Handshake => self.force_close(None),
            Phase::Open => {
                let timeout = self.with(|tls| tls.shutdown_timeout)?;
                self.set_timer(timeout, "_shutdown_timed_out")?;
                self.flush_called_from(Caller::User)?;
                // Bytes that came in while reading was paused are not wanted any more, but the peer's close_notify may follow them.
                // It need not be in `unread`: the engine may have taken it already.
                if self.with(|tls| tls.engine.is_some() && (tls.paused() || !tls.unread.is_empty()))? {
                    self.received(&[])?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Nothing more will come in: the peer sent close_notify, or the connection below ended.
    pub(super) fn ended(self) -> PyResult<()> {
        match self.phase()? {
            Phase::Open => {
                self.tell_eof()?;
                self.close()
            }
            // It may be all that was waited for.
            Phase::Flushing | Phase::Closing => self.say_goodbye(),
            _ => Ok(()),
        }
    }

    /// The peer said goodbye.
    pub(super) fn peer_closed(self) -> PyResult<()> {
        self.with(|tls| tls.peer_closed = true)?;
        self.ended()
    }

    /// The connection below gives no more; true when this side closes it later.
    pub(super) fn eof_below(self) -> PyResult<bool> {
        let (phase, waits) = self.with(|tls| {
            tls.eof = true;
            (tls.phase, tls.waits())
        })?;
        if self.event_loop().get().shared.is_debug() {
            imports::logger(self.py())?.call_method1("debug", ("%r received EOF", self.object))?;
        }
        match phase {
            Phase::Handshake => self.handshake_cut().map(|()| false),
            // What came in is still to be read.
            _ if waits => Ok(true),
            _ => {
                self.ended()?;
                // While something is still to be sent, this side closes when it is.
                self.with(|tls| tls.phase == Phase::Flushing)
            }
        }
    }

    /// With everything sent: sends close_notify, and when the peer's is in too, closes below.
    pub(super) fn say_goodbye(self) -> PyResult<()> {
        let (now, both) = self.with(|tls| {
            let sent = tls.phase == Phase::Flushing && tls.backlog.is_empty() && tls.engine.is_some();
            if sent {
                tls.phase = Phase::Closing;
            }
            // A peer that just ended its stream did not wait for a goodbye and gets none, as from asyncio.
            (
                sent && (!tls.eof || tls.peer_closed),
                tls.phase == Phase::Closing && (tls.peer_closed || tls.eof),
            )
        })?;
        if now && let Err(error) = self.drive(&mut &[][..], |engine, wire| engine.close(wire)) {
            return self.fatal(error, "Fatal error on transport").map(drop);
        }
        if !both {
            return Ok(());
        }
        self.cancel_timer()?;
        match self.below()? {
            Some(below) => below.call_method0(names().close.bind(self.py())).map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn shutdown_timed_out(self) -> PyResult<()> {
        if matches!(self.phase()?, Phase::Flushing | Phase::Closing) {
            let error = PyTimeoutError::new_err("SSL shutdown timed out").into_value(self.py());
            self.force_close(Some(error.bind(self.py()).as_any()))?;
        }
        Ok(())
    }

    /// Calls eof_received().
    fn tell_eof(self) -> PyResult<()> {
        let py = self.py();
        let tell = self.with(|tls| {
            let tell = tls.told == Told::Made;
            if tell {
                tls.told = Told::Eof;
            }
            tell
        })?;
        if !tell {
            return Ok(());
        }
        let (protocol, context) = self.callee()?;
        let answer = context::run(py, &context, || {
            protocol.bind(py).call_method0(names().eof_received.bind(py))?.is_truthy()
        });
        match answer {
            Ok(false) => Ok(()),
            Ok(true) => {
                let text = "returning true from eof_received() has no effect when using ssl";
                imports::logger(py)?.call_method1("warning", (text,)).map(drop)
            }
            // As asyncio: ends without a word.
            Err(error) if error.is_instance(py, imports::cancelled_error(py)?) => {
                self.force_close(Some(error.into_value(py).bind(py).as_any()))
            }
            Err(error) => self.fatal(error, "Error calling eof_received()").map(drop),
        }
    }

    /// Ends with an error, reported unless it says no more than that the connection failed. Returns the exception.
    pub(super) fn fatal(self, error: PyErr, message: &'static str) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let error = Fatal::split(py, error)?;
        let expected = is_expected(py, &error);
        let value = error.into_value(py).into_bound(py).into_any();
        let below = self.below()?;
        self.force_close(Some(&value))?;
        let event_loop = self.event_loop();
        if !expected {
            Report::new(message)
                .error(PyErr::from_value(value.clone()))
                .with("transport", below.into_pyobject(py)?)
                .protocol(self.object.clone())
                .inside(self.callee()?.1)
                .send(&event_loop)?;
        } else {
            report::log(&event_loop, self.object, message, &value)?;
        }
        Ok(value)
    }

    /// Ends at once: nothing more is sent or read.
    pub(super) fn force_close(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let garbage = self.with(|tls| {
            tls.public.marks.closing.store(true, Ordering::Relaxed);
            // A waiter for the handshake is ended through `connection_lost`.
            if tls.phase != Phase::Handshake {
                tls.phase = Phase::Over;
            }
            tls.unread = Vec::new();
            let garbage = (tls.backlog.take(), tls.engine.take());
            tls.publish_size();
            garbage
        })?;
        drop(garbage);
        let Some(below) = self.below()? else { return Ok(()) };
        if below.hasattr(names()._force_close.bind(py))? {
            let error = error.cloned().unwrap_or_else(|| py.None().into_bound(py));
            return below.call_method1(names()._force_close.bind(py), (error,)).map(drop);
        }
        below.call_method0("abort").map(drop)
    }

    /// The connection below is gone.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.cancel_timer()?;
        let none: Owned = py.None().into_bound(py).into();
        let (tell, protocol, callback_context, garbage) = self.with(|tls| {
            let tell = tls.phase != Phase::Handshake && matches!(tls.told, Told::Made | Told::Eof);
            if tell {
                tls.told = Told::Lost;
            }
            tls.phase = Phase::Over;
            tls.lost_writes += 1;
            tls.public.marks.closing.store(true, Ordering::Relaxed);
            tls.unread = Vec::new();
            let mut objects = tls.public.objects.lock(py);
            // What closes cycles goes; the connection may be looked at still.
            tls.common.protocol = none.as_ptr();
            let protocol = std::mem::replace(&mut objects.protocol, none);
            let below = tls.below.take();
            // A stream of ours has released this transport, and may still be asked for addresses.
            let kept = below.as_ref().is_some_and(|below| below.is_stream);
            let asked = if kept { None } else { objects.below.take() };
            drop(objects);
            let garbage = (tls.backlog.take(), tls.engine.take(), below, asked, tls.ssl_object.take());
            tls.publish_size();
            (tell, protocol, tls.common.context.clone_ref(py), garbage)
        })?;
        drop(garbage);
        if tell {
            let event_loop = self.event_loop();
            let callback = protocol.bind(py).getattr(names().connection_lost.bind(py))?;
            let arguments = PyTuple::new(py, [error])?;
            let context = callback_context.into_bound(py);
            let handle = event_loop.get().make_handle(&event_loop, &callback, &arguments, Some(&context))?;
            turn::schedule(py, event_loop.get(), handle)?;
        }
        self.wake_waiter(Some(error).filter(|error| !error.is_none()))
    }

    // ---- timers and later calls ---------------------------------------------------------------------

    /// Starts the one timer: a method of this object, so many seconds from now.
    pub(super) fn set_timer(self, seconds: f64, method: &str) -> PyResult<()> {
        let callback = self.object.getattr(method)?;
        let timer: Owned = self.event_loop().call_method1("call_later", (seconds, callback))?.into();
        let former = self.with(|tls| tls.timer.replace(timer))?;
        self.cancel(former)
    }

    pub(super) fn cancel_timer(self) -> PyResult<()> {
        let timer = self.with(|tls| tls.timer.take())?;
        self.cancel(timer)
    }

    fn cancel(self, timer: Option<Owned>) -> PyResult<()> {
        let py = self.py();
        match timer {
            Some(timer) => timer.bind(py).call_method0(names().cancel.bind(py)).map(drop),
            None => Ok(()),
        }
    }

    /// Calls a method of this object in the next turn. Not in the transport's context, which the method enters for the protocol.
    pub(super) fn schedule(self, method: &str) -> PyResult<()> {
        let py = self.py();
        let event_loop = self.event_loop();
        let callback = self.object.getattr(method)?;
        let handle = event_loop.get().make_handle(&event_loop, &callback, &PyTuple::empty(py), None)?;
        turn::schedule(py, event_loop.get(), handle)
    }
}
