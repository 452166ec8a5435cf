//! Datagrams, and whatever else comes with an address.
//!
//! Addresses of IP and Unix sockets are made and read here; every other family is the socket object's own matter, and so is
//! an address that is not plainly numeric: its methods know them all.

use std::os::fd::RawFd;

use pyo3::exceptions::PyBlockingIOError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use socket2::SockAddr;

use super::operation::Attempt;
use super::stream::receive_bytes;
use crate::net::address;
use crate::py::Owned;
use crate::py::buffer::BufferView;
use crate::py::errors::OrOsError;
use crate::sys;

/// The widest flow label that the socket module takes; it refuses others itself.
const MAX_FLOW_INFO: u32 = 0xf_ffff;

/// A socket's address family, asked for once.
#[derive(Default)]
pub struct Family(Option<i32>);

impl Family {
    pub fn of(&mut self, fd: RawFd) -> PyResult<i32> {
        match self.0 {
            Some(family) => Ok(family),
            None => Ok(*self.0.insert(sys::socket::family(fd).or_os_error()?)),
        }
    }
}

/// Whether `address::to_python` knows every address of the family.
fn is_known(family: i32) -> bool {
    matches!(family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX)
}

/// Of a method of the socket object.
fn called<'py>(py: Python<'py>, result: PyResult<Bound<'py, PyAny>>) -> PyResult<Attempt<'py>> {
    match result {
        Ok(value) => Ok(Attempt::Ready(value)),
        Err(error) if error.is_instance_of::<PyBlockingIOError>(py) => Ok(Attempt::MustWait),
        Err(error) => Err(error),
    }
}

pub fn receive<'py>(
    sock: &Bound<'py, PyAny>,
    family: i32,
    fd: RawFd,
    limit: usize,
) -> PyResult<Attempt<'py>> {
    let py = sock.py();
    if !is_known(family) {
        return called(py, sock.call_method1("recvfrom", (limit,)));
    }
    // SAFETY: memory of that length.
    let received = receive_bytes(py, limit, |start, len| unsafe { sys::socket::recv_from(fd, start, len) })?;
    Attempt::of(received, |(bytes, sender)| {
        Ok((bytes, sender_to_python(py, sender)?).into_pyobject(py)?.into_any())
    })
}

pub fn receive_into<'py>(
    sock: &Bound<'py, PyAny>,
    family: i32,
    fd: RawFd,
    object: &Owned,
    buffer: &BufferView,
    limit: usize,
) -> PyResult<Attempt<'py>> {
    let py = sock.py();
    if !is_known(family) {
        return called(py, sock.call_method1("recvfrom_into", (object.bind(py), limit)));
    }
    // SAFETY: the view keeps the memory valid, and the limit is within it.
    let received = unsafe { sys::socket::recv_from(fd, buffer.as_ptr(), limit) };
    Attempt::of(received, |(n, sender)| Ok((n, sender_to_python(py, sender)?).into_pyobject(py)?.into_any()))
}

/// None for no sender, as the socket module has it.
fn sender_to_python<'py>(py: Python<'py>, sender: Option<SockAddr>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match sender {
        Some(sender) => address::to_python(py, &sender),
        None => Ok(None),
    }
}

/// Where a datagram goes.
pub enum Destination {
    /// Not looked at yet.
    Given(Owned),
    /// As the kernel takes it.
    Native(Owned, SockAddr),
    /// For the socket object to make sense of.
    Foreign(Owned),
}

impl Destination {
    pub fn object(&self) -> &Owned {
        match self {
            Destination::Given(object) | Destination::Native(object, _) | Destination::Foreign(object) => {
                object
            }
        }
    }

    fn look(&mut self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        if let Destination::Given(object) = self {
            let family = sys::socket::family(fd).or_os_error()?;
            let object = object.clone_ref(py);
            *self = match numeric(&object.bind(py), family) {
                Some(address) => Destination::Native(object, address),
                None => Destination::Foreign(object),
            };
        }
        Ok(())
    }
}

/// A plainly numeric IP address of the socket's family. A scope in the host is left to the socket module, too.
fn numeric(address: &Bound<'_, PyAny>, family: i32) -> Option<SockAddr> {
    let address = address.cast_exact::<PyTuple>().ok()?;
    let fits = match family {
        libc::AF_INET => address.len() == 2,
        libc::AF_INET6 => matches!(address.len(), 2..=4),
        _ => false,
    };
    if !fits || address.get_item(0).ok()?.extract::<String>().ok()?.contains('%') {
        return None;
    }
    let native = address::from_python(address).ok()?;
    let flow_fits = native.as_socket_ipv6().is_none_or(|v6| u32::from_be(v6.flowinfo()) <= MAX_FLOW_INFO);
    (i32::from(native.family()) == family && flow_fits).then_some(native)
}

pub fn send<'py>(
    sock: &Bound<'py, PyAny>,
    fd: RawFd,
    object: &Owned,
    data: &BufferView,
    to: &mut Destination,
) -> PyResult<Attempt<'py>> {
    let py = sock.py();
    to.look(py, fd)?;
    match to {
        Destination::Native(_, address) => {
            Attempt::of(sys::socket::send_to(fd, data.bytes(), address), |n| {
                Ok(n.into_pyobject(py)?.into_any())
            })
        }
        other => called(py, sock.call_method1("sendto", (object.bind(py), other.object().bind(py)))),
    }
}
