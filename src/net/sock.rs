//! `sock_recv`, `sock_recv_into`, `sock_sendall`, `sock_accept` and `sock_connect`, as awaitables that try the system
//! call when they are first awaited and make a future only if they must wait; the future is no more than a wake-up, the
//! system call is made by whoever awaits.
//!
//! A [`SockCall`] behaves as the coroutine that asyncio's method would return: nothing happens before it is awaited, it
//! can be wrapped in a task, and cancelling that ends the wait. Its state is touched on the loop's thread
//! only, except in `close`, which a never-awaited object gets from the collector.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use pyo3::{PyTraverseError, PyVisit, ffi};

use super::address;
use super::watch::{self, Direction, Waiter};
use crate::driver::Token;
use crate::event_loop::{EventLoop, task};
use crate::py::buffer::BufferView;
use crate::py::errors::{OrOsError, os_error};
use crate::py::names::names;
use crate::py::{Owned, imports};
use crate::sys;

enum Operation {
    Receive { limit: usize },
    ReceiveInto { buffer: BufferView },
    SendAll { data: BufferView, sent: usize },
    Accept,
    Connect { address: Owned, started: bool },
}

impl Operation {
    fn direction(&self) -> Direction {
        match self {
            Operation::Receive { .. } | Operation::ReceiveInto { .. } | Operation::Accept => Direction::Read,
            Operation::SendAll { .. } | Operation::Connect { .. } => Direction::Write,
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Operation::Connect { address, .. } => visit.call(address.as_py()),
            Operation::ReceiveInto { buffer } | Operation::SendAll { data: buffer, .. } => {
                match buffer.exporter() {
                    Some(exporter) => visit.call(exporter),
                    None => Ok(()),
                }
            }
            Operation::Receive { .. } | Operation::Accept => Ok(()),
        }
    }
}

enum State {
    /// Not awaited yet.
    New(Operation),
    /// Waits for readiness; `steps` is the iterator of the future that tells of it.
    Waiting { operation: Operation, token: Token, future: Owned, steps: Owned },
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

/// One attempt at the operation.
enum Attempt<'py> {
    Ready(Bound<'py, PyAny>),
    MustWait,
}

fn attempt<'py>(
    event_loop: &Bound<'py, EventLoop>,
    sock: &Bound<'py, PyAny>,
    operation: &mut Operation,
) -> PyResult<Attempt<'py>> {
    let py = event_loop.py();
    let fd = descriptor(sock)?;
    if fd < 0 {
        return Err(os_error(io::Error::from_raw_os_error(libc::EBADF)));
    }
    let result = match operation {
        Operation::Receive { limit } => return receive(py, fd, *limit),
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
        Operation::Accept => return accept(py, fd),
        Operation::Connect { address, started } => return connect(sock, fd, address, started),
    };
    match result {
        Ok(n) => Ok(Attempt::Ready(n.into_pyobject(py)?.into_any())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::MustWait),
        Err(error) => Err(os_error(error)),
    }
}

fn descriptor(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    sock.call_method0(names().fileno.bind(sock.py()))?.extract()
}

fn receive(py: Python<'_>, fd: RawFd, limit: usize) -> PyResult<Attempt<'_>> {
    // Small reads land on the stack and are copied into an exact object; large ones are read in place and cut.
    const SMALL: usize = 16 * 1024;
    let result = if limit <= SMALL {
        let mut buffer = std::mem::MaybeUninit::<[u8; SMALL]>::uninit();
        // SAFETY: `limit` bytes fit; only those that the kernel wrote are read.
        unsafe {
            let start: *mut u8 = buffer.as_mut_ptr().cast();
            sys::socket::recv_raw(fd, start, limit)
                .map(|n| PyBytes::new(py, std::slice::from_raw_parts(start, n)))
        }
    } else {
        receive_large(py, fd, limit)?
    };
    match result {
        Ok(bytes) => Ok(Attempt::Ready(bytes.into_any())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::MustWait),
        Err(error) => Err(os_error(error)),
    }
}

fn receive_large(py: Python<'_>, fd: RawFd, limit: usize) -> PyResult<io::Result<Bound<'_, PyBytes>>> {
    // SAFETY: the object is ours alone until it has its final size; resizing frees it on failure and sets null.
    unsafe {
        let mut object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), limit as isize);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        match sys::socket::recv_raw(fd, ffi::PyBytes_AsString(object).cast(), limit) {
            Ok(n) => {
                if ffi::_PyBytes_Resize(&mut object, n as isize) != 0 {
                    return Err(PyErr::fetch(py));
                }
                Ok(Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked()))
            }
            Err(error) => {
                ffi::Py_DECREF(object);
                Ok(Err(error))
            }
        }
    }
}

fn accept(py: Python<'_>, fd: RawFd) -> PyResult<Attempt<'_>> {
    match sys::socket::accept(fd) {
        Ok((connection, peer)) => {
            let object = python_socket(py, connection.as_raw_fd())?;
            let _ = connection.into_raw_fd(); // The Python object owns the descriptor now.
            let connection = object;
            // The module's default timeout may have been applied to it; ours never block.
            connection.call_method1("setblocking", (false,))?;
            let peer = match address::to_python(py, &peer)? {
                Some(peer) => peer,
                None => connection.call_method0("getpeername")?,
            };
            Ok(Attempt::Ready((connection, peer).into_pyobject(py)?.into_any()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::MustWait),
        Err(error) => Err(os_error(error)),
    }
}

/// A `socket.socket` that takes over a connected, non-blocking descriptor; on failure it stays the caller's.
pub fn python_socket(py: Python<'_>, fd: RawFd) -> PyResult<Bound<'_, PyAny>> {
    let (family, kind, protocol) = sys::socket::kind(fd).or_os_error()?;
    let options = PyDict::new(py);
    options.set_item("fileno", fd)?;
    imports::socket_type(py)?.call((family, kind, protocol), Some(&options))
}

fn connect<'py>(
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
                check(event_loop.get(), sock)?;
                event_loop.get().check_open()?;
                match attempt(event_loop, sock, &mut operation)? {
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
                match steps.bind(py).call_method0("__next__") {
                    Ok(pending) => {
                        this.state.put(State::Waiting { operation, token, future, steps });
                        Ok(Some(pending))
                    }
                    // The future is done: there is something to do.
                    Err(done) if done.is_instance_of::<PyStopIteration>(py) => {
                        match attempt(event_loop, this.sock.bind(py), &mut operation)? {
                            Attempt::Ready(value) => Err(stop(value)),
                            Attempt::MustWait => Self::wait(slf, operation).map(Some),
                        }
                    }
                    Err(cancelled) => {
                        watch::forget(event_loop, token, operation.direction(), slf.as_ptr() as *const ())?;
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
        let fd = watch::fileno(sock)?;
        watch::ensure_no_transport(event_loop, fd, sock)?;
        let future = task::create_future(event_loop)?;
        let steps: Owned = future.bind(py).call_method0("__await__")?.into();
        let (token, former) = watch::wait(event_loop, fd, operation.direction(), Waiter::Once(slf.into()))?;
        if let Waiter::Callback(handle) = former {
            crate::event_loop::handle::cancel(py, &handle)?;
        }
        let first = steps.bind(py).call_method0("__next__");
        this.state.put(State::Waiting { operation, token, future, steps });
        first
    }

    /// Ends the call: it waits no more and lets go of its buffers.
    fn end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if let State::Waiting { operation, token, .. } = this.state.take() {
            let event_loop = this.event_loop.bind(py);
            if !event_loop.get().shared.is_closed() {
                watch::forget(event_loop, token, operation.direction(), slf.as_ptr() as *const ())?;
            }
        }
        Ok(())
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
        let limit = usize::try_from(n).map_err(|_| PyValueError::new_err("negative buffersize in recv"))?;
        SockCall::make(slf, sock, Operation::Receive { limit })
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
}

/// Makes the awaitable a `collections.abc.Coroutine`, which is what asyncio asks for.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = module.py().get_type::<SockCall>();
    imports::coroutine_abc(module.py())?.call_method1("register", (&class,))?;
    // SAFETY: not yet known to any other thread.
    unsafe { crate::py::raw::share_cheaply(class.as_ptr()) };
    module.add("SockCall", class)
}
