//! The `sock_*` methods, as awaitables that try the system call when they are first awaited and make a future only if they
//! must wait; the future is only a wake-up, the awaiting task makes the system call.
//!
//! | room        | what lives there                                                     |
//! |-------------|----------------------------------------------------------------------|
//! | `call`      | the awaitable, and the methods that are called for every packet       |
//! | `operation` | what a call is to do, and one attempt at it                          |
//! | `stream`    | `sock_recv`, `sock_recv_into`, `sock_sendall`, `sock_accept`, `sock_connect` |
//! | `datagram`  | `sock_recvfrom`, `sock_recvfrom_into`, `sock_sendto`                 |
//! | `plain`     | exact `socket.socket` objects, asked without a look-up                |
//! | `file`      | `sock_sendfile` and `sendfile`, as far as the kernel does it         |
//!
//! A call behaves as the coroutine that asyncio's method would return: nothing happens before it is awaited, it can be wrapped
//! in a task, and cancelling that ends the wait.

mod call;
mod datagram;
mod file;
mod operation;
mod plain;
mod stream;

use std::os::fd::RawFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::event_loop::EventLoop;
use crate::py::buffer::BufferView;
use datagram::Destination;
use file::FileTransfer;
use operation::Operation;
pub use stream::python_socket;

#[pymethods]
impl EventLoop {
    /// Connect to an address that is resolved already.
    fn _sock_connect<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        address: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        call::make(slf, sock, Operation::Connect { address: address.into(), started: false })
    }

    /// Receive a datagram of up to `bufsize` bytes: (bytes, address).
    fn sock_recvfrom<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        bufsize: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let limit = size(bufsize, "recvfrom")?;
        call::make(slf, sock, Operation::ReceiveFrom { limit, family: Default::default() })
    }

    /// Receive a datagram into a writable buffer, or its first `nbytes` bytes: (number of bytes, address).
    #[pyo3(signature = (sock, buf, nbytes = 0))]
    fn sock_recvfrom_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: &Bound<'py, PyAny>,
        nbytes: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let buffer = BufferView::writable(buf)?;
        let limit = match size(nbytes, "recvfrom_into")? {
            0 => buffer.len(),
            limit if limit <= buffer.len() => limit,
            _ => return Err(PyValueError::new_err("nbytes is greater than the length of the buffer")),
        };
        let family = Default::default();
        call::make(slf, sock, Operation::ReceiveFromInto { object: buf.into(), buffer, limit, family })
    }

    /// Send a datagram to an address; the number of bytes sent.
    fn sock_sendto<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: &Bound<'py, PyAny>,
        address: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let to = Box::new(Destination::Given(address.into()));
        let view = BufferView::readable(data)?;
        call::make(slf, sock, Operation::SendTo { object: data.into(), data: view, to })
    }

    /// Send a file by its descriptor, with the kernel's help, to a stream socket or a StreamTransport: the number of bytes sent.
    /// `size` is the file's, `count` None for all of it. The file's position is moved to behind what was sent, however it ends.
    fn _send_file<'py>(
        slf: &Bound<'py, Self>,
        target: &Bound<'py, PyAny>,
        file: RawFd,
        offset: i64,
        count: Option<u64>,
        size: i64,
    ) -> PyResult<Bound<'py, PyAny>> {
        call::make(
            slf,
            target,
            Operation::SendFile(Box::new(FileTransfer::new(target, file, offset, count, size))),
        )
    }
}

fn size(number: isize, call: &str) -> PyResult<usize> {
    usize::try_from(number).map_err(|_| PyValueError::new_err(format!("negative buffersize in {call}")))
}

/// Makes the type of the calls.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    plain::init(module.py())?;
    call::add_methods(module.py().get_type::<EventLoop>().as_any())?;
    call::init(module)
}
