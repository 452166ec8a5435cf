//! One loop accepts, and each connection goes to the loop that has the fewest of this server.
//!
//! A count is raised by the accepting loop as it hands a connection over, and lowered by the loop that got it when the connection
//! ends; so a burst is spread evenly though none of its connections has begun. What crosses is the descriptor and the peer's
//! address; protocol and transport are made by the loop that gets them. A connection that a closing loop never took out of
//! its inbox goes to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use socket2::SockAddr;

use super::connection::{self, Terms};
use super::tls;
use crate::driver::Connection;
use crate::event_loop::EventLoop;
use crate::event_loop::remote::Post;
use crate::event_loop::shared::Shared;
use crate::py::fatal::OrFatal;
use crate::py::{Owned, context};

/// The loops of one server, what connections are made with in each, and how many each has.
#[pyclass(frozen, module = "tokioloop._tokioloop")]
pub struct Balance {
    targets: Vec<Target>,
    /// Where the next search begins: loops that have the same number take turns.
    turn: AtomicUsize,
}

struct Target {
    shared: Arc<Shared>,
    terms: Terms,
    open: AtomicUsize,
    /// The loop refused a connection, or dropped one: it is closed.
    gone: AtomicBool,
}

// SAFETY: nothing but the atomics changes after it is made; references are counted by attached threads (see `Owned`).
unsafe impl Sync for Target {}

impl Balance {
    /// The loop with the fewest connections among those that run, or else among those that may yet.
    fn choose(&self) -> Option<usize> {
        let count = self.targets.len();
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..count).map(|step| (start % count + step) % count);
        let alive = |&index: &usize| {
            let target = &self.targets[index];
            !target.gone.load(Ordering::Relaxed) && !target.shared.is_closed()
        };
        let open = |index: &usize| self.targets[*index].open.load(Ordering::Relaxed);
        let running = |index: &usize| self.targets[*index].shared.is_running();
        let least = in_turn().filter(alive).filter(running).min_by_key(open);
        least.or_else(|| in_turn().filter(alive).min_by_key(open))
    }
}

/// Hands a connection that was accepted to the loop that is to have it.
pub fn hand(
    event_loop: &Bound<'_, EventLoop>,
    balance: Owned,
    socket: Connection,
    peer: SockAddr,
) -> OrFatal {
    let Some(handed) = Handed::to_the_least_loaded(event_loop.py(), balance, socket, peer) else {
        return Ok(());
    };
    if Arc::ptr_eq(&handed.target().shared, &event_loop.get().shared) {
        return handed.begin(event_loop);
    }
    handed.send();
    Ok(())
}

/// A connection on its way to a loop.
struct Handed {
    /// A `Balance`.
    balance: Owned,
    index: usize,
    connection: Option<(Connection, SockAddr)>,
}

impl Handed {
    /// None, with the connection closed, where no loop is left.
    fn to_the_least_loaded(
        py: Python<'_>,
        balance: Owned,
        socket: Connection,
        peer: SockAddr,
    ) -> Option<Self> {
        // SAFETY: what is stored there is a `Balance`.
        let index = unsafe { balance.bind(py).cast_unchecked::<Balance>() }.get().choose()?;
        let balance = Owned::for_another_thread(&balance.bind(py));
        let handed = Self { balance, index, connection: Some((socket, peer)) };
        handed.target().open.fetch_add(1, Ordering::Relaxed);
        Some(handed)
    }

    fn target(&self) -> &Target {
        // SAFETY: attached, as every user of an `Owned` is; a `Balance`, which `self` keeps and which is frozen.
        unsafe {
            let py = Python::assume_attached();
            let balance: *const Balance = self.balance.bind(py).cast_unchecked::<Balance>().get();
            &(&(*balance).targets)[self.index]
        }
    }

    /// Posts it to its loop. A loop that is closed gives it back, and dropping it hands it on.
    fn send(self) {
        let inbox = self.target().shared.inbox.clone();
        drop(inbox.post(Post::Finished(Box::new(move |on| self.begin(on.event_loop())))));
    }

    /// On the thread of the loop that got it.
    fn begin(mut self, event_loop: &Bound<'_, EventLoop>) -> OrFatal {
        let Some((socket, peer)) = self.connection.take() else { return Ok(()) };
        let terms = self.target().terms.clone_ref(event_loop.py());
        let mut made = None;
        let result = connection::begin(event_loop, terms, socket, peer, &mut made);
        if made.is_none() {
            self.target().open.fetch_sub(1, Ordering::Relaxed);
        }
        result
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let Some((socket, peer)) = self.connection.take() else { return };
        self.target().open.fetch_sub(1, Ordering::Relaxed);
        self.target().gone.store(true, Ordering::Relaxed);
        // SAFETY: attached: it holds Python references.
        let py = unsafe { Python::assume_attached() };
        if let Some(next) = Self::to_the_least_loaded(py, self.balance.clone_ref(py), socket, peer) {
            next.send();
        }
    }
}

#[pymethods]
impl Balance {
    /// `targets`: each loop with its protocol factory and its server.
    #[new]
    #[pyo3(signature = (targets, sslcontext=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None))]
    fn new(
        py: Python<'_>,
        targets: Vec<(Bound<'_, EventLoop>, Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        sslcontext: Option<&Bound<'_, PyAny>>,
        ssl_handshake_timeout: Option<f64>,
        ssl_shutdown_timeout: Option<f64>,
    ) -> PyResult<Self> {
        let made =
            |(event_loop, factory, server): (Bound<'_, EventLoop>, Bound<'_, PyAny>, Bound<'_, PyAny>)| {
                let settings = sslcontext.map(|context| {
                    tls::Settings::new(context, true, None, ssl_handshake_timeout, ssl_shutdown_timeout)
                });
                let terms = Terms {
                    factory: factory.into(),
                    server: Some(server.into()),
                    tls: settings.transpose()?,
                    context: context::copy_current(py)?,
                };
                let shared = event_loop.get().shared.clone();
                Ok(Target { shared, terms, open: AtomicUsize::new(0), gone: AtomicBool::new(false) })
            };
        let targets = targets.into_iter().map(made).collect::<PyResult<_>>()?;
        Ok(Self { targets, turn: AtomicUsize::new(0) })
    }

    /// A connection of the loop at `index` ended. Called by that loop's server.
    fn ended(&self, index: usize) {
        if let Some(target) = self.targets.get(index) {
            target.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many connections each loop has or is about to get. Any thread.
    fn open(&self) -> Vec<usize> {
        self.targets.iter().map(|target| target.open.load(Ordering::Relaxed)).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut result = Ok(());
        for target in &self.targets {
            target.terms.each(&mut |object| {
                if result.is_ok() {
                    result = visit.call(object.as_py());
                }
            });
        }
        result
    }
}
