//! The awaitable behind a `sock_*` call, and the methods of the loop that are called for every packet.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::operation::{Attempt, Data, Operation, open_descriptor};
use super::plain::is_plain;
use super::size;
use crate::driver::Token;
use crate::event_loop::door::{self, OnLoop};
use crate::event_loop::{EventLoop, task};
use crate::net::watch;
use crate::py::awaitable::{Awaitable, Step, Turn, Type, already_awaited};
use crate::py::buffer::BufferView;
use crate::py::method::all_arguments;
use crate::py::names::names;
use crate::py::{Owned, call, raw};

struct Call {
    sock: Owned,
    event_loop: Owned,
    /// Of those called for every packet: stepping it drops none of pyo3's references but in errors that it returns.
    hot: bool,
}

#[derive(Default)]
enum State {
    /// Returned, raised or closed.
    #[default]
    Done,
    /// Not awaited yet.
    New(Operation),
    /// Waits for readiness; `steps` is the iterator of the future that is done then. The token is that of the watch that ends the
    /// future; a transport ends its own.
    Waiting { operation: Operation, token: Option<Token>, future: Owned, steps: Owned },
}

static TYPE: Type<Call> = Type::new();

/// Makes the type.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TYPE.init(module, c"tokioloop._tokioloop.SockCall", Vec::new(), Vec::new())
}

/// The awaitable of an operation.
#[inline]
pub fn make<'py>(
    event_loop: &Bound<'py, EventLoop>,
    sock: &Bound<'py, PyAny>,
    operation: Operation,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let hot = operation.is_hot() && is_plain(sock);
    let call = Call { sock: sock.into(), event_loop: event_loop.into(), hot };
    Ok(TYPE.make(py, call, State::New(operation))?.into_bound(py))
}

impl Call {
    #[inline]
    fn event_loop<'a, 'py>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, EventLoop> {
        // SAFETY: what the methods of the loop made it with.
        unsafe { self.event_loop.bind(py).cast_unchecked() }
    }

    fn forget(
        &self,
        py: Python<'_>,
        token: Option<Token>,
        operation: &Operation,
        future: &Owned,
    ) -> PyResult<()> {
        let event_loop = self.event_loop(py);
        match token {
            Some(token) if !event_loop.get().shared.is_closed() => {
                watch::forget(door::enter(&event_loop)?.on(), token, operation.direction(), future)
            }
            _ => Ok(()),
        }
    }
}

impl Awaitable for Call {
    type State = State;

    fn type_of() -> &'static Type<Self> {
        &TYPE
    }

    /// The future to wait for, or the result.
    fn step(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<Step> {
        let event_loop = turn.fixed().event_loop(py);
        let inside = door::enter(&event_loop)?;
        let on = inside.on();
        match turn.take_state() {
            State::New(operation) => {
                if !operation.is_for_transport() {
                    check(event_loop.get(), &turn.fixed().sock.bind(py))?;
                }
                event_loop.get().check_open()?;
                turn.attempt(on, operation, true)
            }
            State::Waiting { operation, token, future, steps } => {
                if !task::is_done(py, &future)? {
                    // Only the end of the wait steps it again; this is another caller.
                    turn.put(State::Waiting { operation, token, future, steps });
                    return Err(PyRuntimeError::new_err("coroutine is being awaited already"));
                }
                match call::advance(py, &steps) {
                    Ok(Some(pending)) => {
                        turn.put(State::Waiting { operation, token, future, steps });
                        Ok(Step::Yield(pending))
                    }
                    // The future is done: there is something to do.
                    Ok(None) => {
                        drop(steps);
                        task::give_back(&event_loop, future);
                        turn.attempt(on, operation, false)
                    }
                    Err(cancelled) => match turn.fixed().forget(py, token, &operation, &future) {
                        Ok(()) => Err(cancelled),
                        Err(error) => {
                            // SAFETY: attached. A step is entered hot, where an error of pyo3's must not be dropped.
                            unsafe { raw::told(|_| drop(cancelled)) };
                            Err(error)
                        }
                    },
                }
            }
            State::Done => Err(already_awaited()),
        }
    }

    fn close(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<()> {
        match turn.take_state() {
            State::Waiting { operation, token, future, .. } => {
                turn.fixed().forget(py, token, &operation, &future)
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn is_hot(&self) -> bool {
        self.hot
    }

    fn is_unfinished(state: &State) -> bool {
        matches!(state, State::Waiting { .. })
    }

    /// The watch must not keep the future, since perhaps no other code will take it out. Where the loop is another thread's, the
    /// future stays until the next event or the loop's end.
    fn abandon(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<()> {
        if turn.fixed().event_loop(py).get().shared.claim().is_ok() {
            Self::close(turn, py)?;
        }
        Ok(())
    }

    fn visit(&self, state: &State, see: &mut dyn FnMut(*mut ffi::PyObject)) {
        see(self.event_loop.as_ptr());
        see(self.sock.as_ptr());
        match state {
            State::New(operation) => operation.each(see),
            State::Waiting { operation, future, steps, .. } => {
                see(future.as_ptr());
                see(steps.as_ptr());
                operation.each(see);
            }
            State::Done => {}
        }
    }
}

impl Turn<'_, Call> {
    /// What is replaced is `Done`, which drops nothing.
    fn put(&mut self, state: State) {
        *self.state() = state;
    }

    fn attempt(&mut self, on: OnLoop<'_, '_>, mut operation: Operation, first: bool) -> PyResult<Step> {
        let py = on.py();
        let sock = self.fixed().sock.bind(py);
        let fd = if operation.is_for_transport() { -1 } else { open_descriptor(&sock)? };
        if first && operation.reads_stream() && watch::is_drained(on, &sock, fd) {
            return self.wait(on, operation, fd);
        }
        match operation.attempt(on.event_loop(), &sock, fd)? {
            Attempt::Ready(value) => {
                if operation.reads_stream() {
                    watch::note_read(on, &sock, fd, false);
                }
                Ok(Step::Return(value.into()))
            }
            Attempt::Short(value) => {
                watch::note_read(on, &sock, fd, true);
                Ok(Step::Return(value.into()))
            }
            Attempt::MustWait => self.wait(on, operation, fd),
        }
    }

    fn wait(&mut self, on: OnLoop<'_, '_>, operation: Operation, fd: RawFd) -> PyResult<Step> {
        let py = on.py();
        let sock = self.fixed().sock.bind(py);
        let (future, token) = match &operation {
            Operation::SendFile(transfer) if transfer.is_for_transport() => (transfer.turn(&sock)?, None),
            _ => {
                let future = task::renewed_future(on.event_loop())?;
                let for_edges = operation.waits_for_edges() && is_plain(&sock);
                let direction = operation.direction();
                let token = watch::wait_once(on, &sock, fd, direction, &future, for_edges)?;
                (future, Some(token))
            }
        };
        let steps = call::awaiting(py, &future)?;
        let first = call::advance(py, &steps);
        self.put(State::Waiting { operation, token, future, steps });
        Ok(match first? {
            Some(first) => Step::Yield(first),
            None => Step::Return(py.None().into_bound(py).into()),
        })
    }
}

/// What asyncio checks before any of these operations.
fn check(event_loop: &EventLoop, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    if !is_plain(sock) && is_ssl_socket(sock)? {
        return Err(PyTypeError::new_err("Socket cannot be of type SSLSocket"));
    }
    if event_loop.shared.is_debug() && !sock.call_method0(names().gettimeout.bind(sock.py()))?.eq(0)? {
        return Err(PyValueError::new_err("the socket must be non-blocking"));
    }
    Ok(())
}

fn is_ssl_socket(sock: &Bound<'_, PyAny>) -> PyResult<bool> {
    let modules = sock.py().import("sys")?.getattr("modules")?;
    // SAFETY: attached. A step that was hot when it was asked for is entered hot, whatever the socket's class is now.
    let Some(ssl) = (unsafe { raw::told(|_| modules.get_item("ssl").ok()) }) else { return Ok(false) };
    sock.is_instance(&ssl.getattr("SSLSocket")?)
}

// ---- the methods -----------------------------------------------------------------------------------------

/// A method of the loop that takes a socket and one more argument.
unsafe fn method2(
    object: *mut ffi::PyObject,
    (function, parameter): (&str, &str),
    (args, nargs, keywords): (*const *mut ffi::PyObject, isize, *mut ffi::PyObject),
    operation: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<Operation>,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords. `enter_hot`: errors alone drop pyo3's references.
    unsafe {
        raw::enter_hot(|py| {
            let names = ["sock", parameter];
            let [sock, argument] = all_arguments(py, function, names, args, nargs, keywords)?;
            let event_loop = Borrowed::<PyAny>::from_ptr(py, object).cast_unchecked::<EventLoop>();
            Ok(make(&event_loop, &sock, operation(&argument)?)?.into_ptr())
        })
    }
}

unsafe extern "C" fn sock_recv(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        method2(object, ("sock_recv", "n"), (args, nargs, keywords), |n| {
            Ok(Operation::Receive { limit: size(n.extract()?, "recv")? })
        })
    }
}

unsafe extern "C" fn sock_recv_into(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        method2(object, ("sock_recv_into", "buf"), (args, nargs, keywords), |buffer| {
            Ok(Operation::ReceiveInto { buffer: BufferView::writable(buffer)? })
        })
    }
}

unsafe extern "C" fn sock_sendall(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        method2(object, ("sock_sendall", "data"), (args, nargs, keywords), |data| {
            Ok(Operation::SendAll { data: Data::of(data)?, sent: 0 })
        })
    }
}

unsafe extern "C" fn sock_accept(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter_hot(|py| {
            let [sock] = all_arguments(py, "sock_accept", ["sock"], args, nargs, keywords)?;
            let event_loop = Borrowed::<PyAny>::from_ptr(py, object).cast_unchecked::<EventLoop>();
            Ok(make(&event_loop, &sock, Operation::Accept)?.into_ptr())
        })
    }
}

/// Adds to the loop's type, which pyo3 made, the methods that are called for every packet.
pub fn add_methods(class: &Bound<'_, PyAny>) -> PyResult<()> {
    let methods = [
        raw::fast_keywords(
            c"sock_recv",
            sock_recv,
            c"sock_recv($self, sock, n)\n--\n\nReceive up to `n` bytes; b\"\" is the end of the stream.",
        ),
        raw::fast_keywords(
            c"sock_recv_into",
            sock_recv_into,
            c"sock_recv_into($self, sock, buf)\n--\n\nReceive into a writable buffer; the number of bytes.",
        ),
        raw::fast_keywords(
            c"sock_sendall",
            sock_sendall,
            c"sock_sendall($self, sock, data)\n--\n\nSend all of the data.",
        ),
        raw::fast_keywords(
            c"sock_accept",
            sock_accept,
            c"sock_accept($self, sock)\n--\n\nAccept a connection: (non-blocking socket, address).",
        ),
    ];
    methods.into_iter().try_for_each(|method| raw::add_method(class, method))
}
