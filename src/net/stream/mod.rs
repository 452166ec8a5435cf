//! The transports of a connected stream socket (TCP or Unix) and of the ends of a pipe.
//!
//! | room    | what lives there                                                         |
//! |---------|--------------------------------------------------------------------------|
//! | `class` | the Python type and its methods                                          |
//! | `read`  | from the driver to the protocol                                          |
//! | `write` | from the protocol to the kernel: the queue, flow control, half-close     |
//! | `end`   | what is its own in the end of a transport                                |
//! | `file`  | a file that the kernel sends: `loop.sendfile`                            |
//! | `extra` | `get_extra_info`                                                         |
//! | `pipe`  | where the ends of a pipe follow rules of their own                       |
//! | `rest`  | whether the loop keeps a transport alive, and its end if nothing does    |
//!
//! A transport is a Python object derived from asyncio's `Transport`, `ReadTransport` or `WriteTransport`, with a [`Stream`]
//! behind the base's fields. What it is on is its [`Kind`].
//!
//! Threads: as for every transport (`net/transport`). Of [`Public`], which any thread may read, the objects sit behind a lock that the
//! loop's thread takes to replace them.

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
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::driver::{Completion, Connection, Driver, ReadMode, Refused, Token};
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::{Endpoint, with_driver};
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::{EventLoop, turn};
use crate::net::native::{self, Receive};
use crate::net::transport::end::{Life, Phase};
use crate::net::transport::{self, Common, Marks};
use crate::proto::flow::{FlowChange, FlowControl};
use crate::proto::write_queue::WriteQueue;
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use crate::py::{Attached, Owned, bytes, derived, imports};
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
    WritePipe,
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

/// What any thread may read. The descriptor among the marks is owned here until a Python object was made of it.
pub struct Public {
    marks: Marks,
    objects: Attached<Objects>,
}

struct Objects {
    protocol: Owned,
    extra: Extra,
}

pub struct Stream {
    common: Common,
    life: Life,
    kind: Kind,
    /// The end of a pipe that is written is reported readable when its reader goes away.
    watched: bool,
    buffered_protocol: bool,
    /// How to hand bytes to a protocol written in Rust.
    receive: Option<Receive>,
    server: Option<Owned>,
    queue: WriteQueue<Chunk>,
    /// Set while a file is sent; nothing else is sent meanwhile.
    sender: Option<file::Sender>,
    eof_requested: bool,
    /// The turn (by the loop's count) in which something was last sent at once.
    written_in: u64,
    /// Later writes of the same turn wait for its end in the queue, to be sent together.
    held: bool,
    /// The peer has ended its direction, and the protocol has got eof_received().
    eof_received: bool,
    /// The driver has a weak reference only.
    rests: bool,
    public: Arc<Public>,
}

impl Stream {
    fn read_mode(&self) -> ReadMode {
        if self.kind == Kind::WritePipe {
            return if self.watched && !self.life.is_over() { ReadMode::Readiness } else { ReadMode::Paused };
        }
        if self.life.phase != Phase::Open
            || self.eof_received
            || self.public.marks.paused.load(Ordering::Relaxed)
        {
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
        self.public.marks.buffered.store(self.queue.len(), Ordering::Relaxed);
    }
}

type Transport<'a, 'py> = transport::Transport<'a, 'py, Stream>;

impl transport::Kind for Stream {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    #[inline]
    fn marks(public: &Public) -> &Marks {
        &public.marks
    }

    fn protocol(public: &Public, py: Python<'_>) -> Owned {
        public.objects.lock(py).protocol.clone_ref(py)
    }

    fn replace_protocol(&mut self, py: Python<'_>, protocol: Owned) -> Owned {
        self.receive = None;
        std::mem::replace(&mut self.public.objects.lock(py).protocol, protocol)
    }

    fn limits_changed(&mut self) -> FlowChange {
        self.common.flow.grown(self.queue.len())
    }

    fn send_held(transport: Transport<'_, '_>) -> PyResult<()> {
        transport.flush_held()
    }

    fn set_protocol<'py>(transport: Transport<'_, 'py>, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        transport.set_protocol(protocol)
    }
}

impl<'py> Transport<'_, 'py> {
    fn kind(self) -> Kind {
        class::kind_of(self.object)
    }

    /// Sets the driver's orders for arriving bytes.
    fn apply_read_mode(self) -> PyResult<()> {
        let (token, mode) = self.with(|stream| (stream.life.token, stream.read_mode()))?;
        match token {
            Some(token) => {
                with_driver(&self.event_loop(), |driver| driver.set_read_mode(token, mode))?;
                self.keep_or_rest()
            }
            None => Ok(()),
        }
    }

    fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let buffered =
            self.kind() == Kind::Socket && protocol.is_instance(imports::buffered_protocol(self.py())?)?;
        let receive = native::receiver(protocol);
        self.exchange_protocol(protocol.into(), |stream| {
            stream.buffered_protocol = buffered;
            stream.receive = receive;
        })?;
        self.apply_read_mode()
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
    assemble(event_loop, (Kind::Socket, false), parts, |driver, endpoint| {
        driver.register_stream(fd, family, endpoint)
    })
}

fn assemble<'py>(
    event_loop: &Bound<'py, EventLoop>,
    (kind, watched): (Kind, bool),
    parts: Parts<'py>,
    register: impl FnOnce(&mut Driver<Endpoint>, Endpoint) -> Result<Token, Refused<Endpoint>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let Parts { fd, owned, protocol, context, server, extra } = parts;
    let flow = FlowControl::default();
    let buffered_protocol = kind == Kind::Socket && protocol.is_instance(imports::buffered_protocol(py)?)?;
    let stream = Stream {
        life: Life::new(),
        kind,
        watched,
        buffered_protocol,
        receive: native::receiver(&protocol),
        server: server.as_ref().map(Owned::from),
        queue: WriteQueue::default(),
        sender: None,
        eof_requested: false,
        written_in: u64::MAX,
        held: false,
        eof_received: false,
        rests: false,
        public: Arc::new(Public {
            marks: Marks::new(event_loop, fd, &flow),
            objects: Attached::new(Objects { protocol: protocol.as_any().into(), extra }),
        }),
        common: Common { protocol: protocol.as_ptr(), context, flow },
    };
    let object = class::create(py, stream)?;
    let registered =
        with_driver(event_loop, |driver| register(driver, Endpoint::transport(dispatch, (&object).into())))
            .and_then(|registered| registered.map_err(Refused::into_error).or_os_error());
    let transport = Transport::new(&object);
    match registered {
        Ok(token) => {
            transport.with(|stream| stream.life.token = Some(token))?;
            let _ = owned.map(Connection::into_raw_fd); // The transport's from here on.
        }
        Err(error) => {
            transport.give_up()?;
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
        if let Some(receive) = unsafe { (*derived::state_of::<Stream>(transport.as_ptr())).receive } {
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
