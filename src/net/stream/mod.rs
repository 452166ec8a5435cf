//! The transports of a connected stream socket (TCP or Unix) and of the ends of a pipe.
//!
//! | room    | what lives there                                                         |
//! |---------|--------------------------------------------------------------------------|
//! | `class` | the Python type and its methods                                          |
//! | `read`  | from the driver to the protocol                                          |
//! | `write` | from the protocol to the kernel: the queue, flow control, half-close     |
//! | `end`   | close, abort, fatal errors, `connection_lost`                            |
//! | `file`  | a file that the kernel sends: `loop.sendfile`                            |
//! | `extra` | `get_extra_info`                                                         |
//! | `pipe`  | where the ends of a pipe follow rules of their own                       |
//! | `rest`  | whether the loop keeps a transport alive, and its end if nothing does    |
//!
//! A transport is a Python object derived from asyncio's `Transport`, `ReadTransport` or `WriteTransport`, with a [`Stream`]
//! behind the base's fields. What it is on is its [`Kind`].
//!
//! Threads: a [`Stream`] belongs to its loop's thread, under the loop's claim, except [`Public`], which any thread may
//! read, and which is separate from the stream: flags are atomic, objects are behind a lock that the loop's thread takes to replace them. As in the core, no
//! reference to a `Stream` is alive across a call into Python.

mod class;
mod end;
mod extra;
mod file;
mod pipe;
mod read;
mod rest;
mod write;

use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::driver::{Completion, Connection, Driver, ReadMode, Refused, Token};
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::{Endpoint, with_driver};
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::{EventLoop, turn};
use crate::net::native::{self, Receive};
use crate::proto::flow::FlowControl;
use crate::proto::write_queue::WriteQueue;
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use crate::py::{Attached, Owned, bytes, context, imports};
use crate::sync::quiet::{Quiet, Under};
use crate::sys;

pub use class::{closing_of, has_ended, init, is_stream, write_to};
pub use extra::Extra;
pub use file::{turn, wait_for_turn};
use read::Delivery;
pub use write::{Data, LOG_LOST_WRITES, send};

/// What a transport is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Socket,
    ReadPipe,
    /// `watched`: it is reported readable when its reader goes away.
    WritePipe {
        watched: bool,
    },
}

impl Kind {
    /// How a read that failed is reported.
    fn read_failed(self) -> &'static str {
        match self {
            Kind::Socket => "Fatal read error on socket transport",
            _ => "Fatal read error on pipe transport",
        }
    }

    /// How a write that failed is reported.
    fn write_failed(self) -> &'static str {
        match self {
            Kind::Socket => "Fatal write error on socket transport",
            _ => "Fatal write error on pipe transport",
        }
    }
}

/// Where a transport is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Reads and writes.
    Open,
    /// Closed by its user: what is queued is still sent, nothing is read.
    Draining,
    /// The end is scheduled: `connection_lost` will be called, nothing is sent any more.
    Lost,
    /// `connection_lost` was called and the socket is closed.
    Closed,
}

/// What waits to be sent.
pub enum Chunk {
    /// An exact `bytes` object, kept instead of copied.
    Bytes(Owned),
    /// Ciphertext.
    Copied(Box<[u8]>),
}

impl Chunk {
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Chunk::Bytes(bytes) => Chunk::Bytes(bytes.clone_ref(py)),
            Chunk::Copied(bytes) => Chunk::Copied(bytes.clone()),
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            // SAFETY: only exact `bytes` are put into such chunks; they are immutable and alive with the reference.
            Chunk::Bytes(object) => unsafe { bytes::contents(object) },
            Chunk::Copied(bytes) => bytes,
        }
    }
}

/// What any thread may read.
pub struct Public {
    /// Set once.
    event_loop: Owned,
    kind: Kind,
    /// The socket or pipe; -1 once closed. Owned here until a Python object was made of it.
    fd: AtomicI32,
    closing: AtomicBool,
    paused: AtomicBool,
    buffered: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    objects: Attached<Objects>,
}

// SAFETY: `event_loop` is set once and its count is only changed by attached threads (see `Owned`); the rest is atomic or locked.
unsafe impl Sync for Public {}

struct Objects {
    protocol: Owned,
    extra: Extra,
}

pub struct Stream {
    token: Option<Token>,
    phase: Phase,
    /// Borrowed from `public.objects`, which only this thread replaces: saves the lock.
    protocol: *mut pyo3::ffi::PyObject,
    buffered_protocol: bool,
    /// How to hand bytes to a protocol written in Rust.
    receive: Option<Receive>,
    context: Owned,
    server: Option<Owned>,
    queue: WriteQueue<Chunk>,
    flow: FlowControl,
    /// Set while a file is sent; nothing else is sent meanwhile.
    sender: Option<file::Sender>,
    eof_requested: bool,
    /// The turn (by the loop's count) in which something was last sent at once.
    written_in: u64,
    /// Later writes of the same turn wait for its end in the queue, to be sent together.
    held: bool,
    /// The peer has ended its direction, and the protocol has got eof_received().
    eof_received: bool,
    /// Writes since the connection was lost.
    lost_writes: u32,
    /// The driver has a weak reference only.
    rests: bool,
    public: Arc<Public>,
}

impl Stream {
    fn read_mode(&self) -> ReadMode {
        if let Kind::WritePipe { watched } = self.public.kind {
            let alive = matches!(self.phase, Phase::Open | Phase::Draining);
            return if watched && alive { ReadMode::Readiness } else { ReadMode::Paused };
        }
        if self.phase != Phase::Open || self.eof_received || self.public.paused.load(Ordering::Relaxed) {
            ReadMode::Paused
        } else if self.buffered_protocol {
            ReadMode::Readiness
        } else if self.receive.is_none_or(|receive| receive.object.is_some()) {
            ReadMode::Objects
        } else {
            ReadMode::Bytes
        }
    }

    fn publish_size(&self) {
        self.public.buffered.store(self.queue.len(), Ordering::Relaxed);
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

    /// Looks at or changes the stream. `f` must not call into Python. RuntimeError when another thread runs the loop.
    fn with<R>(self, f: impl FnOnce(&mut Stream) -> R) -> PyResult<R> {
        // SAFETY: the transport is alive in our hands.
        let lp = unsafe { loop_of(self.object.as_ptr()) };
        let claim = lp.shared.claim().map_err(|foreign| lp.wrong_thread(self.py(), foreign))?;
        let quiet = Quiet::begin(Under::Claim);
        // SAFETY: claimed, and `f` does not come back here.
        let result = f(unsafe { &mut *class::stream_of(self.object.as_ptr()) });
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

    fn kind(self) -> Kind {
        self.public(|public| public.kind)
    }

    fn event_loop(self) -> Bound<'py, EventLoop> {
        let py = self.py();
        // SAFETY: what is stored there is a loop.
        self.public(|public| unsafe { public.event_loop.bind(py).cast_unchecked::<EventLoop>().to_owned() })
    }

    fn protocol(self) -> Bound<'py, PyAny> {
        let py = self.py();
        self.public(|public| public.objects.lock(py).protocol.clone_ref(py)).into_bound(py)
    }

    fn context(self) -> PyResult<Owned> {
        let py = self.py();
        self.with(|stream| stream.context.clone_ref(py))
    }

    /// For what the loop does by itself: in the transport's context. Not inside of a call that a program made.
    fn inside<R>(self, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        context::run(self.py(), &self.context()?, call)
    }

    /// Sets the driver's orders for arriving bytes.
    fn apply_read_mode(self) -> PyResult<()> {
        let (token, mode) = self.with(|stream| (stream.token, stream.read_mode()))?;
        match token {
            Some(token) => {
                with_driver(&self.event_loop(), |driver| driver.set_read_mode(token, mode))?;
                self.keep_or_rest()
            }
            None => Ok(()),
        }
    }

    fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let buffered =
            self.kind() == Kind::Socket && protocol.is_instance(imports::buffered_protocol(py)?)?;
        let receive = native::receiver(protocol);
        let former = self.with(|stream| {
            stream.protocol = protocol.as_ptr();
            stream.buffered_protocol = buffered;
            stream.receive = receive;
            std::mem::replace(&mut stream.public.objects.lock(py).protocol, protocol.into())
        })?;
        drop(former);
        self.apply_read_mode()
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

/// What a new transport is made of.
pub struct Parts<'py> {
    pub fd: RawFd,
    /// The descriptor, where no Python socket owns it.
    pub owned: Option<Connection>,
    pub protocol: Bound<'py, PyAny>,
    pub context: Owned,
    pub server: Option<Bound<'py, PyAny>>,
    pub extra: Extra,
}

/// Makes a transport and registers its socket; `start` comes next.
pub fn make<'py>(event_loop: &Bound<'py, EventLoop>, parts: Parts<'py>) -> PyResult<Bound<'py, PyAny>> {
    let (family, kind, protocol_number) = sys::socket::kind(parts.fd).or_os_error()?;
    let is_tcp = kind == libc::SOCK_STREAM && protocol_number == libc::IPPROTO_TCP;
    make_known(event_loop, parts, family, is_tcp)
}

/// The same of a socket of which it is known what it is.
pub fn make_known<'py>(
    event_loop: &Bound<'py, EventLoop>,
    parts: Parts<'py>,
    family: i32,
    is_tcp: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let fd = parts.fd;
    if is_tcp {
        // As asyncio: small writes are not held back. A socket that is gone already shows that at the first read.
        let _ = sys::socket::set_nodelay(fd);
    }
    assemble(event_loop, Kind::Socket, parts, |driver, endpoint| driver.register_stream(fd, family, endpoint))
}

fn assemble<'py>(
    event_loop: &Bound<'py, EventLoop>,
    kind: Kind,
    parts: Parts<'py>,
    register: impl FnOnce(&mut Driver<Endpoint>, Endpoint) -> Result<Token, Refused<Endpoint>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let Parts { fd, owned, protocol, context, server, extra } = parts;
    let flow = FlowControl::default();
    let (low, high) = flow.limits();
    let buffered_protocol = kind == Kind::Socket && protocol.is_instance(imports::buffered_protocol(py)?)?;
    let stream = Stream {
        token: None,
        phase: Phase::Open,
        protocol: protocol.as_ptr(),
        buffered_protocol,
        receive: native::receiver(&protocol),
        context,
        server: server.as_ref().map(Owned::from),
        queue: WriteQueue::default(),
        flow,
        sender: None,
        eof_requested: false,
        written_in: u64::MAX,
        held: false,
        eof_received: false,
        lost_writes: 0,
        rests: false,
        public: Arc::new(Public {
            event_loop: event_loop.into(),
            kind,
            fd: AtomicI32::new(fd),
            closing: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            buffered: AtomicUsize::new(0),
            low: AtomicUsize::new(low),
            high: AtomicUsize::new(high),
            objects: Attached::new(Objects { protocol: protocol.into(), extra }),
        }),
    };
    let object = class::create(py, stream)?;
    let registered =
        with_driver(event_loop, |driver| register(driver, Endpoint::transport(dispatch, (&object).into())))
            .and_then(|registered| registered.map_err(Refused::into_error).or_os_error());
    let transport = Transport::new(&object);
    match registered {
        Ok(token) => {
            transport.with(|stream| stream.token = Some(token))?;
            let _ = owned.map(Connection::into_raw_fd); // The transport's from here on.
        }
        Err(error) => {
            transport.give_up_socket()?;
            return Err(error);
        }
    }
    if let Some(server) = server
        && let Err(error) = server.call_method1(names()._attach.bind(py), (&object,))
    {
        transport.abort()?;
        return Err(error);
    }
    Ok(object)
}

/// Has the transport begin in the next turn, in `context`.
pub fn start_soon<'py>(
    event_loop: &Bound<'py, EventLoop>,
    transport: &Bound<'py, PyAny>,
    context: Owned,
    waiter: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = event_loop.py();
    let begin = transport.getattr("_start")?;
    let arguments = PyTuple::new(py, [waiter.cloned().unwrap_or_else(|| py.None().into_bound(py))])?;
    let context = context.into_bound(py);
    let handle = event_loop.get().make_handle(event_loop, &begin, &arguments, Some(&context))?;
    turn::schedule(py, event_loop.get(), handle)
}

/// Begins: `connection_made`, then reading, then the waiter. Runs in the transport's context.
pub fn start(object: &Bound<'_, PyAny>, waiter: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let transport = Transport::new(object);
    let py = object.py();
    let made = transport.protocol().call_method1(names().connection_made.bind(py), (object,)).map(drop);
    transport.apply_read_mode()?;
    if let Some(waiter) = waiter.filter(|waiter| !waiter.is_none())
        && !waiter.call_method0(names().done.bind(py))?.is_truthy()?
    {
        waiter.call_method1(names().set_result.bind(py), (py.None(),))?;
    }
    made
}

/// Hands a completion of the driver to its transport; in debug mode says when that took long, as of any callback.
fn dispatch(on: OnLoop<'_, '_>, token: Token, completion: Completion) -> OrFatal {
    let event_loop = on.event_loop();
    let delivered = match event_loop.get().shared.is_debug() {
        false => deliver(event_loop, token, completion),
        true => deliver_timed(event_loop, token, completion),
    };
    delivered.or_report(event_loop, || Report::new("Exception in the delivery to a transport")).map(drop)
}

#[cold]
fn deliver_timed(event_loop: &Bound<'_, EventLoop>, token: Token, completion: Completion) -> PyResult<()> {
    let py = event_loop.py();
    let transport = with_driver(event_loop, |driver| {
        driver.data(token).and_then(Endpoint::as_transport).map(|transport| transport.clone_ref(py))
    })?;
    let start = sys::clock::monotonic_ns();
    let result = deliver(event_loop, token, completion);
    let seconds = (sys::clock::monotonic_ns() - start) as f64 / 1e9;
    if let Some(transport) = transport
        && seconds >= event_loop.get().with(py, |core| core.slow_callback_duration)?
    {
        let protocol = Transport::new(&transport.into_bound(py)).protocol();
        let arguments = ("Executing a callback of %r took %.3f seconds", protocol, seconds);
        imports::logger(py)?.call_method1("warning", arguments)?;
    }
    result
}

/// Bytes that came in take the shorter way of [`Delivery`]. What is the transport's or the protocol's was reported already.
fn deliver(event_loop: &Bound<'_, EventLoop>, token: Token, completion: Completion) -> PyResult<()> {
    let py = event_loop.py();
    // SAFETY: this thread owns the core while it runs; what is needed is taken out before Python is called.
    let Some(driver) = (unsafe { event_loop.get().core_mut().driver.as_mut() }) else { return Ok(()) };
    // Of one that rests there is nothing to deliver.
    let Some(transport) = driver.data(token).and_then(Endpoint::as_transport) else { return Ok(()) };
    if let Completion::Received(len @ 1..) = completion {
        // SAFETY: as above.
        if let Some(receive) = unsafe { (*class::stream_of(transport.as_ptr())).receive } {
            let transport = transport.clone_ref(py).into_bound(py);
            return Transport::new(&transport).received_natively(receive, driver.received(len));
        }
        return match Delivery::copy(py, transport, driver.received(len)) {
            Ok(delivery) => delivery.deliver(py),
            Err(error) => {
                let transport = transport.clone_ref(py).into_bound(py);
                let transport = Transport::new(&transport);
                transport.inside(|| transport.fatal(error, transport.kind().read_failed()))
            }
        };
    }
    let object = transport.clone_ref(py).into_bound(py);
    let transport = Transport::new(&object);
    if let Completion::Large(len) = completion {
        return transport.receive_object(token, len);
    }
    // There is no caller: all callbacks and reports run in the transport's context.
    transport.inside(|| match completion {
        Completion::Received(_) => match transport.kind() {
            Kind::Socket => transport.end_of_stream(),
            _ => transport.end_of_pipe(),
        },
        Completion::Readable => match transport.kind() {
            Kind::Socket => transport.readable(),
            _ => transport.reader_is_gone(),
        },
        Completion::ReadFailed(error) => transport.fatal(os_error(error), transport.kind().read_failed()),
        Completion::Writable => transport.flush(),
        _ => Ok(()),
    })
}
