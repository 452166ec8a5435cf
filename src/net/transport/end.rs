//! How a transport on a descriptor ends: closed after draining, aborted, broken by an error, or collected. Whatever the way, it leaves the
//! driver in [`lose`](Transport::lose) and nowhere else, and `connection_lost` is called exactly once, in a turn of its own, as the first
//! of [`finish`](Transport::finish)'s steps.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Kind, Transport};
use crate::driver::Token;
use crate::event_loop::endpoint::with_driver;
use crate::event_loop::report::{self, Report};
use crate::event_loop::turn;
use crate::py::derived;
use crate::py::errors::both;
use crate::py::fatal::Fatal;
use crate::py::names::names;

/// Where a transport is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Reads and writes.
    Open,
    /// Closed by its user: what is queued is still sent, nothing is read.
    Draining,
    /// The end is scheduled: `connection_lost` will be called.
    Lost,
    /// `connection_lost` is being called, or was; the descriptor is closed after it.
    Closed,
}

/// Where a transport is in its life, and in the driver.
pub struct Life {
    pub phase: Phase,
    pub token: Option<Token>,
    /// Writes since the connection was lost.
    pub lost_writes: u32,
}

impl Life {
    pub fn new() -> Self {
        Self { phase: Phase::Open, token: None, lost_writes: 0 }
    }

    pub fn is_over(&self) -> bool {
        self.phase >= Phase::Lost
    }
}

/// A kind that has a descriptor in the driver.
pub trait Ends: Kind {
    fn life(&mut self) -> &mut Life;
    /// Whether nothing waits to be sent.
    fn is_drained(&self) -> bool;
    /// Empties the queue, for the caller to drop, and marks that.
    fn take_queue(&mut self) -> impl Sized + use<Self>;
    /// Whether an error says no more than that the peer is gone, which is told to the protocol only.
    fn is_quiet(transport: Transport<'_, '_, Self>, error: &PyErr) -> bool;
    /// Tells the driver what to do with what comes in.
    fn apply_read_mode(transport: Transport<'_, '_, Self>) -> PyResult<()>;
    /// Closes the descriptor, by its Python object if there is one; once, since it is [taken](Transport::take_fd) first.
    fn close_descriptor(transport: Transport<'_, '_, Self>) -> PyResult<()>;
    /// Further steps of the end: after the descriptor is closed, and after the protocol is released.
    const AFTER_CLOSE: Step<Self>;
    const LAST: Step<Self>;
}

/// One thing that is done at the end; it gets what `connection_lost` got.
pub type Step<K> = for<'a, 'py> fn(Transport<'a, 'py, K>, &Bound<'py, PyAny>) -> PyResult<()>;

/// A step of a kind that has nothing to do there.
pub fn nothing<K>(_: Transport<'_, '_, K>, _: &Bound<'_, PyAny>) -> PyResult<()> {
    Ok(())
}

impl<'py, K: Ends> Transport<'_, 'py, K> {
    /// Reads no more, sends what is queued, then ends.
    pub fn close(self) -> PyResult<()> {
        self.event_loop().get().check_open()?;
        // Whether anything has to wait decides what becomes of later writes.
        let sent = K::send_held(self);
        let (was_open, drained) = self.with(|state| {
            let life = state.life();
            let was_open = life.phase == Phase::Open;
            if was_open {
                life.phase = Phase::Draining;
            }
            (was_open, state.is_drained())
        })?;
        if !was_open {
            return sent;
        }
        self.marks(|marks| marks.closing.store(true, Ordering::Relaxed));
        let ended = if drained { self.lose(None) } else { K::apply_read_mode(self) };
        both(sent, ended, self.object)
    }

    /// Ends at once; what the kernel did not take is thrown away.
    pub fn abort(self) -> PyResult<()> {
        self.lose(None)
    }

    /// Ends with an error, reported where it says more than that the peer is gone.
    pub fn fatal(self, error: PyErr, message: &'static str) -> PyResult<()> {
        let py = self.py();
        let error = Fatal::split(py, error)?;
        let sent = K::send_held(self);
        let quiet = K::is_quiet(self, &error);
        let event_loop = self.event_loop();
        let value = error.into_value(py).into_bound(py).into_any();
        let reported = if quiet {
            report::log(&event_loop, self.object, message, &value)
        } else {
            let report = Report::new(message).error(PyErr::from_value(value.clone()));
            report.transport(self.object).protocol(self.protocol()).send(&event_loop).map_err(PyErr::from)
        };
        // What leaves the run from the handler finds the transport ended.
        let lost = both(reported, self.lose(Some(&value)), self.object);
        both(sent, lost, self.object)
    }

    /// Leaves the driver and schedules `connection_lost(error)`, unless that was done already. What was written counts as sent:
    /// the kernel gets what is held, and only what it does not take is thrown away.
    pub fn lose(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let event_loop = self.event_loop();
        event_loop.get().check_open()?;
        // An error of that leaves the run, but the end comes first.
        let sent = K::send_held(self);
        let left = self.with(|state| {
            if state.life().is_over() {
                return None;
            }
            state.life().phase = Phase::Lost;
            Some((state.life().token.take(), state.take_queue()))
        })?;
        let Some((token, queue)) = left else { return sent };
        self.marks(|marks| marks.closing.store(true, Ordering::Relaxed));
        drop(queue);
        if let Some(token) = token {
            // Our reference keeps the transport: the driver's is dropped here.
            drop(with_driver(&event_loop, |driver| driver.deregister(token))?);
        }
        let callback = self.object.getattr("_call_connection_lost")?;
        let argument = error.cloned().unwrap_or_else(|| py.None().into_bound(py));
        let context = self.context()?;
        let arguments = PyTuple::new(py, [argument])?;
        let handle =
            event_loop.get().make_handle(&event_loop, &callback, &arguments, Some(&context.bind(py)))?;
        both(sent, turn::schedule(py, event_loop.get(), handle), self.object)
    }

    /// The scheduled end. Each step is made even if one before it has failed: a waiter for the end waits for all of them.
    pub fn finish(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.with(|state| std::mem::replace(&mut state.life().phase, Phase::Closed))? == Phase::Closed {
            return Ok(());
        }
        let steps: [Step<K>; 5] = [
            // Until then the descriptor is open: asyncio's order.
            |transport, error| {
                let name = names().connection_lost.bind(transport.py());
                transport.protocol().call_method1(name, (error,)).map(drop)
            },
            |transport, _| K::close_descriptor(transport),
            K::AFTER_CLOSE,
            |transport, _| transport.let_go_of_protocol(),
            K::LAST,
        ];
        let mut done = Ok(());
        for step in steps {
            done = both(done, step(self, error), self.object);
        }
        done
    }

    /// A protocol most often keeps its transport; so it is not kept in turn, as in asyncio: otherwise only the collector, which stops
    /// every thread, could release the two.
    fn let_go_of_protocol(self) -> PyResult<()> {
        self.exchange_protocol(self.py().None().into_bound(self.py()).into(), |_| {})
    }

    /// A transport that never came to life leaves the descriptor to its maker.
    pub fn give_up(self) -> PyResult<()> {
        self.with(|state| state.life().phase = Phase::Closed)?;
        self.marks(|marks| marks.closing.store(true, Ordering::Relaxed));
        self.take_fd();
        Ok(())
    }
}

/// The end of a transport without references, in whichever thread: `release` closes the descriptor and leaves the driver. As in asyncio,
/// the protocol is not called.
pub fn collected<K: Ends>(object: &Bound<'_, PyAny>, release: impl FnOnce(&mut K) -> PyResult<()>) {
    let transport = Transport::<K>::new(object);
    if transport.fd().is_none() {
        return;
    }
    if !transport.event_loop().get().shared.is_forked() {
        derived::warn_unclosed(object);
    }
    // SAFETY: not through the loop's claim: there is no other reference to the transport, whichever thread this is.
    let state = unsafe { &mut *derived::state_of::<K>(object.as_ptr()) };
    state.life().phase = Phase::Closed;
    // Before the descriptor is free to be another's: see `watch::ensure_no_transport`.
    transport.marks(|marks| marks.closing.store(true, Ordering::Release));
    if let Err(error) = release(state) {
        error.write_unraisable(object.py(), Some(object));
    }
}
