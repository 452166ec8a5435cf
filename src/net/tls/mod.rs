//! The transport of a TLS connection.
//!
//! | room        | what lives there                                                              |
//! |-------------|-------------------------------------------------------------------------------|
//! | `engine`    | the cryptography: OpenSSL directly, through memory BIOs, or rustls            |
//! | `class`     | the Python type and its methods                                               |
//! | `handshake` | from the connection below to `connection_made`                                |
//! | `read`      | ciphertext from below to the protocol                                         |
//! | `write`     | from the protocol to ciphertext; what waits, and flow control                 |
//! | `end`       | close_notify both ways, timeouts, fatal errors, `connection_lost`             |
//! | `extra`     | `get_extra_info`                                                              |
//! | `config`    | `tokioloop.tls.ServerConfig` and `ClientConfig`                               |
//! | `make`      | what servers, connects and `start_tls` make a transport with                  |
//!
//! A [`Tls`] is between two parties: for the transport *below* (a stream of ours, or any transport) it is a
//! protocol, for the *protocol* above it is a transport. Over a stream of ours the bytes pass without Python in between.
//!
//! Threads: as for every transport (`net/transport`). The engine, whose calls may run Python code, is taken out for their time.

mod class;
mod config;
mod end;
mod engine;
mod extra;
mod handshake;
mod make;
mod read;
mod write;

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::net::stream::Chunk;
use crate::net::transport::{Common, Kind, Marks, Transport};
use crate::proto::flow::{FlowChange, FlowControl};
use crate::proto::tls::Wire;
use crate::proto::write_queue::WriteQueue;
use crate::py::{Attached, Owned, imports, panic};
use engine::DynEngine;

pub use class::init;
pub use config::{ClientConfig, ServerConfig};
pub use engine::{_tls_engine, Connection};
pub use make::{Settings, over};

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing is below yet.
    New,
    Handshake,
    /// Reads and writes.
    Open,
    /// Nothing more will be written; what waits is still sent.
    Flushing,
    /// Our close_notify is out. Waits for the peer's; what else comes in is thrown away.
    Closing,
    /// Nothing passes any more.
    Over,
}

/// How far the protocol's callbacks have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Nothing,
    Made,
    Eof,
    Lost,
}

/// The transport that carries the ciphertext.
struct Below {
    transport: Owned,
    /// One of ours, which takes bytes without Python in between.
    is_stream: bool,
}

/// What any thread may read.
pub struct Public {
    marks: Marks,
    objects: Attached<Objects>,
}

struct Objects {
    protocol: Owned,
    /// The context it was made with, for `get_extra_info("sslcontext")`.
    context: Owned,
    /// What stands for the connection, once the handshake is done.
    ssl_object: Option<Shown>,
    /// Gone with the connection.
    below: Option<Owned>,
}

/// What `get_extra_info` shows of a connection. Asked for once: another thread that asks must not look into a connection
/// that the loop's thread is reading from, where a session ticket may just replace what it looks at.
struct Shown {
    object: Owned,
    peercert: Owned,
    cipher: Owned,
    compression: Owned,
}

impl Shown {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            peercert: object.call_method0("getpeercert")?.into(),
            cipher: object.call_method0("cipher")?.into(),
            compression: object.call_method0("compression")?.into(),
            object: object.into(),
        })
    }

    fn each(&self) -> [&Owned; 4] {
        [&self.object, &self.peercert, &self.cipher, &self.compression]
    }
}

pub struct Tls {
    phase: Phase,
    told: Told,
    /// None while it is in use further up the stack, and at the end.
    engine: Option<Box<DynEngine>>,
    /// What `get_extra_info` shows once the handshake is done.
    ssl_object: Option<Owned>,
    below: Option<Below>,
    /// Something was to be encrypted or said while the engine was in use: to be looked at when it is back.
    missed: bool,
    common: Common,
    buffered_protocol: bool,
    waiter: Option<Owned>,
    /// Ciphertext that came in while reading was paused.
    unread: Vec<u8>,
    /// Reading below is paused, since too much of that waits.
    below_paused: bool,
    /// Plaintext that waits: for the handshake, or for the transport below to take more.
    backlog: WriteQueue<Chunk>,
    /// Writes since it was closed.
    lost_writes: u32,
    /// The transport below asked for no more.
    below_full: bool,
    /// No more ciphertext will come.
    eof: bool,
    /// The peer's close_notify came in.
    peer_closed: bool,
    handshake_timeout: f64,
    shutdown_timeout: f64,
    /// The timer of the handshake, then that of the shutdown.
    timer: Option<Owned>,
    /// When the handshake began, in nanoseconds, in debug mode.
    began: Option<u64>,
    public: Arc<Public>,
}

impl Tls {
    fn publish_size(&self) {
        self.public.marks.buffered.store(self.backlog.len(), Ordering::Relaxed);
    }

    fn paused(&self) -> bool {
        self.public.marks.paused.load(Ordering::Relaxed)
    }

    /// What came in waits for reading to be resumed.
    fn waits(&self) -> bool {
        self.phase == Phase::Open && self.paused()
    }
}

/// asyncio's default high-water mark for writing over TLS, in bytes.
const WRITE_HIGH: i64 = 512 * 1024;
/// How much ciphertext may wait while reading is paused before reading below is paused too, in bytes, as in asyncio.
const READ_HIGH: usize = 256 * 1024;

fn flow() -> FlowControl {
    let mut flow = FlowControl::default();
    flow.set_limits(Some(WRITE_HIGH), None).expect("in order");
    flow
}

type TlsTransport<'a, 'py> = Transport<'a, 'py, Tls>;

impl Kind for Tls {
    const HIGH: Option<i64> = Some(WRITE_HIGH);

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
        std::mem::replace(&mut self.public.objects.lock(py).protocol, protocol)
    }

    fn limits_changed(&mut self) -> FlowChange {
        self.common.flow.grown(self.backlog.len())
    }

    /// Nothing is held back here, but below.
    fn send_held(_: TlsTransport<'_, '_>) -> PyResult<()> {
        Ok(())
    }

    fn set_protocol<'py>(transport: TlsTransport<'_, 'py>, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let buffered = protocol.is_instance(imports::buffered_protocol(transport.py())?)?;
        transport.exchange_protocol(protocol.into(), |tls| tls.buffered_protocol = buffered)
    }
}

impl<'py> TlsTransport<'_, 'py> {
    /// The protocol and the context to call it in, without a lock.
    fn callee(self) -> PyResult<(Owned, Owned)> {
        let py = self.py();
        // SAFETY: alive in `public.objects`.
        self.with(|tls| unsafe { (Owned::borrow(tls.common.protocol), tls.common.context.clone_ref(py)) })
    }

    fn phase(self) -> PyResult<Phase> {
        self.with(|tls| tls.phase)
    }

    /// The transport below, while there is one.
    fn below(self) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py();
        let below = self.with(|tls| tls.below.as_ref().map(|below| below.transport.clone_ref(py)))?;
        Ok(below.map(|below| below.into_bound(py)))
    }

    /// Has the engine again, unless the connection ended meanwhile: then the engine goes. Whether something came for it while it was away.
    #[inline]
    fn take_back(self, engine: Box<DynEngine>) -> PyResult<bool> {
        let (over, missed) = self.with(|tls| {
            if tls.phase == Phase::Over {
                return (Some(engine), false);
            }
            tls.engine = Some(engine);
            (None, std::mem::take(&mut tls.missed))
        })?;
        drop(over);
        Ok(missed)
    }

    /// Lends the engine, the input and memory for output to `call`, and sends what comes out, also after a failure.
    fn drive<R>(
        self,
        input: &mut &[u8],
        call: impl FnOnce(&mut DynEngine, &mut Wire<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        let Some(engine) = self.with(|tls| tls.engine.take())? else {
            return Err(PyRuntimeError::new_err(
                "the TLS connection is in use: called from one of its own callbacks",
            ));
        };
        let mut wire = Wire { input, output: OUTPUT.take() };
        let mut lent = Away { transport: self, engine: ManuallyDrop::new(engine) };
        panic::point("tls");
        let result = call(&mut **lent.engine, &mut wire);
        let Wire { input: rest, mut output } = wire;
        *input = rest;
        if lent.bring_back()? {
            // In a turn of its own: the engine's present user is in the middle of a call.
            self.schedule("_flush")?;
        }
        let sent = if output.is_empty() { Ok(()) } else { self.send_below(&output) };
        output.clear();
        if output.capacity() <= OUTPUT_KEPT {
            OUTPUT.set(output);
        }
        match (result, sent) {
            (Ok(result), sent) => sent.map(|()| result),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(other)) => {
                other.write_unraisable(self.py(), Some(self.object));
                Err(error)
            }
        }
    }
}

/// An engine that is out of its transport for a call, and comes back when this is dropped.
struct Away<'a, 'py> {
    transport: TlsTransport<'a, 'py>,
    engine: ManuallyDrop<Box<DynEngine>>,
}

impl Away<'_, '_> {
    /// The way out except for a panic. Returns whether a call came for the engine while it was in use.
    #[inline]
    fn bring_back(self) -> PyResult<bool> {
        let mut away = ManuallyDrop::new(self);
        // SAFETY: taken once: `drop`, which takes it too, does not run any more.
        away.transport.take_back(unsafe { ManuallyDrop::take(&mut away.engine) })
    }
}

impl Drop for Away<'_, '_> {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: taken once: this runs where `bring_back` does not.
        let engine = unsafe { ManuallyDrop::take(&mut self.engine) };
        // Fails only where the process has forked meanwhile, whose copy of the connection is not used.
        let _ = self.transport.take_back(engine);
    }
}

/// The most memory that a thread keeps for output between calls, in bytes.
const OUTPUT_KEPT: usize = 1024 * 1024;

thread_local! {
    /// Memory for output, lent to one engine after the other.
    static OUTPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
