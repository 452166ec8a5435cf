//! From the protocol to the kernel.
//!
//! A turn's first write is tried at once. Small ones that follow in the same turn are held in the queue and sent together at its end: one
//! system call for all. What the kernel does not take is queued, and the driver reports when it takes more.

use std::io::{self, IoSlice};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::{Chunk, Kind, Phase, Stream, Transport};
use crate::event_loop::core::AtEnd;
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::{Endpoint, with_driver};
use crate::event_loop::report::{OrReport, Report};
use crate::net::transport::flow::Caller;
use crate::net::transport::loop_of;
use crate::proto::write_queue::MAX_SLICES;
use crate::py::buffer::{self, BufferView};
use crate::py::errors::{both, os_error};
use crate::py::fatal::OrFatal;
use crate::py::{derived, imports};
use crate::sys;

/// From this many writes into a lost connection on, each is logged.
pub const LOG_LOST_WRITES: u32 = 5;

/// The longest piece that is held back, in bytes: for longer ones the cost of a system call of their own is small.
const HELD_PIECE: usize = 16 * 1024;

/// When so much is held, in bytes, it does not wait for the turn's end.
const HELD_MOST: usize = 64 * 1024;

/// A piece of `writelines`, as the caller gave it: `bytes` are kept, what may change is copied if it must wait.
pub enum Data<'py> {
    Bytes(Bound<'py, PyBytes>),
    View(BufferView),
}

impl<'py> Data<'py> {
    pub fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Ok(Data::Bytes(bytes.clone()));
        }
        check_type(object)?;
        match BufferView::readable(object) {
            Ok(view) => Ok(Data::View(view)),
            // A memoryview with gaps: flattened by a copy.
            Err(_) => Ok(Data::Bytes(object.call_method0("tobytes")?.cast_into()?)),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::Bytes(bytes) => bytes.as_bytes(),
            Data::View(view) => view.bytes(),
        }
    }

    /// What is left after `sent` bytes, to be kept, and how much of the kept object is gone already.
    pub fn keep(&self, py: Python<'py>, sent: usize) -> (Chunk, usize) {
        match self {
            Data::Bytes(bytes) => (Chunk::Bytes(bytes.into()), sent),
            Data::View(view) => (Chunk::Bytes((&PyBytes::new(py, &view.bytes()[sent..])).into()), 0),
        }
    }
}

fn check_type(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let accepted = object.is_instance_of::<PyBytes>()
        || object.is_instance_of::<PyByteArray>()
        || object.is_instance_of::<PyMemoryView>();
    if accepted {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "data argument must be a bytes, bytearray, or memoryview object, not {}",
        object.get_type().name()?.repr()?
    )))
}

/// The way of nearly every write: an open transport with nothing queued, on its loop's thread. None when that does not hold
/// and nothing was done.
///
/// # Safety
/// Attached; `object` is a transport.
#[inline]
pub(super) unsafe fn send_at_once(object: *mut pyo3::ffi::PyObject, data: &[u8]) -> Option<Sent> {
    // SAFETY: the loop is set for the transport's life; the rest is touched only if this thread owns the loop.
    unsafe {
        let stream = derived::state_of::<Stream>(object);
        let event_loop = loop_of::<Stream>(object);
        if !event_loop.shared.is_mine() || data.is_empty() {
            return None;
        }
        let stream = &mut *stream;
        if stream.life.phase != Phase::Open
            || stream.eof_requested
            || stream.sender.is_some()
            || !stream.queue.is_empty()
        {
            return None;
        }
        let core = event_loop.core_mut();
        if std::mem::replace(&mut stream.written_in, core.counters.turns) == core.counters.turns
            && data.len() <= HELD_PIECE
        {
            return None;
        }
        let driver = core.driver.as_mut()?;
        Some(match driver.send(stream.life.token?, data) {
            Ok(sent) if sent == data.len() => Sent::All,
            Ok(sent) => Sent::Rest(sent),
            Err(error) => Sent::Failed(error),
        })
    }
}

/// Sends bytes of a protocol written in Rust; what must wait is copied.
pub fn send(object: &Bound<'_, PyAny>, data: &[u8]) -> PyResult<()> {
    let transport = Transport::new(object);
    // SAFETY: attached, and a transport.
    let sent = match unsafe { send_at_once(object.as_ptr(), data) } {
        Some(Sent::All) => return Ok(()),
        Some(sent) => sent,
        None => transport.try_send(data)?,
    };
    match sent {
        Sent::Rest(sent) => transport.enqueue(Chunk::Copied(data[sent..].into()), 0),
        done => transport.after_write(done),
    }
}

/// What became of a piece.
pub(super) enum Sent {
    /// All of it is gone (or there was nothing to do).
    All,
    /// The kernel took so many bytes; the rest must wait.
    Rest(usize),
    /// The connection is lost: the time for connection_lost().
    Lost,
    Failed(io::Error),
}

/// What a write finds.
enum Gate {
    Send,
    /// Until the turn's end, with what else comes.
    Hold,
    Queue,
    Ignore,
    Log,
}

/// The turn is over.
fn flush_held(on: OnLoop<'_, '_>, object: &Bound<'_, PyAny>) -> OrFatal {
    let report = || Report::new("Exception at a turn's end").transport(object);
    let transport = Transport::new(object);
    // There is no caller any more, so the protocol's callbacks run in the transport's context.
    let flushed = transport.inside(|| transport.flush_held());
    flushed.or_report(on.event_loop(), report).map(drop)
}

impl<'py> Transport<'_, 'py> {
    /// Sends one piece. Exact `bytes` are looked at in place and kept if they must wait; what may change afterwards is
    /// copied then.
    pub(super) fn write(self, object: &Bound<'py, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return self.write_bytes(bytes, self.try_send(bytes.as_bytes())?);
        }
        check_type(object)?;
        let py = self.py();
        let outcome = buffer::with_bytes(object, |data| {
            let outcome = self.try_send(data)?;
            let rest = match outcome {
                Sent::Rest(sent) => Some(Chunk::Bytes((&PyBytes::new(py, &data[sent..])).into())),
                _ => None,
            };
            Ok::<_, PyErr>((outcome, rest))
        });
        match outcome {
            Ok(Ok((_, Some(rest)))) => self.enqueue(rest, 0),
            Ok(Ok((done, None))) => self.after_write(done),
            Ok(Err(error)) => Err(error),
            // A memoryview with gaps: flattened by a copy.
            Err(_) => self.write(&object.call_method0("tobytes")?),
        }
    }

    /// Goes on after an attempt to send exact `bytes`.
    pub(super) fn write_bytes(self, bytes: &Bound<'py, PyBytes>, sent: Sent) -> PyResult<()> {
        match sent {
            Sent::Rest(sent) => self.enqueue(Chunk::Bytes(bytes.into()), sent),
            done => self.after_write(done),
        }
    }

    /// Tries to send at once. Calls no Python: the bytes may be a view that is held meanwhile.
    fn try_send(self, data: &[u8]) -> PyResult<Sent> {
        match self.gate(data.len(), "write")? {
            Gate::Ignore => Ok(Sent::All),
            Gate::Log => Ok(Sent::Lost),
            Gate::Queue | Gate::Hold => Ok(Sent::Rest(0)),
            Gate::Send => Ok(match self.send(|driver, token| driver.send(token, data))? {
                Ok(sent) if sent == data.len() => Sent::All,
                Ok(sent) => Sent::Rest(sent),
                Err(error) => Sent::Failed(error),
            }),
        }
    }

    fn after_write(self, sent: Sent) -> PyResult<()> {
        match sent {
            Sent::Lost => self.log_lost_write(),
            Sent::Failed(error) => self.fatal(os_error(error), self.kind().write_failed()),
            Sent::All | Sent::Rest(_) => Ok(()),
        }
    }

    /// Sends several pieces with as few system calls as they fit in.
    pub(super) fn writelines(self, lines: &Bound<'py, PyAny>) -> PyResult<()> {
        let mut pieces = Vec::new();
        for line in lines.try_iter()? {
            let data = Data::new(&line?)?;
            if !data.bytes().is_empty() {
                pieces.push(data);
            }
        }
        let len = pieces.iter().map(|piece| piece.bytes().len()).sum();
        match self.gate(len, "writelines")? {
            Gate::Ignore => return Ok(()),
            Gate::Log => return self.log_lost_write(),
            Gate::Queue | Gate::Hold => {}
            Gate::Send => {
                let slices: Vec<_> =
                    pieces.iter().take(MAX_SLICES).map(|piece| IoSlice::new(piece.bytes())).collect();
                match self.send(|driver, token| driver.send_vectored(token, &slices))? {
                    Ok(sent) => return self.enqueue_rest(&pieces, sent),
                    Err(error) => {
                        return self.fatal(os_error(error), self.kind().write_failed());
                    }
                }
            }
        }
        self.enqueue_rest(&pieces, 0)
    }

    fn enqueue_rest(self, pieces: &[Data<'py>], mut sent: usize) -> PyResult<()> {
        let py = self.py();
        let mut rest = Vec::new();
        for piece in pieces {
            let len = piece.bytes().len();
            if sent < len {
                rest.push(piece.keep(py, sent));
                sent = 0;
            } else {
                sent -= len;
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        let flush_now = self.with(|stream| {
            // More pieces than one call takes, and the kernel took all of those: nothing will report `Writable`.
            let flush_now = stream.queue.is_empty() && sent == 0 && pieces.len() > MAX_SLICES;
            for (chunk, gone) in rest {
                stream.queue.push(chunk, gone);
            }
            flush_now
        })?;
        self.queued(flush_now)
    }

    fn enqueue(self, chunk: Chunk, sent: usize) -> PyResult<()> {
        self.with(|stream| stream.queue.push(chunk, sent))?;
        self.queued(false)
    }

    /// Something was put into the queue: sends it where there is reason to, and calls pause_writing() above the high mark.
    fn queued(self, flush_now: bool) -> PyResult<()> {
        let full = self.with(|stream| {
            stream.publish_size();
            let (_, high) = stream.common.flow.limits();
            stream.held && stream.queue.len() >= HELD_MOST.min(high)
        })?;
        if full {
            self.flush()?;
        }
        let change = self.with(|stream| stream.common.flow.grown(stream.queue.len()))?;
        self.keep_or_rest()?;
        let told = self.tell(change, Caller::User);
        // No other code would, whatever the protocol has raised.
        if flush_now { both(told, self.flush(), self.object) } else { told }
    }

    /// Sends what is held, now.
    pub(super) fn flush_held(self) -> PyResult<()> {
        if self.with(|stream| std::mem::take(&mut stream.held))? { self.flush() } else { Ok(()) }
    }

    /// What is to become of so many bytes, now.
    fn gate(self, len: usize, method: &str) -> PyResult<Gate> {
        let lp = self.event_loop();
        let runs = lp.get().shared.is_mine();
        let (eof, sending, gate) = lp.get().with(self.py(), |core| {
            // SAFETY: the same claim covers the loop's core and its transports; two different objects.
            let stream = unsafe { &mut *derived::state_of::<Stream>(self.object.as_ptr()) };
            // The end of a pipe takes nothing more once it is closing.
            let over = match stream.kind {
                Kind::Socket => matches!(stream.life.phase, Phase::Lost | Phase::Closed),
                _ => stream.life.phase != Phase::Open,
            };
            let gate = if stream.eof_requested || stream.sender.is_some() || len == 0 {
                Gate::Ignore
            } else if over {
                stream.life.lost_writes += 1;
                if stream.life.lost_writes > LOG_LOST_WRITES { Gate::Log } else { Gate::Ignore }
            } else if !stream.queue.is_empty() {
                Gate::Queue
            } else if runs
                && stream.kind == Kind::Socket
                && std::mem::replace(&mut stream.written_in, core.counters.turns) == core.counters.turns
                && len <= HELD_PIECE
            {
                if !std::mem::replace(&mut stream.held, true) {
                    core.at_end.push_back(AtEnd { call: flush_held, object: self.object.into() });
                }
                Gate::Hold
            } else {
                Gate::Send
            };
            (stream.eof_requested, stream.sender.is_some(), gate)
        })?;
        if eof {
            return Err(PyRuntimeError::new_err(format!("Cannot call {method}() after write_eof()")));
        }
        if sending {
            return Err(PyRuntimeError::new_err(format!("unable to {method}; sendfile is in progress")));
        }
        Ok(gate)
    }

    fn log_lost_write(self) -> PyResult<()> {
        let text = match self.kind() {
            Kind::Socket => "socket.send() raised exception.",
            _ => "pipe closed by peer or os.write(pipe, data) raised exception.",
        };
        imports::logger(self.py())?.call_method1("warning", (text,)).map(drop)
    }

    fn send(
        self,
        call: impl FnOnce(&mut crate::driver::Driver<Endpoint>, crate::driver::Token) -> io::Result<usize>,
    ) -> PyResult<io::Result<usize>> {
        let Some(token) = self.with(|stream| stream.life.token)? else {
            return Ok(Err(io::ErrorKind::NotConnected.into()));
        };
        with_driver(&self.event_loop(), |driver| call(driver, token))
    }

    /// The kernel takes bytes again: sends what is queued. An error that leaves the run on the way does so after that: nothing else would
    /// send the rest, or end what is to end with the last of it.
    pub(super) fn flush(self) -> PyResult<()> {
        let mut told = Ok(());
        while !self.with(|stream| stream.queue.is_empty())? {
            let event_loop = self.event_loop();
            let mut done = Vec::new();
            let result = event_loop.get().with(self.py(), |core| {
                // SAFETY: the same claim covers the loop's core and its transports; two different objects.
                let stream = unsafe { &mut *derived::state_of::<Stream>(self.object.as_ptr()) };
                let (Some(driver), Some(token)) = (core.driver.as_mut(), stream.life.token) else {
                    return Ok((0, 0));
                };
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = stream.queue.slices(&mut slices);
                let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                let sent = driver.send_vectored(token, &slices[..count])?;
                stream.queue.advance(sent, &mut done);
                stream.publish_size();
                Ok::<_, io::Error>((sent, offered))
            })?;
            drop(done);
            let (sent, offered) = match result {
                Ok(counts) => counts,
                Err(error) => {
                    // None of it is to be tried again on the way out.
                    self.with(|stream| stream.held = false)?;
                    let failed = self.fatal(os_error(error), self.kind().write_failed());
                    return both(told, failed, self.object);
                }
            };
            let (change, left) =
                self.with(|stream| (stream.common.flow.shrunk(stream.queue.len()), stream.queue.len()))?;
            told = both(told, self.tell(change, Caller::User), self.object);
            if left == 0 || sent < offered || offered == 0 {
                break;
            }
        }
        both(told, self.after_flush(), self.object)
    }

    pub(super) fn after_flush(self) -> PyResult<()> {
        let (empty, phase, eof, sending) = self.with(|stream| {
            (stream.queue.is_empty(), stream.life.phase, stream.eof_requested, stream.sender.is_some())
        })?;
        if empty {
            self.keep_or_rest()?;
        }
        match phase {
            Phase::Draining if empty => self.lose(None),
            Phase::Open if empty && sending => self.wake_sender(Ok(())),
            Phase::Open if empty && eof => self.shutdown_write(),
            _ => Ok(()),
        }
    }

    /// Half-close once everything queued is sent.
    pub(super) fn write_eof(self) -> PyResult<()> {
        if self.kind() != Kind::Socket {
            return self.close(); // A pipe has no other direction that would stay open.
        }
        let now = self.with(|stream| {
            if stream.life.phase != Phase::Open || stream.eof_requested {
                return false;
            }
            stream.eof_requested = true;
            stream.queue.is_empty() && stream.sender.is_none()
        })?;
        if now { self.shutdown_write() } else { Ok(()) }
    }

    fn shutdown_write(self) -> PyResult<()> {
        let Some(fd) = self.fd() else { return Ok(()) };
        match sys::socket::shutdown_write(fd) {
            Ok(()) => Ok(()),
            // The peer is gone already; reading will show that.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(os_error(error)),
        }
    }
}
