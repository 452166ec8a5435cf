//! The `sock_*` methods, as awaitables that try the system call when they are first awaited and make a future only if they
//! must wait; the future is no more than a wake-up, the system call is made by whoever awaits.
//!
//! | room        | what lives there                                                     |
//! |-------------|----------------------------------------------------------------------|
//! | `operation` | what a call is to do, and one attempt at it                          |
//! | `stream`    | `sock_recv`, `sock_recv_into`, `sock_sendall`, `sock_accept`, `sock_connect` |
//! | `datagram`  | `sock_recvfrom`, `sock_recvfrom_into`, `sock_sendto`                 |
//! | `file`      | `sock_sendfile` and `sendfile`, as far as the kernel does it         |
//!
//! A [`SockCall`] behaves as the coroutine that asyncio's method would return: nothing happens before it is awaited, it
//! can be wrapped in a task, and cancelling that ends the wait. Its state is touched on the loop's thread
//! only, except in `close`, which a never-awaited object gets from the collector.

mod datagram;
mod file;
mod operation;
mod stream;

use std::cell::RefCell;
use std::os::fd::RawFd;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::watch::{self, Waiter};
use crate::driver::Token;
use crate::event_loop::{EventLoop, task};
use crate::py::buffer::BufferView;
use crate::py::names::names;
use crate::py::{Owned, call, imports};
use datagram::Destination;
use file::FileTransfer;
use operation::{Attempt, Operation};
pub use stream::python_socket;

enum State {
    /// Not awaited yet.
    New(Operation),
    /// Waits for readiness; `steps` is the iterator of the future that tells of it. The token is the watch's that sees to the
    /// future; a transport sees to its own.
    Waiting { operation: Operation, token: Option<Token>, future: Owned, steps: Owned },
    /// Returned, raised or closed.
    Done,
}

/// The awaitable behind a `sock_*` call.
#[pyclass(frozen, module = "tokioloop._tokioloop")]
pub struct SockCall {
    event_loop: Py<EventLoop>,
    sock: Py<PyAny>,
    state: Cell,
}

/// The call's state, checked at run time: two threads awaiting one object get an error, not a data race.
struct Cell(parking_lot::Mutex<RefCell<State>>);

// SAFETY: the buffers and references inside are used by attached threads only, under the mutex.
unsafe impl Sync for Cell {}
// SAFETY: as above.
unsafe impl Send for Cell {}

impl Cell {
    fn take(&self) -> State {
        self.0.lock().replace(State::Done)
    }

    fn put(&self, state: State) {
        let former = self.0.lock().replace(state);
        debug_assert!(matches!(former, State::Done));
    }
}

/// What asyncio checks before any of these operations.
fn check(event_loop: &EventLoop, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    if !sock.get_type().is(imports::socket_type(py)?) && is_ssl_socket(sock)? {
        return Err(PyTypeError::new_err("Socket cannot be of type SSLSocket"));
    }
    if event_loop.shared.is_debug() && !sock.call_method0(names().gettimeout.bind(py))?.eq(0)? {
        return Err(PyValueError::new_err("the socket must be non-blocking"));
    }
    Ok(())
}

fn is_ssl_socket(sock: &Bound<'_, PyAny>) -> PyResult<bool> {
    let modules = sock.py().import("sys")?.getattr("modules")?;
    let Ok(ssl) = modules.get_item("ssl") else { return Ok(false) };
    sock.is_instance(&ssl.getattr("SSLSocket")?)
}

#[pymethods]
impl SockCall {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::step(slf)
    }

    fn send<'py>(slf: &Bound<'py, Self>, _value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match Self::step(slf)? {
            Some(value) => Ok(value),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    #[pyo3(signature = (typ, val=None, tb=None))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        typ: &Bound<'py, PyAny>,
        val: Option<&Bound<'py, PyAny>>,
        tb: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = tb; // An exception object brings its own.
        Self::end(slf)?;
        let error = match val {
            Some(value) if typ.is_instance_of::<pyo3::types::PyType>() => {
                if value.is_instance_of::<pyo3::exceptions::PyBaseException>() {
                    value.clone()
                } else {
                    typ.call1((value,))?
                }
            }
            _ if typ.is_instance_of::<pyo3::types::PyType>() => typ.call0()?,
            _ => typ.clone(),
        };
        Err(PyErr::from_value(error))
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::end(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.sock)?;
        // SAFETY: the collector has stopped every other thread, none of them inside the lock, which is never held across a
        // call into Python.
        let state = unsafe { &*(*self.state.0.data_ptr()).as_ptr() };
        match state {
            State::New(operation) => operation.visit(&visit),
            State::Waiting { operation, future, steps, .. } => {
                visit.call(future.as_py())?;
                visit.call(steps.as_py())?;
                operation.visit(&visit)
            }
            State::Done => Ok(()),
        }
    }

    fn __clear__(&self) {
        drop(self.state.take());
    }
}

impl SockCall {
    fn make<'py>(
        event_loop: &Bound<'py, EventLoop>,
        sock: &Bound<'py, PyAny>,
        operation: Operation,
    ) -> PyResult<Bound<'py, Self>> {
        Bound::new(
            event_loop.py(),
            Self {
                event_loop: event_loop.clone().unbind(),
                sock: sock.clone().unbind(),
                state: Cell(parking_lot::Mutex::new(RefCell::new(State::New(operation)))),
            },
        )
    }

    /// One step of the coroutine: the future to wait for, or the result as StopIteration.
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop.bind(py);
        event_loop.get().check_thread(py)?;
        match this.state.take() {
            State::New(mut operation) => {
                let sock = this.sock.bind(py);
                if !operation.is_for_transport() {
                    check(event_loop.get(), sock)?;
                }
                event_loop.get().check_open()?;
                match operation.attempt(event_loop, sock)? {
                    Attempt::Ready(value) => Err(stop(value)),
                    Attempt::MustWait => Self::wait(slf, operation).map(Some),
                }
            }
            State::Waiting { operation, token, future, steps } if !watch::is_done(py, &future)? => {
                // Only the end of the wait steps it again; this is somebody else.
                this.state.put(State::Waiting { operation, token, future, steps });
                Err(PyRuntimeError::new_err("coroutine is being awaited already"))
            }
            State::Waiting { mut operation, token, future, steps } => {
                match call::advance(py, &steps) {
                    Ok(Some(pending)) => {
                        this.state.put(State::Waiting { operation, token, future, steps });
                        Ok(Some(pending.into_bound(py)))
                    }
                    // The future is done: there is something to do.
                    Ok(None) => match operation.attempt(event_loop, this.sock.bind(py))? {
                        Attempt::Ready(value) => Err(stop(value)),
                        Attempt::MustWait => Self::wait(slf, operation).map(Some),
                    },
                    Err(cancelled) => {
                        Self::forget(slf, token, &operation)?;
                        Err(cancelled)
                    }
                }
            }
            State::Done => Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }

    fn wait<'py>(slf: &Bound<'py, Self>, operation: Operation) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop.bind(py);
        let sock = this.sock.bind(py);
        let (future, token) = match &operation {
            Operation::SendFile(transfer) if transfer.is_for_transport() => (transfer.turn(sock)?, None),
            _ => {
                let fd = watch::fileno(sock)?;
                watch::ensure_no_transport(event_loop, fd, sock)?;
                let future = task::create_future(event_loop)?;
                let waiter = Waiter::Once(slf.into());
                let (token, former) = watch::wait(event_loop, fd, operation.direction(), waiter)?;
                if let Waiter::Callback(handle, _) = former {
                    crate::event_loop::handle::cancel(py, &handle)?;
                }
                (future, Some(token))
            }
        };
        let steps = call::awaiting(py, &future)?;
        let first = call::advance(py, &steps);
        this.state.put(State::Waiting { operation, token, future, steps });
        first?.map(|first| first.into_bound(py)).ok_or_else(|| stop(py.None().into_bound(py)))
    }

    /// Ends the call: it waits no more and lets go of its buffers.
    fn end(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().state.take() {
            State::Waiting { operation, token, .. } => Self::forget(slf, token, &operation),
            _ => Ok(()),
        }
    }

    fn forget(slf: &Bound<'_, Self>, token: Option<Token>, operation: &Operation) -> PyResult<()> {
        let event_loop = slf.get().event_loop.bind(slf.py());
        match token {
            Some(token) if !event_loop.get().shared.is_closed() => {
                watch::forget(event_loop, token, operation.direction(), slf.as_ptr() as *const ())
            }
            _ => Ok(()),
        }
    }
}

fn stop(value: Bound<'_, PyAny>) -> PyErr {
    // In a tuple of its own: a value that is a tuple would be taken for the exception's arguments.
    PyStopIteration::new_err((value.unbind(),))
}

/// The descriptor is ready: wakes whoever awaits the call. The system call is made when that one runs again, so that a
/// cancellation in between loses nothing.
pub fn resume(py: Python<'_>, operation: &Owned) -> PyResult<()> {
    let call = operation.bind(py).cast::<SockCall>()?.to_owned();
    let future = match &*call.get().state.0.lock().borrow() {
        State::Waiting { future, .. } => future.clone_ref(py),
        _ => return Ok(()),
    };
    super::dns::settle(py, &future, Ok(py.None().into_bound(py)))
}

#[pymethods]
impl EventLoop {
    /// Receive up to `n` bytes; b"" is the end of the stream.
    fn sock_recv<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        n: isize,
    ) -> PyResult<Bound<'py, SockCall>> {
        SockCall::make(slf, sock, Operation::Receive { limit: size(n, "recv")? })
    }

    /// Receive into a writable buffer; the number of bytes.
    fn sock_recv_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, SockCall>> {
        SockCall::make(slf, sock, Operation::ReceiveInto { buffer: BufferView::writable(buf)? })
    }

    /// Send all of the data.
    fn sock_sendall<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, SockCall>> {
        SockCall::make(slf, sock, Operation::SendAll { data: BufferView::readable(data)?, sent: 0 })
    }

    /// Accept a connection: (non-blocking socket, address).
    fn sock_accept<'py>(slf: &Bound<'py, Self>, sock: &Bound<'py, PyAny>) -> PyResult<Bound<'py, SockCall>> {
        SockCall::make(slf, sock, Operation::Accept)
    }

    /// Connect to an address that is resolved already.
    fn _sock_connect<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        address: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, SockCall>> {
        SockCall::make(slf, sock, Operation::Connect { address: address.into(), started: false })
    }

    /// Receive a datagram of up to `bufsize` bytes: (bytes, address).
    fn sock_recvfrom<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        bufsize: isize,
    ) -> PyResult<Bound<'py, SockCall>> {
        let limit = size(bufsize, "recvfrom")?;
        SockCall::make(slf, sock, Operation::ReceiveFrom { limit, family: Default::default() })
    }

    /// Receive a datagram into a writable buffer, or its first `nbytes` bytes: (number of bytes, address).
    #[pyo3(signature = (sock, buf, nbytes = 0))]
    fn sock_recvfrom_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: &Bound<'py, PyAny>,
        nbytes: isize,
    ) -> PyResult<Bound<'py, SockCall>> {
        let buffer = BufferView::writable(buf)?;
        let limit = match size(nbytes, "recvfrom_into")? {
            0 => buffer.len(),
            limit if limit <= buffer.len() => limit,
            _ => return Err(PyValueError::new_err("nbytes is greater than the length of the buffer")),
        };
        let family = Default::default();
        SockCall::make(slf, sock, Operation::ReceiveFromInto { object: buf.into(), buffer, limit, family })
    }

    /// Send a datagram to an address; the number of bytes sent.
    fn sock_sendto<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: &Bound<'py, PyAny>,
        address: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, SockCall>> {
        let to = Destination::Given(address.into());
        let view = BufferView::readable(data)?;
        SockCall::make(slf, sock, Operation::SendTo { object: data.into(), data: view, to })
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
    ) -> PyResult<Bound<'py, SockCall>> {
        SockCall::make(slf, target, Operation::SendFile(FileTransfer::new(target, file, offset, count, size)))
    }
}

fn size(number: isize, call: &str) -> PyResult<usize> {
    usize::try_from(number).map_err(|_| PyValueError::new_err(format!("negative buffersize in {call}")))
}

/// Makes the awaitable a `collections.abc.Coroutine`, which is what asyncio asks for.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = module.py().get_type::<SockCall>();
    imports::coroutine_abc(module.py())?.call_method1("register", (&class,))?;
    // SAFETY: not yet known to any other thread.
    unsafe { crate::py::raw::share_cheaply(class.as_ptr()) };
    module.add("SockCall", class)
}
