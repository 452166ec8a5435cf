//! What a call is to do, and one attempt at it.

use std::io;
use std::os::fd::RawFd;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::datagram::{Destination, Family};
use super::file::FileTransfer;
use super::{datagram, plain, stream};
use crate::event_loop::EventLoop;
use crate::net::watch::Direction;
use crate::py::Owned;
use crate::py::buffer::BufferView;
use crate::py::errors::os_error;
use crate::py::names::names;
use crate::sys;

pub enum Operation {
    Receive { limit: usize },
    ReceiveInto { buffer: BufferView },
    SendAll { data: Data, sent: usize },
    Accept,
    Connect { address: Owned, started: bool },
    ReceiveFrom { limit: usize, family: Family },
    ReceiveFromInto { object: Owned, buffer: BufferView, limit: usize, family: Family },
    // Boxed where it is large: operations are moved at every step.
    SendTo { object: Owned, data: BufferView, to: Box<Destination> },
    SendFile(Box<FileTransfer>),
}

/// Bytes to be sent.
pub enum Data {
    /// Exact `bytes`, which never change: a reference is enough.
    Bytes(Owned),
    View(BufferView),
}

impl Data {
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match object.cast_exact::<PyBytes>() {
            Ok(bytes) => Ok(Data::Bytes(bytes.into())),
            Err(_) => BufferView::readable(object).map(Data::View),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: exact bytes, kept alive by the reference.
            Data::Bytes(object) => unsafe {
                let start = ffi::PyBytes_AS_STRING(object.as_ptr());
                std::slice::from_raw_parts(
                    start.cast(),
                    (*object.as_ptr().cast::<ffi::PyVarObject>()).ob_size as usize,
                )
            },
            Data::View(view) => view.bytes(),
        }
    }
}

/// What came of an attempt.
pub enum Attempt<'py> {
    Ready(Bound<'py, PyAny>),
    /// A read that got something, but less than it asked for.
    Short(Bound<'py, PyAny>),
    MustWait,
}

impl<'py> Attempt<'py> {
    /// Of a system call: a call that would block must wait.
    pub fn of<T>(
        result: io::Result<T>,
        ready: impl FnOnce(T) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        match result {
            Ok(value) => ready(value).map(Attempt::Ready),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::MustWait),
            Err(error) => Err(os_error(error)),
        }
    }
}

impl Operation {
    pub fn direction(&self) -> Direction {
        match self {
            Operation::Receive { .. }
            | Operation::ReceiveInto { .. }
            | Operation::Accept
            | Operation::ReceiveFrom { .. }
            | Operation::ReceiveFromInto { .. } => Direction::Read,
            Operation::SendAll { .. }
            | Operation::Connect { .. }
            | Operation::SendTo { .. }
            | Operation::SendFile(_) => Direction::Write,
        }
    }

    /// Whether its target is a transport, not a socket.
    pub fn is_for_transport(&self) -> bool {
        matches!(self, Operation::SendFile(transfer) if transfer.is_for_transport())
    }

    /// Whether it waits only after the kernel has refused it, and for no more than that the kernel takes it again: a change
    /// of readiness is all that it needs.
    pub fn waits_for_edges(&self) -> bool {
        match self {
            Operation::Receive { .. }
            | Operation::ReceiveInto { .. }
            | Operation::SendAll { .. }
            | Operation::Accept => true,
            Operation::Connect { .. }
            | Operation::ReceiveFrom { .. }
            | Operation::ReceiveFromInto { .. }
            | Operation::SendTo { .. }
            // It makes way for others while there is room.
            | Operation::SendFile(_) => false,
        }
    }

    /// Whether it is called for every packet, and touches nothing but the socket and bytes.
    pub fn is_hot(&self) -> bool {
        matches!(self, Operation::Receive { .. } | Operation::ReceiveInto { .. } | Operation::SendAll { .. })
    }

    /// Whether it reads a stream: useless where that is known to be drained.
    pub fn reads_stream(&self) -> bool {
        matches!(self, Operation::Receive { .. } | Operation::ReceiveInto { .. })
    }

    /// Makes the system call, once or as often as it takes to send what the kernel has room for.
    pub fn attempt<'py>(
        &mut self,
        event_loop: &Bound<'py, EventLoop>,
        sock: &Bound<'py, PyAny>,
        fd: RawFd,
    ) -> PyResult<Attempt<'py>> {
        let py = event_loop.py();
        if let Operation::SendFile(transfer) = self {
            return transfer.attempt(event_loop, sock);
        }
        let result = match self {
            Operation::Receive { limit } => return stream::receive(py, fd, *limit),
            // SAFETY: the view keeps the memory valid.
            Operation::ReceiveInto { buffer } => unsafe {
                let result = sys::socket::recv_raw(fd, buffer.as_ptr(), buffer.len());
                if let Ok(n @ 1..) = result
                    && n < buffer.len()
                {
                    return Ok(Attempt::Short(n.into_pyobject(py)?.into_any()));
                }
                result
            },
            Operation::SendAll { data, sent } => loop {
                let rest = &data.bytes()[*sent..];
                if rest.is_empty() {
                    return Ok(Attempt::Ready(py.None().into_bound(py)));
                }
                match sys::socket::send(fd, rest) {
                    Ok(n) => *sent += n,
                    Err(error) => break Err(error),
                }
            },
            Operation::Accept => return stream::accept(py, fd),
            Operation::Connect { address, started } => return stream::connect(sock, fd, address, started),
            Operation::ReceiveFrom { limit, family } => {
                return datagram::receive(sock, family.of(fd)?, fd, *limit);
            }
            Operation::ReceiveFromInto { object, buffer, limit, family } => {
                return datagram::receive_into(sock, family.of(fd)?, fd, object, buffer, *limit);
            }
            Operation::SendTo { object, data, to } => return datagram::send(sock, fd, object, data, to),
            Operation::SendFile(_) => unreachable!("handled above"),
        };
        Attempt::of(result, |n| Ok(n.into_pyobject(py)?.into_any()))
    }

    /// Shows each Python object in it to the garbage collector.
    pub fn each(&self, see: &mut dyn FnMut(*mut ffi::PyObject)) {
        let mut exporter = |buffer: &BufferView| {
            if let Some(exporter) = buffer.exporter() {
                see(exporter.as_ptr());
            }
        };
        match self {
            Operation::ReceiveInto { buffer } | Operation::SendAll { data: Data::View(buffer), .. } => {
                exporter(buffer);
            }
            Operation::ReceiveFromInto { object, buffer, .. } => {
                exporter(buffer);
                see(object.as_ptr());
            }
            Operation::SendTo { object, data, to } => {
                exporter(data);
                see(object.as_ptr());
                see(to.object().as_ptr());
            }
            Operation::Connect { address, .. } => see(address.as_ptr()),
            Operation::SendAll { data: Data::Bytes(object), .. } => see(object.as_ptr()),
            Operation::Receive { .. }
            | Operation::Accept
            | Operation::ReceiveFrom { .. }
            | Operation::SendFile(_) => {}
        }
    }
}

/// The number of a socket object, which may be -1.
#[inline]
pub fn descriptor(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    if plain::is_plain(sock) {
        return plain::descriptor(sock);
    }
    sock.call_method0(names().fileno.bind(sock.py()))?.extract()
}

/// As [`descriptor`]; OSError for a socket that is closed.
#[inline]
pub fn open_descriptor(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    match descriptor(sock)? {
        fd if fd < 0 => Err(os_error(io::Error::from_raw_os_error(libc::EBADF))),
        fd => Ok(fd),
    }
}
