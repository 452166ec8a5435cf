//! What a call is to do, and one attempt at it.

use std::io;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::datagram::{Destination, Family};
use super::file::FileTransfer;
use super::{datagram, stream};
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
    SendAll { data: BufferView, sent: usize },
    Accept,
    Connect { address: Owned, started: bool },
    ReceiveFrom { limit: usize, family: Family },
    ReceiveFromInto { object: Owned, buffer: BufferView, limit: usize, family: Family },
    SendTo { object: Owned, data: BufferView, to: Destination },
    SendFile(FileTransfer),
}

/// What came of an attempt.
pub enum Attempt<'py> {
    Ready(Bound<'py, PyAny>),
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

    /// Makes the system call, once or as often as it takes to send what the kernel has room for.
    pub fn attempt<'py>(
        &mut self,
        event_loop: &Bound<'py, EventLoop>,
        sock: &Bound<'py, PyAny>,
    ) -> PyResult<Attempt<'py>> {
        let py = event_loop.py();
        if let Operation::SendFile(transfer) = self {
            return transfer.attempt(event_loop, sock);
        }
        let fd = descriptor(sock)?;
        if fd < 0 {
            return Err(os_error(io::Error::from_raw_os_error(libc::EBADF)));
        }
        let result = match self {
            Operation::Receive { limit } => return stream::receive(py, fd, *limit),
            // SAFETY: the view keeps the memory valid.
            Operation::ReceiveInto { buffer } => unsafe {
                sys::socket::recv_raw(fd, buffer.as_ptr(), buffer.len())
            },
            Operation::SendAll { data, sent } => loop {
                if *sent == data.len() {
                    return Ok(Attempt::Ready(py.None().into_bound(py)));
                }
                match sys::socket::send(fd, &data.bytes()[*sent..]) {
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

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let exporter =
            |buffer: &BufferView| buffer.exporter().map_or(Ok(()), |exporter| visit.call(exporter));
        match self {
            Operation::Connect { address, .. } => visit.call(address.as_py()),
            Operation::ReceiveInto { buffer } | Operation::SendAll { data: buffer, .. } => exporter(buffer),
            Operation::ReceiveFromInto { object, buffer, .. } => {
                visit.call(object.as_py())?;
                exporter(buffer)
            }
            Operation::SendTo { object, data, to } => {
                visit.call(object.as_py())?;
                visit.call(to.object().as_py())?;
                exporter(data)
            }
            Operation::Receive { .. }
            | Operation::Accept
            | Operation::ReceiveFrom { .. }
            | Operation::SendFile(_) => Ok(()),
        }
    }
}

pub fn descriptor(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    sock.call_method0(names().fileno.bind(sock.py()))?.extract()
}
