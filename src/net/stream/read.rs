//! From the driver to the protocol.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::{Kind, Phase, Stream, Transport};
use crate::driver::{ReadMode, Token};
use crate::event_loop::endpoint::with_driver;
use crate::net::native::Receive;
use crate::py::errors::os_error;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::py::{Owned, buffer, bytes, call, context, derived};

/// Bytes on their way to `protocol.data_received`: what the call needs, taken out of the transport so that no borrow
/// of it lasts into Python, where the transport may be closed or given another protocol.
pub struct Delivery {
    transport: Owned,
    protocol: Owned,
    context: Owned,
    data: Owned,
}

impl Delivery {
    /// Copies the bytes into an exact `bytes` object. On the loop's thread, inside a run.
    #[inline]
    pub fn copy(py: Python<'_>, transport: &Owned, received: &[u8]) -> PyResult<Self> {
        Ok(Self::new(py, transport, bytes::copy(py, received)?))
    }

    /// Of an exact `bytes` object. On the loop's thread, inside a run.
    #[inline]
    fn new(py: Python<'_>, transport: &Owned, data: Owned) -> Self {
        // SAFETY: the stream is this thread's, its objects alive.
        unsafe {
            let stream = derived::state_of::<Stream>(transport.as_ptr());
            Self {
                transport: transport.clone_ref(py),
                protocol: Owned::borrow((*stream).common.protocol),
                context: (*stream).common.context.clone_ref(py),
                data,
            }
        }
    }

    #[inline]
    pub fn deliver(self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: attached, all alive.
        let result = unsafe {
            context::run_raw(self.context.as_ptr(), || {
                call::method1_raw(self.protocol.as_ptr(), names().data_received, self.data.as_ptr())
            })
        };
        if result.is_null() {
            let error = PyErr::fetch(py);
            return context::run(py, &self.context, || {
                let object = self.transport.into_bound(py);
                let transport = Transport::new(&object);
                if transport.kind() != Kind::Socket {
                    return transport.callback_failed(error, "data_received");
                }
                transport.fatal(error, "Fatal error: protocol.data_received() call failed.")
            });
        }
        // SAFETY: a new reference.
        unsafe { ffi::Py_DECREF(result) };
        Ok(())
    }
}

/// Whether the peer's end was met.
enum Ended {
    No,
    Yes,
}

impl<'py> Transport<'_, 'py> {
    /// Passes bytes to a protocol written in Rust, in place in the driver's buffer.
    pub(super) fn received_natively(self, receive: Receive, data: &[u8]) -> PyResult<()> {
        // SAFETY: the buffer is written to by the next completion, which is not requested before this one is handled, and
        // freed with the driver, when the loop closes, which it refuses while it runs.
        let data = unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) };
        self.received_or_fatal((receive.slice)(&self.protocol(), data))
    }

    fn received_or_fatal(self, result: PyResult<()>) -> PyResult<()> {
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.inside(|| self.fatal(error, "Fatal error: protocol.data_received() call failed."))
            }
        }
    }

    /// So much waits that it is received into the object that the protocol gets.
    pub(super) fn receive_object(self, token: Token, len: usize) -> PyResult<()> {
        let py = self.py();
        // Making the object under the claim runs no Python code.
        let received = with_driver(&self.event_loop(), |driver| {
            bytes::received(py, len, |start, len| {
                // SAFETY: this much memory of a new object, without another reference.
                unsafe { driver.recv_into(token, start, len) }.map(|n| (n, n))
            })
        })?;
        let data = match received {
            Ok(Ok((_, 0))) => return self.inside(|| self.end_of_stream()),
            Ok(Ok((data, _))) => data,
            // Another reader took it.
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(Err(error)) => {
                return self.inside(|| self.fatal(os_error(error), self.kind().read_failed()));
            }
            Err(error) => {
                self.apply_read_mode()?;
                return self.inside(|| self.fatal(error, self.kind().read_failed()));
            }
        };
        let native = self.with(|stream| stream.receive.and_then(|receive| receive.object))?;
        match native {
            Some(receive) => self.received_or_fatal(receive(&self.protocol(), data)),
            None => Delivery::new(py, &self.object.into(), data).deliver(py),
        }
    }

    /// There is something to read: straight into the buffer that a BufferedProtocol offers. In the transport's context.
    pub(super) fn readable(self) -> PyResult<()> {
        // SAFETY: alive in `public.objects`.
        let protocol = self.with(|stream| unsafe { Owned::borrow(stream.common.protocol) })?;
        match self.receive_for(&protocol)? {
            Ended::No => Ok(()),
            Ended::Yes => self.end_of_stream(),
        }
    }

    /// Asks for memory, receives into it and says how much that was.
    fn receive_for(self, protocol: &Owned) -> PyResult<Ended> {
        let py = self.py();
        // SAFETY: attached, all alive.
        let offered =
            unsafe { call::method1_raw(protocol.as_ptr(), names().get_buffer, names().minus_one.as_ptr()) };
        // SAFETY: a new reference or null with an exception set.
        let received = unsafe { Owned::steal_or_err(py, offered) }.and_then(|buffer| {
            buffer::with_writable(&buffer.into_bound(py), |start, len| self.receive_into(start, len))?
        });
        let count = match received {
            Ok(Ok(Some(count))) => count,
            Ok(Ok(None)) => return Ok(Ended::No),
            Ok(Err(error)) => {
                self.fatal(os_error(error), "Fatal read error on socket transport")?;
                return Ok(Ended::No);
            }
            Err(error) => {
                // Nothing was read: what waits is reported again, should the error leave the run and the connection stay.
                self.apply_read_mode()?;
                self.fatal(error, "Fatal error: protocol.get_buffer() call failed.")?;
                return Ok(Ended::No);
            }
        };
        if count == 0 {
            return Ok(Ended::Yes);
        }
        let count: Owned = count.into_pyobject(py)?.into();
        // SAFETY: attached, all alive.
        let result = unsafe { call::method1_raw(protocol.as_ptr(), names().buffer_updated, count.as_ptr()) };
        // SAFETY: a new reference or null with an exception set.
        match unsafe { Owned::steal_or_err(py, result) } {
            Ok(_) => {}
            Err(error) => self.fatal(error, "Fatal error: protocol.buffer_updated() call failed.")?,
        }
        Ok(Ended::No)
    }

    /// Receives into offered memory: how much, 0 at the end of the stream, None when there is nothing to do after all.
    fn receive_into(self, start: *mut u8, len: usize) -> PyResult<io::Result<Option<usize>>> {
        if len == 0 {
            return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
        }
        // `get_buffer` may have closed or paused the transport, or replaced the protocol.
        let token =
            self.with(|stream| stream.life.token.filter(|_| stream.read_mode() == ReadMode::Readiness))?;
        let Some(token) = token else { return Ok(Ok(None)) };
        // SAFETY: the caller holds the view, which keeps the memory valid.
        let received =
            with_driver(&self.event_loop(), |driver| unsafe { driver.recv_into(token, start, len) })?;
        Ok(match received {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// The peer sends no more: the protocol decides whether the other direction stays open. In the transport's context.
    pub(super) fn end_of_stream(self) -> PyResult<()> {
        let py = self.py();
        self.with(|stream| stream.eof_received = true)?;
        let answer = self.protocol().call_method0(names().eof_received.bind(py));
        match answer.and_then(|keep_open| keep_open.is_truthy()) {
            // Nothing more will be read.
            Ok(true) => self.apply_read_mode(),
            Ok(false) => self.close(),
            Err(error) if Fatal::is(py, &error) => {
                // It leaves the run, the connection stays: the end is met again when the loop runs again.
                let token = self.with(|stream| {
                    stream.eof_received = false;
                    stream.life.token
                })?;
                if let Some(token) = token {
                    with_driver(&self.event_loop(), |driver| driver.report_readable(token))?;
                }
                Err(error)
            }
            Err(error) => self.fatal(error, "Fatal error: protocol.eof_received() call failed."),
        }
    }

    pub(super) fn pause_reading(self) -> PyResult<()> {
        self.set_paused(true)
    }

    pub(super) fn resume_reading(self) -> PyResult<()> {
        self.set_paused(false)
    }

    fn set_paused(self, paused: bool) -> PyResult<()> {
        use std::sync::atomic::Ordering;
        let changed = self.with(|stream| {
            stream.life.phase == Phase::Open
                && stream.public.marks.paused.swap(paused, Ordering::Relaxed) != paused
        })?;
        if changed { self.apply_read_mode() } else { Ok(()) }
    }
}
