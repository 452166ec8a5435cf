//! The ends of a pipe: anything that read(2) and write(2) serve and that a process may have as its input or output.
//!
//! They share queue, flow control and end with sockets. Rules of their own: what `data_received` raises is reported and reading
//! goes on; the end of the data closes the transport, whatever `eof_received` says; half-closing is closing; and a write
//! end notices without writing that its reader is gone.

use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyBrokenPipeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Extra, Kind, Parts, Transport, assemble, start_soon};
use crate::event_loop::report::Report;
use crate::event_loop::{EventLoop, turn};
use crate::net::watch;
use crate::py::errors::OrOsError;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::py::{Owned, context, imports};
use crate::sys::detached::detached;
use crate::sys::pipe;

impl<'py> Transport<'_, 'py> {
    /// The other end writes no more: the protocol gets eof_received(), then the transport ends.
    pub(super) fn end_of_pipe(self) -> PyResult<()> {
        let py = self.py();
        self.log_closed_by_peer()?;
        self.with(|stream| stream.public.marks.closing.store(true, Ordering::Relaxed))?;
        let event_loop = self.event_loop();
        match self.protocol().getattr(names().eof_received.bind(py)) {
            Ok(callback) => {
                let (context, nothing) = (self.context()?.into_bound(py), PyTuple::empty(py));
                let handle =
                    event_loop.get().make_handle(&event_loop, &callback, &nothing, Some(&context))?;
                turn::schedule(py, event_loop.get(), handle)?;
            }
            Err(error) => self.callback_failed(error, "eof_received")?,
        }
        self.lose(None)
    }

    /// The reading end is closed.
    pub(super) fn reader_is_gone(self) -> PyResult<()> {
        self.log_closed_by_peer()?;
        if self.with(|stream| stream.queue.is_empty())? {
            return self.lose(None);
        }
        self.lose(Some(PyBrokenPipeError::new_err(()).value(self.py()).as_any()))
    }

    fn log_closed_by_peer(self) -> PyResult<()> {
        if self.event_loop().get().shared.is_debug() {
            imports::logger(self.py())?.call_method1("info", ("%r was closed by peer", self.object))?;
        }
        Ok(())
    }

    /// A callback of the protocol failed; that is reported and the transport goes on.
    pub(super) fn callback_failed(self, error: PyErr, name: &str) -> PyResult<()> {
        let error = Fatal::split(self.py(), error)?;
        Report::new(format!("Exception in callback {name}() of {}", self.object.repr()?))
            .error(error)
            .transport(self.object)
            .protocol(self.protocol())
            .send(&self.event_loop())?;
        Ok(())
    }

    /// As `StreamTransport`'s `repr`, for an end of a pipe.
    pub(super) fn repr_of_pipe(self) -> String {
        let (closing, paused, buffered) = self.marks(|marks| {
            let closing = marks.closing.load(Ordering::Relaxed);
            (closing, marks.paused.load(Ordering::Relaxed), marks.buffered.load(Ordering::Relaxed))
        });
        let state = if closing { " closing" } else { "" };
        let (name, polls, size) = match self.kind() {
            Kind::WritePipe => ("WritePipeTransport", buffered > 0, format!(" bufsize={buffered}")),
            _ => ("ReadPipeTransport", !closing && !paused, String::new()),
        };
        match self.fd() {
            Some(fd) => {
                let polls = if polls { "polling" } else { "idle" };
                format!("<{name}{state} fd={fd} open {polls}{size}>")
            }
            None => format!("<{name} closed>"),
        }
    }
}

/// Makes the transport of one end; it begins in the next turn.
fn connect<'py>(
    event_loop: &Bound<'py, EventLoop>,
    file: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    waiter: Option<&Bound<'py, PyAny>>,
    given: Option<&Bound<'py, PyDict>>,
    kind: impl FnOnce(pipe::Kind) -> Option<(Kind, bool)>,
    refusal: &'static str,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    event_loop.get().check_open()?;
    let fd = watch::fileno(file)?;
    let found = detached(|token| pipe::kind(token, fd)).or_os_error()?;
    let kind = kind(found).ok_or_else(|| PyValueError::new_err(refusal))?;
    pipe::set_nonblocking(fd).or_os_error()?;
    let context = context::copy_current(py)?;
    let parts = Parts {
        fd,
        owned: None,
        protocol: protocol.clone(),
        context: context.clone_ref(py),
        server: None,
        extra: Extra { pipe: Some(file.into()), given: given.map(Owned::from), ..Extra::default() },
    };
    let transport = assemble(event_loop, kind, parts, |driver, endpoint| driver.register_pipe(fd, endpoint))?;
    start_soon(event_loop, &transport, context, waiter)?;
    Ok(transport)
}

#[pymethods]
impl EventLoop {
    /// A transport that reads from a pipe's file object. ValueError for a regular file.
    #[pyo3(signature = (pipe, protocol, waiter=None, extra=None))]
    fn _make_read_pipe_transport<'py>(
        slf: &Bound<'py, Self>,
        pipe: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<&Bound<'py, PyAny>>,
        extra: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind = |found| (found != pipe::Kind::Other).then_some((Kind::ReadPipe, false));
        connect(slf, pipe, protocol, waiter, extra, kind, "Pipe transport is for pipes/sockets only.")
    }

    /// A transport that writes to a pipe's file object. ValueError for a regular file.
    #[pyo3(signature = (pipe, protocol, waiter=None, extra=None))]
    fn _make_write_pipe_transport<'py>(
        slf: &Bound<'py, Self>,
        pipe: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<&Bound<'py, PyAny>>,
        extra: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind = |found| match found {
            pipe::Kind::Other => None,
            // What it has to read is its user's.
            pipe::Kind::Character => Some((Kind::WritePipe, false)),
            pipe::Kind::Fifo | pipe::Kind::Socket => Some((Kind::WritePipe, true)),
        };
        let refusal = "Pipe transport is only for pipes, sockets and character devices";
        connect(slf, pipe, protocol, waiter, extra, kind, refusal)
    }
}
