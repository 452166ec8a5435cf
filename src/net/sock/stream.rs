//! Connected and listening sockets.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::operation::Attempt;
use crate::net::address;
use crate::py::errors::{OrOsError, os_error};
use crate::py::{Owned, bytes, imports};
use crate::sys;

pub fn receive(py: Python<'_>, fd: RawFd, limit: usize) -> PyResult<Attempt<'_>> {
    // SAFETY: memory of that length.
    let received = receive_bytes(py, limit, |start, len| unsafe {
        sys::socket::recv_raw(fd, start, len).map(|n| (n, n))
    })?;
    match received {
        Ok((bytes, n)) if 0 < n && n < limit => Ok(Attempt::Short(bytes.into_any())),
        other => Attempt::of(other, |(bytes, _)| Ok(bytes.into_any())),
    }
}

/// The most that is received into the thread's own memory first.
const SCRATCH: usize = 256 * 1024;

thread_local! {
    static MEMORY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `call` with memory for `limit` bytes; what it says it received there becomes `bytes`, beside what else it returned.
pub fn receive_bytes<T>(
    py: Python<'_>,
    limit: usize,
    call: impl FnOnce(*mut u8, usize) -> io::Result<(usize, T)>,
) -> PyResult<io::Result<(Bound<'_, PyBytes>, T)>> {
    // Small reads go onto the stack, larger ones into memory that the thread keeps, and are copied into an exact object: the size
    // asked for is usually far more than what comes, and an object of that size is expensive to make and to cut. The largest are
    // read in place.
    const SMALL: usize = 16 * 1024;
    if limit > SCRATCH {
        let received = bytes::received(py, limit, call)?;
        // SAFETY: an exact `bytes` object.
        return Ok(
            received.map(|(object, other)| (unsafe { object.into_bound(py).cast_into_unchecked() }, other))
        );
    }
    let copied = |start: *mut u8| {
        call(start, limit).map(|(n, other)| {
            // SAFETY: `limit` bytes fit; only those that the kernel wrote are read.
            (PyBytes::new(py, unsafe { std::slice::from_raw_parts(start, n) }), other)
        })
    };
    if limit <= SMALL {
        let mut buffer = std::mem::MaybeUninit::<[u8; SMALL]>::uninit();
        return Ok(copied(buffer.as_mut_ptr().cast()));
    }
    // Making an exact bytes object runs no Python code, so that the memory is never asked for twice.
    MEMORY.with_borrow_mut(|memory| {
        if memory.len() < limit {
            memory.resize(SCRATCH, 0);
        }
        Ok(copied(memory.as_mut_ptr()))
    })
}

pub fn accept(py: Python<'_>, fd: RawFd) -> PyResult<Attempt<'_>> {
    Attempt::of(sys::socket::accept(fd, &mut false), |(connection, peer)| {
        let object = python_socket(py, connection.as_raw_fd())?;
        let _ = connection.into_raw_fd(); // The Python object owns the descriptor now.
        // The module's default timeout may have been applied to it; ours never block.
        object.call_method1("setblocking", (false,))?;
        let peer = match address::to_python(py, &peer)? {
            Some(peer) => peer,
            None => object.call_method0("getpeername")?,
        };
        Ok((object, peer).into_pyobject(py)?.into_any())
    })
}

/// A `socket.socket` that takes over a connected, non-blocking descriptor; on failure it stays the caller's.
pub fn python_socket(py: Python<'_>, fd: RawFd) -> PyResult<Bound<'_, PyAny>> {
    let (family, kind, protocol) = sys::socket::kind(fd).or_os_error()?;
    let options = PyDict::new(py);
    options.set_item("fileno", fd)?;
    imports::socket_type(py)?.call((family, kind, protocol), Some(&options))
}

pub fn connect<'py>(
    sock: &Bound<'py, PyAny>,
    fd: RawFd,
    address: &Owned,
    started: &mut bool,
) -> PyResult<Attempt<'py>> {
    let py = sock.py();
    let address = address.bind(py);
    let failed = |code: i32| -> PyResult<PyErr> {
        let text = format!("Connect call failed {}", address.str()?);
        Ok(PyOSError::new_err((code, text)))
    };
    if *started {
        return match sys::socket::take_error(fd).or_os_error()? {
            None => Ok(Attempt::Ready(py.None().into_bound(py))),
            Some(error) => Err(failed(error.raw_os_error().unwrap_or(libc::EIO))?),
        };
    }
    // Through the socket object: it knows every address family. EAGAIN (a Unix socket whose peer's backlog is full) is an
    // error, as nothing would ever report that the connection could be made after all.
    match sock.call_method1("connect_ex", (address,))?.extract()? {
        0 => Ok(Attempt::Ready(py.None().into_bound(py))),
        libc::EINPROGRESS | libc::EINTR => {
            *started = true;
            Ok(Attempt::MustWait)
        }
        code => Err(os_error(io::Error::from_raw_os_error(code))),
    }
}
