//! The transport of a datagram socket (UDP, Unix, and any other family that `socket` knows).
//!
//! | room      | what lives there                                                       |
//! |-----------|------------------------------------------------------------------------|
//! | `class`   | the Python type and its methods                                        |
//! | `receive` | from the driver to the protocol, a batch at a time                     |
//! | `send`    | from the protocol to the kernel: at once, corked, or queued            |
//! | `queue`   | what waits to be sent                                                  |
//! | `address` | addresses between Python's form and the kernel's                       |
//! | `end`     | close, abort, errors, `connection_lost`                                |
//!
//! A transport is a Python object derived from `asyncio.DatagramTransport`, with a [`Datagram`] behind the base's fields. Its
//! socket is a Python object, which owns the descriptor.
//!
//! Threads: a [`Datagram`] belongs to its loop's thread, under the loop's claim, except [`Public`], which any thread may
//! read. As in the core, no reference to a `Datagram` is alive across a call into Python.

mod address;
mod class;
mod end;
mod queue;
mod receive;
mod send;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::driver::{Completion, ReadMode, Refused, Token};
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::{Endpoint, with_driver};
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::{EventLoop, turn};
use crate::net::watch;
use crate::proto::flow::FlowControl;
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use crate::py::{Attached, Owned, context, imports};
use crate::sync::quiet::{Quiet, Under};
use crate::sys;
use crate::sys::datagram::Name;
use address::Addresses;
use queue::Queue;

pub use class::init;

/// Where a transport is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Receives and sends.
    Open,
    /// Closed by its user: what is queued is still sent, nothing is received.
    Draining,
    /// The end is scheduled: `connection_lost` will be called.
    Lost,
    /// `connection_lost` was called and the socket is closed.
    Closed,
}

/// What any thread may read.
pub struct Public {
    /// These three are set once.
    event_loop: Owned,
    sock: Owned,
    extra: Owned,
    /// The socket's descriptor; -1 once closed.
    fd: AtomicI32,
    closing: AtomicBool,
    paused: AtomicBool,
    buffered: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    protocol: Attached<Owned>,
}

// SAFETY: what is set once has its count changed by attached threads only (see `Owned`); the rest is atomic or locked.
unsafe impl Sync for Public {}

/// The one address that datagrams go to, where the maker of the transport named it.
struct Remote {
    object: Owned,
    /// None where only Python's socket can make sense of it.
    name: Option<Name>,
}

pub struct Datagram {
    token: Option<Token>,
    phase: Phase,
    /// Borrowed from `public`, where only this thread replaces it: saves the lock.
    protocol: *mut pyo3::ffi::PyObject,
    context: Owned,
    family: i32,
    /// The socket is connected; the name of its peer is empty where that is an unnamed Unix socket.
    peer: Peer,
    remote: Option<Remote>,
    addresses: Addresses,
    queue: Queue,
    flow: FlowControl,
    /// A batch is being delivered: what is sent meanwhile leaves when that is done.
    corked: bool,
    /// The kernel refused a datagram: the rest waits for it.
    blocked: bool,
    /// Sends since the transport was lost.
    lost_writes: u32,
    public: Arc<Public>,
}

/// Whether the socket is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    None,
    /// To a Unix socket without a name.
    Unnamed,
    Named,
}

impl Datagram {
    fn read_mode(&self) -> ReadMode {
        if self.phase != Phase::Open || self.public.paused.load(Ordering::Relaxed) {
            ReadMode::Paused
        } else if matches!(self.family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX) {
            ReadMode::Bytes
        } else {
            // Addresses that only Python's socket can put into words.
            ReadMode::Readiness
        }
    }
}

/// A transport object, and the way to what is behind it.
#[derive(Clone, Copy)]
struct Transport<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
}

impl<'a, 'py> Transport<'a, 'py> {
    fn new(object: &'a Bound<'py, PyAny>) -> Self {
        Self { object }
    }

    fn py(self) -> Python<'py> {
        self.object.py()
    }

    /// Looks at or changes the state. `f` must not call into Python. RuntimeError when another thread runs the loop.
    fn with<R>(self, f: impl FnOnce(&mut Datagram) -> R) -> PyResult<R> {
        // SAFETY: the transport is alive in our hands.
        let lp = unsafe { loop_of(self.object.as_ptr()) };
        let claim = lp.shared.claim().map_err(|foreign| lp.wrong_thread(self.py(), foreign))?;
        let quiet = Quiet::begin(Under::Claim);
        // SAFETY: claimed, and `f` does not come back here.
        let result = f(unsafe { &mut *class::state_of(self.object.as_ptr()) });
        drop((quiet, claim));
        Ok(result)
    }

    fn public<R>(self, f: impl FnOnce(&Public) -> R) -> R {
        f(class::public_of(self.object.as_ptr()))
    }

    /// The descriptor while the socket is open. Any thread; it may be closed by the time it is used.
    fn fd(self) -> Option<RawFd> {
        let fd = self.public(|public| public.fd.load(Ordering::Relaxed));
        (fd >= 0).then_some(fd)
    }

    fn event_loop(self) -> Bound<'py, EventLoop> {
        let py = self.py();
        // SAFETY: what is stored there is a loop.
        self.public(|public| unsafe { public.event_loop.bind(py).cast_unchecked::<EventLoop>().to_owned() })
    }

    fn protocol(self) -> Bound<'py, PyAny> {
        let py = self.py();
        self.public(|public| public.protocol.lock(py).clone_ref(py)).into_bound(py)
    }

    fn sock(self) -> Bound<'py, PyAny> {
        let py = self.py();
        self.public(|public| public.sock.clone_ref(py)).into_bound(py)
    }

    fn context(self) -> PyResult<Owned> {
        let py = self.py();
        self.with(|state| state.context.clone_ref(py))
    }

    /// Sets the driver's orders for arriving data.
    fn apply_read_mode(self) -> PyResult<()> {
        let (token, mode) = self.with(|state| (state.token, state.read_mode()))?;
        match token {
            Some(token) => with_driver(&self.event_loop(), |driver| driver.set_read_mode(token, mode)),
            None => Ok(()),
        }
    }

    fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let former = self.with(|state| {
            state.protocol = protocol.as_ptr();
            std::mem::replace(&mut *state.public.protocol.lock(py), protocol.into())
        })?;
        drop(former);
        Ok(())
    }
}

/// The loop of a transport, from any thread.
///
/// # Safety
/// `object` is a live transport; the result is not used longer than it.
#[inline]
unsafe fn loop_of<'a>(object: *mut pyo3::ffi::PyObject) -> &'a EventLoop {
    // SAFETY: promised; the transport holds the loop.
    unsafe {
        let py = Python::assume_attached();
        let event_loop = class::public_of(object).event_loop.as_ptr();
        let event_loop = pyo3::Borrowed::from_ptr(py, event_loop).cast_unchecked::<EventLoop>();
        let event_loop: *const EventLoop = event_loop.get();
        &*event_loop
    }
}

/// What `get_extra_info` knows from the start: the socket, its own name and its peer's, and what the maker adds.
fn extra_of<'py>(
    sock: &Bound<'py, PyAny>,
    given: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = sock.py();
    let extra = given.map_or_else(|| Ok(PyDict::new(py)), |given| given.copy())?;
    extra.set_item("socket", imports::transport_socket(py)?.call1((sock,))?)?;
    for (name, method) in [("sockname", "getsockname"), ("peername", "getpeername")] {
        if name == "peername" && extra.contains(name)? {
            continue;
        }
        match sock.call_method0(method) {
            Ok(address) => extra.set_item(name, address)?,
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyOSError>(py) => {
                extra.set_item(name, py.None())?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(extra)
}

/// Makes a transport and registers its socket; `start` comes next.
fn make<'py>(
    event_loop: &Bound<'py, EventLoop>,
    sock: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    remote: Option<&Bound<'py, PyAny>>,
    extra: Bound<'py, PyDict>,
    context: Owned,
) -> PyResult<Bound<'py, PyAny>> {
    let fd = watch::fileno(sock)?;
    watch::ensure_no_transport(event_loop, fd, sock)?;
    let (family, _, _) = sys::socket::kind(fd).or_os_error()?;
    let peer = match extra.get_item("peername")? {
        Some(name) if name.is_truthy()? => Peer::Named,
        Some(name) if !name.is_none() => Peer::Unnamed,
        _ => Peer::None,
    };
    // SAFETY: attached and alive.
    let name_of = |object: &Bound<'py, PyAny>| unsafe { address::parse(family, object.as_ptr()) };
    let remote = remote.map(|object| Remote { object: object.into(), name: name_of(object) });
    let flow = FlowControl::default();
    let (low, high) = flow.limits();
    let state = Datagram {
        token: None,
        phase: Phase::Open,
        protocol: protocol.as_ptr(),
        context,
        family,
        peer,
        remote,
        addresses: Addresses::default(),
        queue: Queue::default(),
        flow,
        corked: false,
        blocked: false,
        lost_writes: 0,
        public: Arc::new(Public {
            event_loop: event_loop.into(),
            sock: sock.into(),
            extra: extra.into(),
            fd: AtomicI32::new(fd),
            closing: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            buffered: AtomicUsize::new(0),
            low: AtomicUsize::new(low),
            high: AtomicUsize::new(high),
            protocol: Attached::new(protocol.into()),
        }),
    };
    let object = class::create(event_loop.py(), state)?;
    let registered = with_driver(event_loop, |driver| {
        driver.register_datagram(fd, family, Endpoint::transport(dispatch, (&object).into()))
    })
    .and_then(|registered| registered.map_err(Refused::into_error).or_os_error());
    let transport = Transport::new(&object);
    match registered {
        Ok(token) => transport.with(|state| state.token = Some(token))?,
        Err(error) => {
            transport.give_up_socket()?;
            return Err(error);
        }
    }
    Ok(object)
}

/// Begins: `connection_made`, then receiving, then the waiter. Runs in the transport's context.
fn start(object: &Bound<'_, PyAny>, waiter: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = Transport::new(object);
    let py = object.py();
    let made = transport.protocol().call_method1(names().connection_made.bind(py), (object,)).map(drop);
    transport.apply_read_mode()?;
    if !waiter.is_none() && !waiter.call_method0(names().done.bind(py))?.is_truthy()? {
        waiter.call_method1(names().set_result.bind(py), (py.None(),))?;
    }
    made
}

/// Hands a completion of the driver to its transport.
fn dispatch(on: OnLoop<'_, '_>, token: Token, completion: Completion) -> OrFatal {
    let event_loop = on.event_loop();
    let report = || Report::new("Exception in the delivery to a transport");
    deliver(event_loop, token, completion).or_report(event_loop, report).map(drop)
}

fn deliver(event_loop: &Bound<'_, EventLoop>, token: Token, completion: Completion) -> PyResult<()> {
    let py = event_loop.py();
    // SAFETY: this thread owns the core while it runs; the borrow ends with the statement.
    let Some(driver) = (unsafe { event_loop.get().core_mut().driver.as_mut() }) else { return Ok(()) };
    let Some(transport) = driver.data(token).and_then(Endpoint::as_transport) else { return Ok(()) };
    let object = transport.clone_ref(py).into_bound(py);
    let transport = Transport::new(&object);
    if let Completion::Datagrams(batch) = completion {
        return transport.received(token, batch);
    }
    let context = transport.context()?;
    context::run(py, &context, || match completion {
        Completion::Readable => transport.receive_by_python(token),
        Completion::ReadFailed(error) => {
            let told = transport.error_received(os_error(error));
            Ok(transport.reported(told, "error_received")?)
        }
        Completion::Writable => {
            transport.with(|state| state.blocked = false)?;
            transport.flush()
        }
        _ => Ok(()),
    })
}

#[pymethods]
impl EventLoop {
    /// A transport on a non-blocking datagram socket. It begins in the next turn.
    #[pyo3(signature = (sock, protocol, address=None, waiter=None, extra=None))]
    fn _make_datagram_transport<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        address: Option<&Bound<'py, PyAny>>,
        waiter: Option<&Bound<'py, PyAny>>,
        extra: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let lp = slf.get();
        lp.check_open()?;
        let remote = match address {
            Some(address) if address.is_truthy()? => Some(address),
            _ => None,
        };
        let context = context::copy_current(py)?;
        let extra = extra_of(sock, extra)?;
        let transport = make(slf, sock, protocol, remote, extra, context.clone_ref(py))?;
        let waiter = waiter.cloned().unwrap_or_else(|| py.None().into_bound(py));
        let arguments = PyTuple::new(py, [waiter])?;
        let begin = transport.getattr("_start")?;
        let handle = lp.make_handle(slf, &begin, &arguments, Some(&context.bind(py)))?;
        turn::schedule(py, lp, handle)?;
        Ok(transport)
    }
}
