//! The transport of a datagram socket (UDP, Unix, and any other family that `socket` knows).
//!
//! | room      | what lives there                                                       |
//! |-----------|------------------------------------------------------------------------|
//! | `class`   | the Python type and its methods                                        |
//! | `receive` | from the driver to the protocol, a batch at a time                     |
//! | `send`    | from the protocol to the kernel: at once, corked, or queued            |
//! | `queue`   | what waits to be sent                                                  |
//! | `address` | addresses between Python's form and the kernel's                       |
//! | `end`     | what is its own in the end of a transport                              |
//!
//! A transport is a Python object derived from `asyncio.DatagramTransport`, with a [`Datagram`] behind the base's fields. Its
//! socket is a Python object, which owns the descriptor.
//!
//! Threads: as for every transport (`net/transport`). Any thread may read [`Public`].

mod address;
mod class;
mod end;
mod queue;
mod receive;
mod send;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::driver::{Completion, ReadMode, Refused, Token};
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::{Endpoint, with_driver};
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::{EventLoop, turn};
use crate::net::transport::end::{Life, Phase};
use crate::net::transport::{self, Common, Marks};
use crate::net::watch;
use crate::proto::flow::{FlowChange, FlowControl};
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use crate::py::{Attached, Owned, context, imports};
use crate::sys;
use crate::sys::datagram::Name;
use address::Addresses;
use queue::Queue;

pub use class::init;

/// What any thread may read.
pub struct Public {
    marks: Marks,
    /// These two are set once.
    sock: Owned,
    extra: Owned,
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
    common: Common,
    life: Life,
    family: i32,
    /// The socket is connected; the name of its peer is empty where that is an unnamed Unix socket.
    peer: Peer,
    remote: Option<Remote>,
    addresses: Addresses,
    queue: Queue,
    /// A batch is being delivered: what is sent meanwhile leaves when that is done.
    corked: bool,
    /// The kernel refused a datagram: the rest waits for it.
    blocked: bool,
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
        if self.life.phase != Phase::Open || self.public.marks.paused.load(Ordering::Relaxed) {
            ReadMode::Paused
        } else if matches!(self.family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX) {
            ReadMode::Bytes
        } else {
            // Addresses that only Python's socket can put into words.
            ReadMode::Readiness
        }
    }
}

type Transport<'a, 'py> = transport::Transport<'a, 'py, Datagram>;

impl transport::Kind for Datagram {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    #[inline]
    fn marks(public: &Public) -> &Marks {
        &public.marks
    }

    fn protocol(public: &Public, py: Python<'_>) -> Owned {
        public.protocol.lock(py).clone_ref(py)
    }

    fn replace_protocol(&mut self, py: Python<'_>, protocol: Owned) -> Owned {
        std::mem::replace(&mut *self.public.protocol.lock(py), protocol)
    }

    fn limits_changed(&mut self) -> FlowChange {
        // What is only corked was not refused yet.
        if self.blocked { self.grown() } else { FlowChange::None }
    }

    fn send_held(transport: Transport<'_, '_>) -> PyResult<()> {
        transport.send_corked()
    }

    fn set_protocol<'py>(transport: Transport<'_, 'py>, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        transport.exchange_protocol(protocol.into(), |_| {})
    }
}

impl<'py> Transport<'_, 'py> {
    fn sock(self) -> Bound<'py, PyAny> {
        let py = self.py();
        self.public(|public| public.sock.clone_ref(py)).into_bound(py)
    }

    /// Tells the driver what to do with what arrives.
    fn apply_read_mode(self) -> PyResult<()> {
        let (token, mode) = self.with(|state| (state.life.token, state.read_mode()))?;
        match token {
            Some(token) => with_driver(&self.event_loop(), |driver| driver.set_read_mode(token, mode)),
            None => Ok(()),
        }
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
    let state = Datagram {
        life: Life::new(),
        family,
        peer,
        remote,
        addresses: Addresses::default(),
        queue: Queue::default(),
        corked: false,
        blocked: false,
        public: Arc::new(Public {
            marks: Marks::new(event_loop, fd, &flow),
            sock: sock.into(),
            extra: extra.into(),
            protocol: Attached::new(protocol.into()),
        }),
        common: Common { protocol: protocol.as_ptr(), context, flow },
    };
    let object = class::create(event_loop.py(), state)?;
    let registered = with_driver(event_loop, |driver| {
        driver.register_datagram(fd, family, Endpoint::transport(dispatch, (&object).into()))
    })
    .and_then(|registered| registered.map_err(Refused::into_error).or_os_error());
    let transport = Transport::new(&object);
    match registered {
        Ok(token) => transport.with(|state| state.life.token = Some(token))?,
        Err(error) => {
            transport.give_up()?;
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
