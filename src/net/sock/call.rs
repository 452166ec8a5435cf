//! The awaitable behind a `sock_*` call: to Python a coroutine, with `send`, `throw`, `close`.
//!
//! One thread at a time may step it, as a coroutine: `busy` refuses others.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::operation::{Attempt, Data, Operation, open_descriptor};
use super::plain::is_plain;
use super::size;
use crate::driver::Token;
use crate::event_loop::{EventLoop, task};
use crate::net::watch;
use crate::py::buffer::BufferView;
use crate::py::errors::{stop_with, thrown};
use crate::py::method::all_arguments;
use crate::py::names::names;
use crate::py::{Owned, call, imports, raw};

enum State {
    /// Returned, raised or closed.
    Done,
    /// Not awaited yet.
    New(Operation),
    /// Waits for readiness; `steps` is the iterator of the future that tells of it. The token is the watch's that sees to the
    /// future; a transport sees to its own.
    Waiting { operation: Operation, token: Option<Token>, future: Owned, steps: Owned },
}

#[repr(C)]
struct SockCall {
    header: ffi::PyObject,
    event_loop: Owned,
    sock: Owned,
    /// Of those called for every packet: stepping it drops none of pyo3's references but in errors that it returns.
    hot: bool,
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

/// How a step ended that raised nothing.
enum Step {
    Yield(Owned),
    Return(Owned),
}

struct Type(*mut ffi::PyTypeObject);
// SAFETY: the type is never freed.
unsafe impl Send for Type {}
// SAFETY: as above.
unsafe impl Sync for Type {}

static TYPE: OnceLock<Type> = OnceLock::new();

/// The awaitable of an operation.
#[inline]
pub fn make<'py>(
    event_loop: &Bound<'py, EventLoop>,
    sock: &Bound<'py, PyAny>,
    operation: Operation,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    // SAFETY: our own type; the object is complete before other code sees it, the collector included.
    unsafe {
        let kind = TYPE.get().expect("made by the module's init").0;
        let object = Owned::steal_or_err(py, ffi::PyType_GenericAlloc(kind, 0))?;
        let whole = object.as_ptr().cast::<SockCall>();
        ptr::write(&raw mut (*whole).event_loop, event_loop.into());
        ptr::write(&raw mut (*whole).sock, sock.into());
        ptr::write(&raw mut (*whole).hot, operation.is_hot() && is_plain(sock));
        ptr::write(&raw mut (*whole).busy, AtomicBool::new(false));
        ptr::write(&raw mut (*whole).state, UnsafeCell::new(State::New(operation)));
        Ok(object.into_bound(py))
    }
}

/// The right to step a call, as long as it lives.
struct Turn<'a>(&'a SockCall);

impl<'a> Turn<'a> {
    /// # Safety
    /// `object` is a call, alive longer than the result.
    unsafe fn take(object: *mut ffi::PyObject) -> PyResult<Self> {
        // SAFETY: promised.
        let call = unsafe { &*object.cast::<SockCall>() };
        // Acquire: pairs with the Release of whoever stepped it before.
        if call.busy.swap(true, Ordering::Acquire) {
            return Err(PyValueError::new_err("coroutine already executing"));
        }
        Ok(Self(call))
    }

    /// Takes the state out; what is left says that the call is over.
    fn take_state(&self) -> State {
        // SAFETY: whoever has the turn is the only one to use it, and no reference outlives the statement.
        mem::replace(unsafe { &mut *self.0.state.get() }, State::Done)
    }

    fn put(&self, state: State) {
        // SAFETY: as above. What is replaced is `Done`, which drops nothing.
        unsafe { *self.0.state.get() = state };
    }

    fn event_loop<'py>(&self, py: Python<'py>) -> Borrowed<'a, 'py, EventLoop> {
        // SAFETY: what the methods of the loop made it with.
        unsafe { self.0.event_loop.bind(py).cast_unchecked() }
    }

    /// One step of the coroutine: the future to wait for, or the result.
    fn step(&self, py: Python<'_>) -> PyResult<Step> {
        let event_loop = self.event_loop(py);
        event_loop.get().check_thread(py)?;
        match self.take_state() {
            State::New(operation) => {
                let sock = self.0.sock.bind(py);
                if !operation.is_for_transport() {
                    check(event_loop.get(), &sock)?;
                }
                event_loop.get().check_open()?;
                self.attempt(py, operation, true)
            }
            State::Waiting { operation, token, future, steps } => {
                if !task::is_done(py, &future)? {
                    // Only the end of the wait steps it again; this is somebody else.
                    self.put(State::Waiting { operation, token, future, steps });
                    return Err(PyRuntimeError::new_err("coroutine is being awaited already"));
                }
                match call::advance(py, &steps) {
                    Ok(Some(pending)) => {
                        self.put(State::Waiting { operation, token, future, steps });
                        Ok(Step::Yield(pending))
                    }
                    // The future is done: there is something to do.
                    Ok(None) => {
                        drop(steps);
                        task::give_back(&event_loop, future);
                        self.attempt(py, operation, false)
                    }
                    Err(cancelled) => {
                        self.forget(py, token, &operation, &future)?;
                        Err(cancelled)
                    }
                }
            }
            State::Done => Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }

    fn attempt(&self, py: Python<'_>, mut operation: Operation, first: bool) -> PyResult<Step> {
        let event_loop = self.event_loop(py);
        let sock = self.0.sock.bind(py);
        let fd = if operation.is_for_transport() { -1 } else { open_descriptor(&sock)? };
        if first && operation.reads_stream() && watch::is_drained(&event_loop, &sock, fd) {
            return self.wait(py, operation, fd);
        }
        match operation.attempt(&event_loop, &sock, fd)? {
            Attempt::Ready(value) => {
                if operation.reads_stream() {
                    watch::note_read(&event_loop, &sock, fd, false);
                }
                Ok(Step::Return(value.into()))
            }
            Attempt::Short(value) => {
                watch::note_read(&event_loop, &sock, fd, true);
                Ok(Step::Return(value.into()))
            }
            Attempt::MustWait => self.wait(py, operation, fd),
        }
    }

    fn wait(&self, py: Python<'_>, operation: Operation, fd: RawFd) -> PyResult<Step> {
        let event_loop = self.event_loop(py);
        let sock = self.0.sock.bind(py);
        let (future, token) = match &operation {
            Operation::SendFile(transfer) if transfer.is_for_transport() => (transfer.turn(&sock)?, None),
            _ => {
                let future = task::renewed_future(&event_loop)?;
                let for_edges = operation.waits_for_edges() && is_plain(&sock);
                let direction = operation.direction();
                let token = watch::wait_once(&event_loop, &sock, fd, direction, &future, for_edges)?;
                (future, Some(token))
            }
        };
        let steps = call::awaiting(py, &future)?;
        let first = call::advance(py, &steps);
        self.put(State::Waiting { operation, token, future, steps });
        Ok(match first? {
            Some(first) => Step::Yield(first),
            None => Step::Return(none(py)),
        })
    }

    /// Ends the call: it waits no more and lets go of its buffers.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        match self.take_state() {
            State::Waiting { operation, token, future, .. } => self.forget(py, token, &operation, &future),
            _ => Ok(()),
        }
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
                watch::forget(&event_loop, token, operation.direction(), future)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: whoever steps it next sees what this one did.
        self.0.busy.store(false, Ordering::Release);
    }
}

fn none(py: Python<'_>) -> Owned {
    py.None().into_bound(py).into()
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
    let Ok(ssl) = modules.get_item("ssl") else { return Ok(false) };
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
    // SAFETY: as promised to it.
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
    // SAFETY: as promised to it.
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
    // SAFETY: as promised to it.
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

// ---- the type --------------------------------------------------------------------------------------------

/// Makes the type, which is a `collections.abc.Coroutine`, what asyncio asks for.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let made = raw::TypeSpec {
        name: c"tokioloop._tokioloop.SockCall",
        basicsize: size_of::<SockCall>() as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            (ffi::Py_tp_dealloc, dealloc as *mut c_void),
            (ffi::Py_tp_traverse, traverse as *mut c_void),
            (ffi::Py_tp_clear, clear as *mut c_void),
            (ffi::Py_am_await, ffi::PyObject_SelfIter as *mut c_void),
            (raw::AM_SEND, send_slot as *mut c_void),
        ],
        methods: vec![
            raw::one_arg(c"send", send, c"Step it; what is sent does not matter."),
            raw::method(
                c"throw",
                ffi::PyMethodDefPointer { PyCFunctionFast: throw },
                ffi::METH_FASTCALL,
                c"End it with an exception.",
            ),
            raw::no_args(c"close", close, c"End it."),
        ],
        getset: Vec::new(),
        members: Vec::new(),
    }
    .build_and_add(module, "SockCall", None)?;
    // SAFETY: our own type, not shared yet. `await` wants an iterator; filled in now, `__next__` is no attribute of it.
    unsafe { (*made).tp_iternext = Some(next) };
    let _ = TYPE.set(Type(made));
    // SAFETY: a live type.
    let class = unsafe { Bound::<PyAny>::from_borrowed_ptr(module.py(), made.cast()) };
    imports::coroutine_abc(module.py())?.call_method1("register", (class,)).map(drop)
}

/// Makes a step; whether it ended with a return.
unsafe fn step(object: *mut ffi::PyObject, returned: &mut bool) -> *mut ffi::PyObject {
    let made = |py: Python<'_>| {
        // SAFETY: called by Python, with a call.
        Ok(match unsafe { Turn::take(object) }?.step(py)? {
            Step::Yield(value) => value.into_ptr(),
            Step::Return(value) => {
                *returned = true;
                value.into_ptr()
            }
        })
    };
    // SAFETY: attached, with a call.
    unsafe { enter(object, made) }
}

/// Enters Rust in the way that the call allows.
unsafe fn enter<R: raw::Returned>(
    object: *mut ffi::PyObject,
    body: impl FnOnce(Python<'_>) -> PyResult<R>,
) -> R {
    // SAFETY: attached, with a call, as the caller was promised; the field never changes.
    unsafe { if (*object.cast::<SockCall>()).hot { raw::enter_hot(body) } else { raw::enter(body) } }
}

unsafe extern "C" fn send_slot(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let mut returned = false;
    // SAFETY: called by Python, attached, with a call and where to put the result.
    let value = unsafe { step(object, &mut returned) };
    // SAFETY: as promised.
    unsafe { *result = value };
    match (value.is_null(), returned) {
        (true, _) => ffi::PySendResult::PYGEN_ERROR,
        (false, true) => ffi::PySendResult::PYGEN_RETURN,
        (false, false) => ffi::PySendResult::PYGEN_NEXT,
    }
}

/// What `await` calls: what is yielded; null for a return, with StopIteration set unless the result is None.
unsafe extern "C" fn next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let mut returned = false;
    // SAFETY: called by Python, attached, with a call.
    unsafe {
        let value = step(object, &mut returned);
        if !returned || value.is_null() {
            return value;
        }
        let value = Owned::steal(value);
        if value.as_ptr() == ffi::Py_None() {
            return ptr::null_mut();
        }
        enter(object, |py| stop_with(py, value).map(|()| ptr::null_mut()))
    }
}

/// As `next`. A method, unlike the slot, must raise.
unsafe extern "C" fn send(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as promised to it.
    unsafe {
        let result = next(object);
        if result.is_null() && ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_SetNone(ffi::PyExc_StopIteration);
        }
        result
    }
}

/// `throw(exception)`, or the deprecated `throw(type, value, traceback)`.
unsafe extern "C" fn throw(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a call and `nargs` arguments.
    unsafe {
        raw::enter(|py| {
            let error = thrown(py, args, nargs)?;
            Turn::take(object)?.end(py)?;
            Err(error)
        })
    }
}

unsafe extern "C" fn close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a call.
    unsafe { raw::enter(|py| Turn::take(object)?.end(py).map(|()| raw::none(py))) }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference: nobody steps it.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        let call = object.cast::<SockCall>();
        if matches!(*(*call).state.get(), State::Waiting { .. }) {
            stop_waiting(object);
        }
        ptr::drop_in_place(&raw mut (*call).state);
        ptr::drop_in_place(&raw mut (*call).sock);
        ptr::drop_in_place(&raw mut (*call).event_loop);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

/// Dropped while it waits: the watch must not keep the future, which nobody else may be left to take out.
#[cold]
unsafe fn stop_waiting(object: *mut ffi::PyObject) {
    // SAFETY: called from `dealloc`, attached; an exception that is set is kept for the caller. Where the loop is another
    // thread's, the future stays until the next event or the loop's end.
    unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        raw::enter(|py| {
            let turn = Turn::take(object)?;
            if turn.event_loop(py).get().shared.claim().is_ok() {
                turn.end(py)?;
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
    }
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector with the world stopped; only reads.
    unsafe {
        let call = &*object.cast::<SockCall>();
        let mut result = 0;
        let mut see = |object: *mut ffi::PyObject| {
            if result == 0 {
                result = raw::visit(object, visit, arg);
            }
        };
        see(ffi::Py_TYPE(object).cast());
        see(call.event_loop.as_ptr());
        see(call.sock.as_ptr());
        match &*call.state.get() {
            State::New(operation) => operation.each(&mut see),
            State::Waiting { operation, future, steps, .. } => {
                see(future.as_ptr());
                see(steps.as_ptr());
                operation.each(&mut see);
            }
            State::Done => {}
        }
        result
    }
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage, which nobody steps.
    unsafe { drop(mem::replace(&mut *(*object.cast::<SockCall>()).state.get(), State::Done)) };
    0
}
