//! What every transport has: the view of its object, what any thread may read of it, flow control, and its end.
//!
//! | room    | what lives there                                                                        |
//! |---------|-----------------------------------------------------------------------------------------|
//! | `flow`  | when the protocol is told to pause and resume writing, and the limits for it             |
//! | `end`   | close, abort, errors, `connection_lost`: of transports that have a descriptor            |
//! | `class` | the Python methods that are the same for all                                             |
//!
//! A transport is a Python object with a state of its [`Kind`] behind it: `stream::Stream`, `datagram::Datagram`, `tls::Tls`. This
//! room knows none of them.
//!
//! Threads: the state belongs to the loop's thread, under the loop's claim. Any thread may read the [`Marks`], which are atomic or set
//! once. No reference to a state is alive across a call into Python.

pub mod class;
pub mod end;
pub mod flow;

use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::event_loop::EventLoop;
use crate::proto::flow::{FlowChange, FlowControl};
use crate::py::derived::{self, State};
use crate::py::{Owned, context};
use crate::sync::quiet::{Quiet, Under};

/// What the loop's thread has of every transport.
pub struct Common {
    /// Borrowed from what any thread may read, where only this thread replaces it: saves the lock.
    pub protocol: *mut ffi::PyObject,
    pub context: Owned,
    pub flow: FlowControl,
}

/// What any thread may read of every transport.
pub struct Marks {
    /// Set once.
    pub event_loop: Owned,
    /// The descriptor; -1 once it is closed, and where there is none.
    pub fd: AtomicI32,
    pub closing: AtomicBool,
    pub paused: AtomicBool,
    pub buffered: AtomicUsize,
    pub low: AtomicUsize,
    pub high: AtomicUsize,
}

// SAFETY: `event_loop` is set once and its count is only changed by attached threads (see `Owned`); the rest is atomic.
unsafe impl Sync for Marks {}

impl Marks {
    pub fn new(event_loop: &Bound<'_, EventLoop>, fd: RawFd, flow: &FlowControl) -> Self {
        let (low, high) = flow.limits();
        Self {
            event_loop: event_loop.into(),
            fd: AtomicI32::new(fd),
            closing: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            buffered: AtomicUsize::new(0),
            low: AtomicUsize::new(low),
            high: AtomicUsize::new(high),
        }
    }
}

/// The state of a transport.
pub trait Kind: State {
    /// asyncio's high-water mark where a program names neither, in bytes; None for that of `FlowControl`.
    const HIGH: Option<i64> = None;

    fn common(&mut self) -> &mut Common;
    fn marks(public: &Self::Public) -> &Marks;
    fn protocol(public: &Self::Public, py: Python<'_>) -> Owned;
    /// Puts another protocol in its place, and returns the former one, to be dropped when the claim is given back.
    fn replace_protocol(&mut self, py: Python<'_>, protocol: Owned) -> Owned;
    /// What waits to be sent counts against other limits.
    fn limits_changed(&mut self) -> FlowChange;
    /// Sends what was written, and is held back to be sent with more.
    fn send_held(transport: Transport<'_, '_, Self>) -> PyResult<()>;
    /// Gives the connection to another protocol.
    fn set_protocol<'py>(transport: Transport<'_, 'py, Self>, protocol: &Bound<'py, PyAny>) -> PyResult<()>;
}

/// A transport object, and the way to what is behind it.
pub struct Transport<'a, 'py, K> {
    pub object: &'a Bound<'py, PyAny>,
    kind: PhantomData<K>,
}

impl<K> Clone for Transport<'_, '_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Transport<'_, '_, K> {}

impl<'a, 'py, K: Kind> Transport<'a, 'py, K> {
    /// Of an object of the kind.
    #[inline]
    pub fn new(object: &'a Bound<'py, PyAny>) -> Self {
        Self { object, kind: PhantomData }
    }

    #[inline]
    pub fn py(self) -> Python<'py> {
        self.object.py()
    }

    /// Looks at or changes the state. `f` must not call into Python. RuntimeError when another thread runs the loop.
    #[inline]
    pub fn with<R>(self, f: impl FnOnce(&mut K) -> R) -> PyResult<R> {
        // SAFETY: the transport is alive in our hands.
        let lp = unsafe { loop_of::<K>(self.object.as_ptr()) };
        let claim = lp.shared.claim().map_err(|foreign| lp.wrong_thread(self.py(), foreign))?;
        let quiet = Quiet::begin(Under::Claim);
        // SAFETY: claimed, and `f` does not come back here.
        let result = f(unsafe { &mut *derived::state_of::<K>(self.object.as_ptr()) });
        drop((quiet, claim));
        Ok(result)
    }

    #[inline]
    pub fn public<R>(self, f: impl FnOnce(&K::Public) -> R) -> R {
        f(derived::public_of::<K>(self.object.as_ptr()))
    }

    #[inline]
    pub fn marks<R>(self, f: impl FnOnce(&Marks) -> R) -> R {
        self.public(|public| f(K::marks(public)))
    }

    /// The descriptor while it is open. Any thread; it may be closed by the time it is used.
    pub fn fd(self) -> Option<RawFd> {
        let fd = self.marks(|marks| marks.fd.load(Ordering::Relaxed));
        (fd >= 0).then_some(fd)
    }

    /// Takes the descriptor, which is to be closed or left to its maker; None if that was done.
    pub fn take_fd(self) -> Option<RawFd> {
        let fd = self.marks(|marks| marks.fd.swap(-1, Ordering::Relaxed));
        (fd >= 0).then_some(fd)
    }

    pub fn event_loop(self) -> Bound<'py, EventLoop> {
        let py = self.py();
        // SAFETY: what is stored there is a loop.
        self.marks(|marks| unsafe { marks.event_loop.bind(py).cast_unchecked::<EventLoop>().to_owned() })
    }

    pub fn protocol(self) -> Bound<'py, PyAny> {
        let py = self.py();
        self.public(|public| K::protocol(public, py)).into_bound(py)
    }

    pub fn context(self) -> PyResult<Owned> {
        let py = self.py();
        self.with(|state| state.common().context.clone_ref(py))
    }

    /// For what the loop does by itself: in the transport's context. Not inside of a call that a program made.
    pub fn inside<R>(self, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        context::run(self.py(), &self.context()?, call)
    }

    /// The protocol is another from here on; the former one is dropped.
    pub fn exchange_protocol(self, protocol: Owned, also: impl FnOnce(&mut K)) -> PyResult<()> {
        let py = self.py();
        let former = self.with(|state| {
            state.common().protocol = protocol.as_ptr();
            let former = state.replace_protocol(py, protocol);
            also(state);
            former
        })?;
        drop(former);
        Ok(())
    }
}

/// The loop of a transport of the kind, from any thread.
///
/// # Safety
/// `object` is a live transport; the result is not used longer than it.
#[inline]
pub unsafe fn loop_of<'a, K: Kind>(object: *mut ffi::PyObject) -> &'a EventLoop {
    // SAFETY: promised; the transport holds the loop.
    unsafe {
        let py = Python::assume_attached();
        let event_loop = K::marks(derived::public_of::<K>(object)).event_loop.as_ptr();
        let event_loop = pyo3::Borrowed::from_ptr(py, event_loop).cast_unchecked::<EventLoop>();
        let event_loop: *const EventLoop = event_loop.get();
        &*event_loop
    }
}
