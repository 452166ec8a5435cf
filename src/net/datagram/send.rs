//! From the protocol to the kernel.
//!
//! A datagram is sent at once. While a batch is being delivered the transport is corked: what is sent meanwhile leaves with one
//! call when the batch is done, or when there is as much as one call takes. What the kernel does not take waits until the
//! driver reports that it does.

use std::io;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::queue::{Outgoing, To};
use super::{Datagram, Peer, Phase, Transport};
use crate::event_loop::endpoint::with_driver;
use crate::net::transport::flow::Caller;
use crate::net::transport::loop_of;
use crate::proto::flow::FlowChange;
use crate::py::errors::{both, os_error};
use crate::py::names::names;
use crate::py::{Owned, buffer, bytes, derived, imports};
use crate::sys;
use crate::sys::datagram::{MAX_SEND, Name};

/// From this many sends into a lost transport on, each is logged; asyncio counts the loss itself as the first.
const LOG_LOST_WRITES: u32 = 5;

/// What became of an attempt.
pub(super) enum Sent {
    Gone,
    /// It must wait.
    Refused,
    Failed(io::Error),
    /// Corked, and as much has gathered as one call takes.
    Gathered,
}

/// The way of nearly every datagram: exact `bytes`, from an open transport with nothing in its way, to a plain address, on the
/// loop's thread. None when that does not hold and nothing was done.
///
/// # Safety
/// Attached; `object` is a transport; `data` is exact `bytes`; `to` is alive or null.
#[inline]
pub(super) unsafe fn send_at_once(
    object: *mut ffi::PyObject,
    data: *mut ffi::PyObject,
    to: *mut ffi::PyObject,
) -> Option<Sent> {
    // SAFETY: the loop is set for the transport's life; the rest is touched only if this thread owns the loop.
    unsafe {
        let event_loop = loop_of::<Datagram>(object);
        if !event_loop.shared.is_mine() {
            return None;
        }
        let state = &mut *derived::state_of::<Datagram>(object);
        if state.life.phase != Phase::Open || state.blocked {
            return None;
        }
        let (corked, token) = (state.corked, state.life.token?);
        let to = plain_target(state, to)?;
        if corked {
            let to = to.map_or(To::Peer, |name| To::Name(*name));
            state.queue.push(Outgoing { data: Owned::borrow(data), to });
            return Some(if state.queue.len() < MAX_SEND { Sent::Gone } else { Sent::Gathered });
        }
        let driver = event_loop.core_mut().driver.as_mut()?;
        Some(match driver.send_datagram(token, bytes::contents_raw(data), to) {
            Ok(Some(())) => Sent::Gone,
            Ok(None) => Sent::Refused,
            Err(error) => Sent::Failed(error),
        })
    }
}

/// Where a datagram goes, if that takes no Python to find out: None within for the connected peer.
///
/// # Safety
/// Attached; `to` is alive or null.
#[inline]
unsafe fn plain_target(state: &mut Datagram, to: *mut ffi::PyObject) -> Option<Option<&Name>> {
    // SAFETY: None lives forever.
    let unnamed = to.is_null() || to == unsafe { ffi::Py_None() };
    if let Some(remote) = &state.remote {
        if !unnamed && to != remote.object.as_ptr() {
            return None;
        }
        return if state.peer == Peer::Named { Some(None) } else { remote.name.as_ref().map(Some) };
    }
    if state.peer == Peer::Named || (unnamed && state.peer == Peer::Unnamed) {
        // As asyncio: an address given to a socket that was connected by its maker is not looked at.
        return Some(None);
    }
    if unnamed {
        return None;
    }
    // SAFETY: promised by the caller.
    unsafe { state.addresses.target(state.family, to).map(Some) }
}

fn is_refusal(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}

impl<'py> Transport<'_, 'py> {
    /// Sends a datagram, whatever it is and wherever it goes.
    pub(super) fn send_to(self, data: &Bound<'py, PyAny>, to: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let accepted = data.is_instance_of::<PyBytes>()
            || data.is_instance_of::<PyByteArray>()
            || data.is_instance_of::<PyMemoryView>();
        if !accepted {
            return Err(PyTypeError::new_err(format!(
                "data argument must be a bytes-like object, not {}",
                data.get_type().name()?.repr()?
            )));
        }
        let py = self.py();
        let to = to.filter(|to| !to.is_none());
        let remote = self.with(|state| state.remote.as_ref().map(|remote| remote.object.clone_ref(py)))?;
        if let Some(remote) = &remote
            && let Some(to) = to
        {
            let remote = remote.bind(py);
            if !to.is(remote) && !to.eq(remote)? {
                let text = format!("Invalid address: must be None or {}", remote.str()?);
                return Err(PyValueError::new_err(text));
            }
        }
        let (lost, log) = self.with(|state| {
            // As asyncio: with an address for each datagram it sends until the socket is closed.
            let closed = state.public.marks.fd.load(std::sync::atomic::Ordering::Relaxed) < 0;
            let lost = closed || (state.life.is_over() && state.remote.is_some());
            state.life.lost_writes += u32::from(lost);
            (lost, state.life.lost_writes >= LOG_LOST_WRITES)
        })?;
        if lost {
            if log {
                imports::logger(py)?.call_method1("warning", ("socket.send() raised exception.",))?;
            }
            return Ok(());
        }
        let given = to.cloned();
        let to = self.target(to)?;
        if data.is_exact_instance_of::<PyBytes>() {
            // SAFETY: just checked.
            let bytes = unsafe { data.cast_unchecked::<PyBytes>() };
            let sent = self.attempt(bytes.as_bytes(), &to)?;
            return self.deal_with(sent, data, to);
        }
        match buffer::with_bytes(data, |bytes| self.attempt(bytes, &to)) {
            Ok(sent) => self.deal_with(sent?, data, to),
            // A memoryview with gaps: flattened by a copy.
            Err(_) => self.send_to(&data.call_method0("tobytes")?, given.as_ref()),
        }
    }

    /// Where a datagram goes, in whatever form.
    fn target(self, to: Option<&Bound<'py, PyAny>>) -> PyResult<To> {
        let py = self.py();
        let pointer = to.map_or(std::ptr::null_mut(), Bound::as_ptr);
        let (target, former) = self.with(|state| {
            if let Some(remote) = &state.remote {
                let target = match &remote.name {
                    _ if state.peer == Peer::Named => To::Peer,
                    Some(name) => To::Name(*name),
                    None => To::Python(remote.object.clone_ref(py)),
                };
                return (target, None);
            }
            let former = state.addresses.take_target_but(pointer);
            // SAFETY: attached and alive.
            let target = match unsafe { plain_target(state, pointer) } {
                Some(None) => To::Peer,
                Some(Some(name)) => To::Name(*name),
                None => To::Python(to.map_or_else(|| py.None().into_bound(py).into(), Owned::from)),
            };
            (target, former)
        })?;
        drop(former);
        Ok(target)
    }

    /// Tries to send at once. Calls no Python: the bytes may be a view that is held meanwhile.
    fn attempt(self, data: &[u8], to: &To) -> PyResult<Sent> {
        let to = match to {
            To::Peer => None,
            To::Name(name) => Some(name),
            To::Python(_) => return Ok(Sent::Refused),
        };
        let (waits, token, fd) = self.with(|state| {
            let waits = state.blocked || state.corked || !state.queue.is_empty();
            (waits, state.life.token, state.public.marks.fd.load(std::sync::atomic::Ordering::Relaxed))
        })?;
        if waits {
            return Ok(Sent::Refused);
        }
        let sent = match token {
            Some(token) => with_driver(&self.event_loop(), |driver| driver.send_datagram(token, data, to))?,
            // Lost, but not closed: a refused datagram does not wait any more.
            None => match sys::datagram::send(fd, data, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(())),
                other => other.map(Some),
            },
        };
        Ok(match sent {
            Ok(Some(())) => Sent::Gone,
            Ok(None) => {
                self.with(|state| state.blocked = true)?;
                Sent::Refused
            }
            Err(error) => Sent::Failed(error),
        })
    }

    /// Goes on after an attempt that [`send_at_once`] made with exact `bytes`.
    pub(super) fn after_attempt(
        self,
        sent: Sent,
        data: &Bound<'py, PyAny>,
        to: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        if let Sent::Refused = sent {
            self.with(|state| state.blocked = true)?;
        }
        let to = self.target(to)?;
        self.deal_with(sent, data, to)
    }

    fn deal_with(self, sent: Sent, data: &Bound<'py, PyAny>, to: To) -> PyResult<()> {
        match sent {
            Sent::Gone => Ok(()),
            Sent::Gathered => self.flush(),
            Sent::Failed(error) => self.error_received(os_error(error)),
            Sent::Refused => match to {
                To::Python(to) if self.with(|state| state.queue.is_empty() && !state.blocked)? => {
                    self.send_by_python(data, to)
                }
                to => self.enqueue(data, to),
            },
        }
    }

    /// Queues data that must wait, as immutable `bytes`.
    fn enqueue(self, data: &Bound<'py, PyAny>, to: To) -> PyResult<()> {
        let py = self.py();
        let data: Owned = if data.is_exact_instance_of::<PyBytes>() {
            data.into()
        } else {
            buffer::with_bytes(data, |bytes| PyBytes::new(py, bytes))?.into()
        };
        let (waits, change) = self.with(|state| {
            state.queue.push(Outgoing { data, to });
            // What is only corked was not refused yet.
            let waits = state.blocked || (state.corked && state.queue.len() < MAX_SEND);
            (waits, if state.blocked { state.grown() } else { FlowChange::None })
        })?;
        self.tell(change, Caller::User)?;
        if waits { Ok(()) } else { self.flush() }
    }

    /// Lets Python's socket make sense of the address. Names are resolved, which blocks, as in asyncio.
    fn send_by_python(self, data: &Bound<'py, PyAny>, to: Owned) -> PyResult<()> {
        let py = self.py();
        let Err(error) = self.sock().call_method1(names().sendto.bind(py), (data, to.bind(py))) else {
            return Ok(());
        };
        if is_refusal(py, &error) {
            if !self.await_writable()? {
                return Ok(());
            }
            return self.enqueue(data, To::Python(to));
        }
        self.python_failed(error)
    }

    fn python_failed(self, error: PyErr) -> PyResult<()> {
        if error.is_instance_of::<PyOSError>(self.py()) {
            return self.error_received(error);
        }
        self.fatal(error, "Fatal write error on datagram transport")
    }

    /// Waits until the kernel takes more; false when the transport has left the driver.
    fn await_writable(self) -> PyResult<bool> {
        let Some(token) = self.with(|state| {
            state.blocked = state.life.token.is_some();
            state.life.token
        })?
        else {
            return Ok(false);
        };
        match with_driver(&self.event_loop(), |driver| driver.await_writable(token))? {
            Ok(()) => Ok(true),
            Err(error) => Err(os_error(error)),
        }
    }

    /// A batch is delivered: what was sent meanwhile leaves.
    pub(super) fn uncork(self) -> PyResult<()> {
        let waits = self.with(|state| {
            state.corked = false;
            !state.queue.is_empty() && !state.blocked
        })?;
        if waits { self.flush() } else { Ok(()) }
    }

    /// Sends what is queued, until the kernel refuses. An error that leaves the run on the way does so after that: nothing else would
    /// send the rest.
    pub(super) fn flush(self) -> PyResult<()> {
        let mut told = Ok(());
        loop {
            let (goes_on, result) = match self.flush_some()? {
                Flushed::Some => continue,
                Flushed::Refused => {
                    let change = self.with(Datagram::grown)?;
                    (false, self.tell(change, Caller::User))
                }
                Flushed::Failed(error) => {
                    let told = self.error_received(os_error(error));
                    (true, self.reported(told, "error_received").map_err(PyErr::from))
                }
                Flushed::Python(datagram) => self.flush_by_python(datagram)?,
                Flushed::All => break,
            };
            told = both(told, result, self.object);
            if !goes_on {
                break;
            }
        }
        let (change, empty, draining) = self.with(|state| {
            let change = state.shrunk();
            // As asyncio: of a transport that has ended on the way the protocol hears no more but that.
            let over = state.life.is_over();
            (
                if over { FlowChange::None } else { change },
                state.queue.is_empty(),
                state.life.phase == Phase::Draining,
            )
        })?;
        let told = both(told, self.tell(change, Caller::User), self.object);
        // The end comes with the last of it, whatever the protocol has raised.
        if empty && draining { both(told, self.lose(None), self.object) } else { told }
    }

    fn flush_some(self) -> PyResult<Flushed> {
        let event_loop = self.event_loop();
        let mut done = Vec::new();
        let flushed = event_loop.get().with(self.py(), |core| {
            // SAFETY: the same claim covers the loop's core and its transports; two different objects.
            let state = unsafe { &mut *derived::state_of::<Datagram>(self.object.as_ptr()) };
            let (Some(driver), Some(token)) = (core.driver.as_mut(), state.life.token) else {
                return Flushed::All;
            };
            if state.blocked {
                return Flushed::Refused;
            }
            if state.queue.is_empty() {
                driver.rest_writing(token);
                return Flushed::All;
            }
            let sent = state.queue.with_first(|first| match first {
                [] => None,
                [(data, to)] => Some(driver.send_datagram(token, data, *to).map(|sent| sent.map(|()| 1))),
                several => Some(driver.send_datagrams(token, several)),
            });
            match sent {
                None => state.queue.pop().map_or(Flushed::All, Flushed::Python),
                Some(Ok(Some(count))) => {
                    done.extend((0..count).filter_map(|_| state.queue.pop()));
                    Flushed::Some
                }
                Some(Ok(None)) => {
                    state.blocked = true;
                    Flushed::Refused
                }
                Some(Err(error)) => {
                    done.extend(state.queue.pop());
                    Flushed::Failed(error)
                }
            }
        })?;
        drop(done);
        Ok(flushed)
    }

    /// Sends the first one through Python's socket; false when the kernel refuses. Also returns the result of the protocol's callback.
    fn flush_by_python(self, datagram: Outgoing) -> PyResult<(bool, PyResult<()>)> {
        let py = self.py();
        let To::Python(to) = &datagram.to else { return Ok((true, Ok(()))) };
        let arguments = (datagram.data.bind(py), to.bind(py));
        let Err(error) = self.sock().call_method1(names().sendto.bind(py), arguments) else {
            return Ok((true, Ok(())));
        };
        if is_refusal(py, &error) {
            if !self.await_writable()? {
                return Ok((false, Ok(())));
            }
            let change = self.with(|state| {
                state.queue.unpop(datagram);
                state.grown()
            })?;
            return Ok((false, self.tell(change, Caller::User)));
        }
        let told = self.python_failed(error);
        Ok((true, self.reported(told, "error_received").map_err(PyErr::from)))
    }
}

impl Datagram {
    /// Publishes the queue's size, which has grown.
    pub(super) fn grown(&mut self) -> FlowChange {
        self.public.marks.buffered.store(self.queue.size(), std::sync::atomic::Ordering::Relaxed);
        self.common.flow.grown(self.queue.size())
    }

    /// Publishes the queue's size, which has shrunk.
    pub(super) fn shrunk(&mut self) -> FlowChange {
        self.public.marks.buffered.store(self.queue.size(), std::sync::atomic::Ordering::Relaxed);
        self.common.flow.shrunk(self.queue.size())
    }
}

/// One step of a flush.
enum Flushed {
    /// There may be more.
    Some,
    All,
    Refused,
    /// The first one failed and is gone.
    Failed(io::Error),
    /// The first one, for Python's socket.
    Python(Outgoing),
}
