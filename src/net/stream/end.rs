//! How a transport ends: closed after draining, aborted, or broken by an error. Whatever the way, `connection_lost` is
//! called exactly once, in a turn of its own.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Kind, Phase, Transport};
use crate::event_loop::endpoint::with_driver;
use crate::event_loop::report::{self, Report};
use crate::event_loop::turn;
use crate::py::Owned;
use crate::py::errors::both;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::sys;

/// The number of an OSError.
fn errno(py: Python<'_>, error: &PyErr) -> Option<i32> {
    error.is_instance_of::<PyOSError>(py).then(|| error.value(py).getattr("errno").ok()?.extract().ok())?
}

impl<'py> Transport<'_, 'py> {
    /// Reads no more, sends what is queued, then ends.
    pub(super) fn close(self) -> PyResult<()> {
        self.event_loop().get().check_open()?;
        // Whether anything has to wait decides what becomes of later writes.
        let flushed = self.flush_held();
        let (was_open, empty) = self.with(|stream| {
            let was_open = stream.phase == Phase::Open;
            if was_open {
                stream.phase = Phase::Draining;
                stream.public.closing.store(true, Ordering::Relaxed);
            }
            (was_open, stream.queue.is_empty())
        })?;
        if !was_open {
            return flushed;
        }
        let ended = if empty { self.lose(None) } else { self.apply_read_mode() };
        both(flushed, ended, self.object)
    }

    /// Ends at once; what the kernel did not take is thrown away.
    pub(super) fn abort(self) -> PyResult<()> {
        self.lose(None)
    }

    /// Ends with an error. As in asyncio, an OSError was not caused by the program: only the protocol gets it.
    pub(super) fn fatal(self, error: PyErr, message: &'static str) -> PyResult<()> {
        let py = self.py();
        let error = Fatal::split(py, error)?;
        let flushed = self.flush_held();
        let peer_is_gone = match self.kind() {
            // The other side of a terminal.
            Kind::ReadPipe => errno(py, &error) == Some(libc::EIO),
            Kind::Socket | Kind::WritePipe { .. } => error.is_instance_of::<PyOSError>(py),
        };
        let event_loop = self.event_loop();
        let value = error.into_value(py).into_bound(py).into_any();
        let reported = if peer_is_gone {
            report::log(&event_loop, self.object, message, &value)
        } else {
            let report = Report::new(message).error(PyErr::from_value(value.clone()));
            report.transport(self.object).protocol(self.protocol()).send(&event_loop).map_err(PyErr::from)
        };
        // What leaves the run from the handler finds the transport ended.
        let lost = both(reported, self.lose(Some(&value)), self.object);
        both(flushed, lost, self.object)
    }

    /// Leaves the driver and schedules `connection_lost(error)`, unless that was done already. What was written counts as sent:
    /// the kernel gets what is held, and only what it does not take is thrown away.
    pub(super) fn lose(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let event_loop = self.event_loop();
        event_loop.get().check_open()?;
        // An error of that leaves the run, but the end comes first.
        let flushed = self.flush_held();
        let (ends_now, token, queued) = self.with(|stream| {
            let ends_now = matches!(stream.phase, Phase::Open | Phase::Draining);
            if !ends_now {
                return (false, None, Default::default());
            }
            stream.phase = Phase::Lost;
            stream.public.closing.store(true, Ordering::Relaxed);
            let queued = stream.queue.take();
            stream.publish_size();
            (true, stream.token.take(), queued)
        })?;
        drop(queued);
        if !ends_now {
            return flushed;
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
        both(flushed, turn::schedule(py, event_loop.get(), handle), self.object)
    }

    /// The scheduled end: calls connection_lost(), closes the socket or pipe, notifies the server.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if self.with(|stream| std::mem::replace(&mut stream.phase, Phase::Closed))? == Phase::Closed {
            return Ok(());
        }
        let told = self.protocol().call_method1(names().connection_lost.bind(py), (error,)).map(drop);
        // Each step is made even if one before it has failed: a waiter for the end waits for all of them.
        let told = both(told, self.close_socket(), self.object);
        let told = both(told, self.lose_sender(error), self.object);
        let told = both(told, self.let_go_of_protocol(), self.object);
        let Some(server) = self.with(|stream| stream.server.take())? else { return told };
        let detached = server.bind(py).call_method1(names()._detach.bind(py), (self.object,)).map(drop);
        both(told, detached, self.object)
    }

    /// A protocol most often keeps its transport; so it is not kept in turn, as in asyncio: otherwise only the collector, which stops
    /// every thread, could release the two.
    fn let_go_of_protocol(self) -> PyResult<()> {
        let py = self.py();
        let none: Owned = py.None().into_bound(py).into();
        let protocol = self.with(|stream| {
            stream.receive = None;
            stream.protocol = none.as_ptr();
            std::mem::replace(&mut stream.public.objects.lock(py).protocol, none)
        })?;
        drop(protocol);
        Ok(())
    }

    /// Closes the socket, through its Python object if there is one.
    pub(super) fn close_socket(self) -> PyResult<()> {
        let py = self.py();
        let fd = self.with(|stream| stream.public.fd.swap(-1, Ordering::Relaxed))?;
        if fd < 0 {
            return Ok(());
        }
        let sock = self.public(|public| public.objects.lock(py).extra.socket_closed(py, fd));
        match sock {
            Some(sock) => sock.bind(py).call_method0(names().close.bind(py)).map(drop),
            None => {
                sys::socket::close(fd);
                Ok(())
            }
        }
    }

    /// A transport that never came to life leaves the socket to its maker.
    pub(super) fn give_up_socket(self) -> PyResult<()> {
        self.with(|stream| {
            stream.public.fd.store(-1, Ordering::Relaxed);
            stream.phase = Phase::Closed;
            stream.public.closing.store(true, Ordering::Relaxed);
        })
    }
}
