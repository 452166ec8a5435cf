//! How a transport ends: closed after draining, aborted, or broken by an error. Whatever the way, `connection_lost` is
//! called exactly once, in a turn of its own.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Phase, Transport};
use crate::event_loop::endpoint::with_driver;
use crate::event_loop::report::{self, Report};
use crate::event_loop::turn;
use crate::py::Owned;
use crate::py::errors::both;
use crate::py::fatal::Fatal;
use crate::py::names::names;

impl<'py> Transport<'_, 'py> {
    /// Receives no more, sends what is queued, then ends.
    pub(super) fn close(self) -> PyResult<()> {
        self.event_loop().get().check_open()?;
        let sent = self.send_corked();
        let (was_open, empty) = self.with(|state| {
            let was_open = state.phase == Phase::Open;
            if was_open {
                state.phase = Phase::Draining;
                state.public.closing.store(true, Ordering::Relaxed);
            }
            (was_open, state.queue.is_empty())
        })?;
        if !was_open {
            return sent;
        }
        let ended = if empty { self.lose(None) } else { self.apply_read_mode() };
        both(sent, ended, self.object)
    }

    /// Ends at once; what the kernel has refused is thrown away.
    pub(super) fn abort(self) -> PyResult<()> {
        self.lose(None)
    }

    /// What was sent while a batch was delivered counts as sent.
    fn send_corked(self) -> PyResult<()> {
        let waits = self.with(|state| !state.blocked && !state.queue.is_empty())?;
        if waits { self.flush() } else { Ok(()) }
    }

    /// Ends with an error; one that is not an OSError is reported.
    pub(super) fn fatal(self, error: PyErr, message: &'static str) -> PyResult<()> {
        let py = self.py();
        let error = Fatal::split(py, error)?;
        let sent = self.send_corked();
        let is_os_error = error.is_instance_of::<PyOSError>(py);
        let event_loop = self.event_loop();
        let value = error.into_value(py).into_bound(py).into_any();
        let reported = if !is_os_error {
            let report = Report::new(message).error(PyErr::from_value(value.clone()));
            report.transport(self.object).protocol(self.protocol()).send(&event_loop).map_err(PyErr::from)
        } else {
            report::log(&event_loop, self.object, message, &value)
        };
        // What leaves the run from the handler finds the transport ended.
        let lost = both(reported, self.lose(Some(&value)), self.object);
        both(sent, lost, self.object)
    }

    /// Leaves the driver and schedules `connection_lost(error)`, unless that was done already. Only what the kernel has refused is
    /// thrown away.
    pub(super) fn lose(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let event_loop = self.event_loop();
        event_loop.get().check_open()?;
        // An error of that leaves the run, but the end comes first.
        let sent = self.send_corked();
        let (ends_now, token, queued) = self.with(|state| {
            let ends_now = matches!(state.phase, Phase::Open | Phase::Draining);
            if !ends_now {
                return (false, None, Default::default());
            }
            state.phase = Phase::Lost;
            state.blocked = false;
            state.public.closing.store(true, Ordering::Relaxed);
            state.public.buffered.store(0, Ordering::Relaxed);
            (true, state.token.take(), state.queue.take())
        })?;
        drop(queued);
        if !ends_now {
            return sent;
        }
        if let Some(token) = token {
            // Our reference keeps the transport: the driver's is dropped here.
            drop(with_driver(&event_loop, |driver| driver.deregister(token))?);
        }
        let callback = self.object.getattr("_call_connection_lost")?;
        let argument = error.cloned().unwrap_or_else(|| py.None().into_bound(py));
        let context = self.context()?;
        let arguments = PyTuple::new(py, [argument])?;
        let handle =
            event_loop.get().make_handle(&event_loop, &callback, &arguments, Some(&context.bind(py)))?;
        both(sent, turn::schedule(py, event_loop.get(), handle), self.object)
    }

    /// The scheduled end: calls connection_lost(), closes the socket.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        // Until connection_lost() was called, the socket is open: asyncio's order.
        if self.with(|state| state.phase)? == Phase::Closed || self.fd().is_none() {
            return Ok(());
        }
        let told = self.protocol().call_method1(names().connection_lost.bind(py), (error,)).map(drop);
        self.give_up_socket()?;
        let closed = self.sock().call_method0(names().close.bind(py)).map(drop);
        // A protocol most often keeps its transport; so it is not kept in turn, as in asyncio.
        let none: Owned = py.None().into_bound(py).into();
        let protocol = self.with(|state| {
            state.protocol = none.as_ptr();
            std::mem::replace(&mut *state.public.protocol.lock(py), none)
        })?;
        drop(protocol);
        both(told, closed, self.object)
    }

    /// The socket is not the transport's any more.
    pub(super) fn give_up_socket(self) -> PyResult<()> {
        self.with(|state| {
            state.public.fd.store(-1, Ordering::Relaxed);
            state.phase = Phase::Closed;
            state.public.closing.store(true, Ordering::Relaxed);
        })
    }
}
