//! From the connection below to `connection_made`.

use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyConnectionAbortedError, PyConnectionResetError, PyOSError};
use pyo3::prelude::*;

use super::{Below, Phase, Shown, TlsTransport, Told};
use crate::net::stream;
use crate::proto::tls::Handshake;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::py::{context, imports};
use crate::sys::clock::monotonic_ns;

impl<'py> TlsTransport<'_, 'py> {
    /// There is a connection: begins the handshake.
    pub(super) fn connection_made(self, below: &Bound<'py, PyAny>) -> PyResult<()> {
        let debug = self.event_loop().get().shared.is_debug();
        let fresh = self.with(|tls| {
            let fresh = tls.phase == Phase::New;
            if fresh {
                tls.phase = Phase::Handshake;
                tls.began = debug.then(monotonic_ns);
                tls.public.objects.lock(below.py()).below = Some(below.into());
                let is_stream = stream::is_stream(below);
                tls.below = Some(Below { transport: below.into(), is_stream });
            }
            fresh
        })?;
        if !fresh {
            // Closed before it began.
            return below.call_method0("abort").map(drop);
        }
        if debug {
            imports::logger(self.py())?.call_method1("debug", ("%r starts SSL handshake", self.object))?;
        }
        let timeout = self.with(|tls| tls.handshake_timeout)?;
        self.set_timer(timeout, "_handshake_timed_out")?;
        // What was taken in before (`start_tls`), or nothing.
        self.received(&[])?;
        // The end of a stream is reported once, to its protocol at that time.
        if stream::has_ended(below)? && self.with(|tls| tls.phase == Phase::Handshake)? {
            self.eof_below()?;
        }
        Ok(())
    }

    /// Goes on with the handshake; true when it is done and there may be something to read.
    pub(super) fn handshake(self, input: &mut &[u8]) -> PyResult<bool> {
        match self.drive(input, |engine, wire| engine.handshake(wire)) {
            Ok(Handshake::Pending) => Ok(false),
            Ok(Handshake::Done) => self.handshake_done(),
            Err(error) => self.handshake_failed(error).map(|()| false),
        }
    }

    /// Whether the connection is open now.
    fn handshake_done(self) -> PyResult<bool> {
        let py = self.py();
        let ssl_object = self.with(|tls| tls.ssl_object.as_ref().map(|object| object.clone_ref(py)))?;
        // What is not shown goes after the claim.
        let mut shown = match ssl_object.map(|object| Shown::of(&object.into_bound(py))).transpose() {
            Ok(shown) => shown,
            Err(error) => return self.handshake_failed(error).map(|()| false),
        };
        let (still_on, first, began) = self.with(|tls| {
            // A callback of the handshake (SNI) may have closed the connection: then the end of the one below is waited for.
            let still_on = tls.phase == Phase::Handshake && !tls.public.marks.closing.load(Ordering::Relaxed);
            let first = still_on && tls.told == Told::Nothing;
            if still_on {
                tls.phase = Phase::Open;
                tls.public.objects.lock(py).ssl_object = shown.take();
            }
            if first {
                tls.told = Told::Made;
            }
            (still_on, first, tls.began.take())
        })?;
        if !still_on {
            return Ok(false);
        }
        self.cancel_timer()?;
        if let Some(began) = began {
            let milliseconds = (monotonic_ns() - began) as f64 / 1e6;
            let arguments = ("%r: SSL handshake took %.1f ms", self.object, milliseconds);
            imports::logger(py)?.call_method1("debug", arguments)?;
        }
        if first {
            let (protocol, context) = self.callee()?;
            let made = context::run(py, &context, || {
                protocol.bind(py).call_method1(names().connection_made.bind(py), (self.object,)).map(drop)
            });
            if let Err(error) = made {
                if Fatal::is(py, &error) {
                    // It leaves the run and the connection stays, for its waiter.
                    self.wake_waiter(None)?;
                }
                return Err(error);
            }
        }
        self.wake_waiter(None)?;
        // Written before the handshake was done.
        self.flush().map(|()| true)
    }

    pub(super) fn handshake_failed(self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        if Fatal::is(py, &error) {
            // It leaves the run. OpenSSL has taken no harm from what a callback raises: the handshake goes on in the next one.
            return Err(error);
        }
        self.cancel_timer()?;
        self.with(|tls| tls.phase = Phase::Over)?;
        let message = if error.is_instance(py, imports::ssl_certificate_error(py)?) {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        let error = self.fatal(error, message)?;
        self.wake_waiter(Some(&error))
    }

    /// The peer ended its direction in the middle of the handshake.
    pub(super) fn handshake_cut(self) -> PyResult<()> {
        self.handshake_failed(PyConnectionResetError::new_err("connection lost during the SSL handshake"))
    }

    pub(super) fn handshake_timed_out(self) -> PyResult<()> {
        let (phase, seconds) = self.with(|tls| (tls.phase, tls.handshake_timeout))?;
        if phase != Phase::Handshake {
            return Ok(());
        }
        let seconds = seconds.into_pyobject(self.py())?;
        let error = PyConnectionAbortedError::new_err(format!(
            "SSL handshake is taking longer than {seconds} seconds: aborting the connection"
        ));
        self.fatal(error, "Fatal error on transport").map(drop)
    }

    /// Notifies the waiter for the handshake, once.
    pub(super) fn wake_waiter(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let Some(waiter) = self.with(|tls| tls.waiter.take())? else { return Ok(()) };
        let waiter = waiter.bind(py);
        if waiter.call_method0(names().done.bind(py))?.is_truthy()? {
            return Ok(());
        }
        match error {
            None => waiter.call_method1(names().set_result.bind(py), (py.None(),))?,
            Some(error) => waiter.call_method1(names().set_exception.bind(py), (error,))?,
        };
        Ok(())
    }
}

/// Whether an error says no more than that the connection failed: such are not reported.
pub(super) fn is_expected(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyOSError>(py)
}
