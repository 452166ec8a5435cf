//! The state that a loop's thread owns, reached through the ownership claim only (see `shared.rs`).
//!
//! Borrows of it are short: no reference into the core is alive across a call into Python, for any such call can
//! come back here. What must be dropped (a decref may run Python code) is moved out first.

use std::collections::VecDeque;
use std::rc::Rc;

use pyo3::prelude::*;
use slotmap::{Key, SlotMap, new_key_type};

use super::endpoint::{Endpoint, Native};
use super::feed::Feed;
use super::handle::HandleRef;
use super::on_loop::OnLoop;
use super::remote::{Finish, Post, Record};
use super::reuse::Spare;
use crate::driver::Driver;
use crate::inbox::Inbox;
use crate::metrics::Counters;
use crate::py::Owned;
use crate::py::errors::OrOsError;
use crate::py::fatal::OrFatal;
use crate::sys::signal::Subscription;
use crate::timer::DeadlineQueue;

new_key_type! {
    /// A future that waits for work done outside the loop.
    pub struct PendingKey;
    /// Something to be dropped when the loop is closed.
    pub struct KeptKey;
}

/// How many handles of each kind a loop keeps for reuse: enough for a burst of a thousand, some 100 KiB at the most.
const FREE_HANDLES: usize = 1024;

/// An item of the ready queue.
pub enum Ready {
    Handle(HandleRef),
    /// A call from another thread, run without a Handle.
    Remote(Record),
    /// A native task's next step.
    Task(Owned),
}

impl Ready {
    /// The task, if it is one's step.
    pub fn into_task(self) -> Option<Owned> {
        match self {
            Self::Task(task) => Some(task),
            Self::Handle(_) | Self::Remote(_) => None,
        }
    }
}

/// Something of an object's that must not outlast the turn: a transport's held writes. On the loop's thread, inside a run.
pub struct AtEnd {
    pub call: fn(OnLoop<'_, '_>, &Bound<'_, PyAny>) -> OrFatal,
    pub object: Owned,
}

/// A slot map that takes no memory before something is put into it, which most loops never do.
pub struct Seldom<K: Key, V>(Option<Box<SlotMap<K, V>>>);

impl<K: Key, V> Default for Seldom<K, V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Key, V> Seldom<K, V> {
    pub fn insert(&mut self, value: V) -> K {
        self.0.get_or_insert_with(|| Box::new(SlotMap::with_key())).insert(value)
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        self.0.as_mut()?.remove(key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().flat_map(|map| map.values())
    }

    /// Takes everything out. The map itself stays, since it knows which keys were given out.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.0.iter_mut().flat_map(|map| map.drain())
    }
}

pub struct Core {
    /// What to run, oldest first.
    pub ready: VecDeque<Ready>,
    pub timers: DeadlineQueue<HandleRef>,
    /// Handles for reuse: their fields are empty except the loop.
    pub free: Vec<Spare>,
    pub free_timers: Vec<Spare>,
    pub inbox: Inbox<Post>,
    /// Taken out of the inbox, not yet passed to their receivers.
    pub finished: VecDeque<Finish>,
    /// Made at first need: a loop that never waits has no descriptors.
    pub driver: Option<Driver<Endpoint>>,
    pub pending: Seldom<PendingKey, Owned>,
    /// A future for reuse: pending, without another reference.
    pub spare_future: Option<Spare>,
    /// Objects whose drop notifies others of the loop's end.
    pub kept: Seldom<KeptKey, Box<dyn Native>>,
    /// What is to be done once more before the turn is over, in this order.
    pub at_end: VecDeque<AtEnd>,
    /// A worker's share of its pool. Counted under the claim.
    pub feed: Option<Rc<dyn Feed>>,
    /// The feed may have more to give.
    pub hungry: bool,
    pub closed: bool,
    pub stopping: bool,
    /// What the loop asked of signals, if ever.
    pub signals: Option<Subscription>,
    /// How many of the driver's descriptors are there for signals.
    pub signal_watches: usize,
    /// Something was posted since the loop last slept.
    pub posted: bool,
    /// How many more times the loop sleeps without yielding first.
    pub yields_to_skip: u8,
    /// How many were skipped last time.
    pub yield_backoff: u8,
    pub task_factory: Option<Owned>,
    /// Numbers for tasks without a name that are this loop's to give.
    pub task_numbers: std::ops::Range<usize>,
    pub slow_callback_duration: f64,
    /// The thread's coroutine origin depth before debug mode raised it.
    pub origin_depth: Option<i32>,
    /// The handle being run, in debug mode.
    pub current_handle: Option<HandleRef>,
    pub counters: Counters,
}

impl Core {
    pub fn new(inbox: Inbox<Post>) -> Self {
        Self {
            ready: VecDeque::new(),
            timers: DeadlineQueue::default(),
            free: Vec::new(),
            free_timers: Vec::new(),
            finished: VecDeque::new(),
            inbox,
            driver: None,
            pending: Seldom::default(),
            spare_future: None,
            kept: Seldom::default(),
            at_end: VecDeque::new(),
            feed: None,
            hungry: false,
            closed: false,
            stopping: false,
            signals: None,
            signal_watches: 0,
            posted: false,
            yields_to_skip: 0,
            yield_backoff: 0,
            task_factory: None,
            task_numbers: 0..0,
            slow_callback_duration: 0.1,
            origin_depth: None,
            current_handle: None,
            counters: Counters::default(),
        }
    }

    /// Puts something to run on the queue; gives it back when the loop is closed, for the caller to drop.
    #[inline]
    pub fn push(&mut self, ready: Ready) -> Result<(), Ready> {
        if self.closed {
            return Err(ready);
        }
        self.ready.push_back(ready);
        Ok(())
    }

    /// The driver, made now if this is its first use. RuntimeError once the loop is closed.
    pub fn driver(&mut self) -> PyResult<&mut Driver<Endpoint>> {
        if self.closed {
            return Err(super::closed());
        }
        if self.driver.is_none() {
            let driver = Driver::new().or_os_error()?;
            self.inbox.set_waker(driver.waker());
            self.driver = Some(driver);
        }
        Ok(self.driver.as_mut().expect("made above"))
    }

    /// Keeps an emptied handle to be used again; gives it back for the caller to drop if there are enough.
    #[inline]
    pub fn keep(&mut self, handle: Spare) -> Option<Spare> {
        let timer = super::handle::is_timer(handle.as_object().as_ptr());
        let free = if timer { &mut self.free_timers } else { &mut self.free };
        if free.len() >= FREE_HANDLES {
            return Some(handle);
        }
        free.push(handle);
        None
    }

    /// Takes what other threads sent, in the order it was sent; how many messages there were.
    #[inline]
    pub fn take_posts(&mut self) -> usize {
        let mut count = 0;
        for post in self.inbox.drain() {
            count += 1;
            match post {
                Post::Call(call) => self.ready.push_back(Ready::Remote(call)),
                Post::Stop => self.stopping = true,
                Post::Finished(finish) => self.finished.push_back(finish),
            }
        }
        self.posted |= count > 0;
        count
    }

    /// Shows every Python object that the core holds to the garbage collector, which has stopped all attached threads: so nothing is
    /// taken out of the inbox, and what is put in meanwhile, by threads that are never attached, holds none.
    pub fn visit<E>(&self, mut visit: impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        for spare in [&self.free, &self.free_timers].into_iter().flatten().chain(&self.spare_future) {
            visit(spare.as_object())?;
        }
        for handle in self.timers.iter().chain(&self.current_handle) {
            visit(handle.as_object())?;
        }
        for ready in &self.ready {
            match ready {
                Ready::Handle(handle) => visit(handle.as_object())?,
                Ready::Remote(call) => call.visit(&mut visit)?,
                Ready::Task(task) => visit(task)?,
            }
        }
        let late = self.at_end.iter().map(|late| &late.object);
        for object in self.pending.values().chain(late) {
            visit(object)?;
        }
        let mut result = Ok(());
        let mut see = |object: &Owned| {
            if result.is_ok() {
                result = visit(object);
            }
        };
        self.kept.values().for_each(|kept| kept.each(&mut see));
        // SAFETY: see the comment on this function: nothing is taken out of the inbox meanwhile.
        unsafe {
            self.inbox.mailbox().each(|link| {
                if let Some(call) = Post::call_behind(link) {
                    let _ = call.visit(&mut |object: &Owned| -> Result<(), ()> {
                        see(object);
                        Ok(())
                    });
                }
            });
        }
        self.feed.iter().for_each(|feed| feed.each(&mut see));
        result?;
        if let Some(factory) = &self.task_factory {
            visit(factory)?;
        }
        for endpoint in self.driver.iter().flat_map(Driver::iter) {
            endpoint.visit(&mut visit)?;
        }
        Ok(())
    }

    /// The parts of the forking thread's loop that the child must not use are leaked: releasing them
    /// might touch objects that the parent uses.
    pub fn leave_to_parent(&mut self) {
        std::mem::forget(std::mem::take(&mut self.ready));
        std::mem::forget(std::mem::take(&mut self.timers));
        std::mem::forget(std::mem::take(&mut self.finished));
        std::mem::forget(self.driver.take());
        std::mem::forget(self.signals.take());
        self.signal_watches = 0;
        self.closed = true;
        self.stopping = true;
    }

    /// Moves everything out that a closed loop must not keep; the caller drops it once the claim is over.
    pub fn take_all(&mut self) -> impl Drop + use<> {
        self.closed = true;
        self.stopping = false;
        Remains {
            _ready: std::mem::take(&mut self.ready),
            _timers: self.timers.take_all(),
            _free: [std::mem::take(&mut self.free), std::mem::take(&mut self.free_timers)],
            _spare_future: self.spare_future.take(),
            _posts: self.inbox.close().collect(),
            _driver: self.driver.take(),
            _pending: self.pending.drain().map(|(_, future)| future).collect(),
            _factory: self.task_factory.take(),
            _kept: self.kept.drain().map(|(_, kept)| kept).collect(),
            _at_end: std::mem::take(&mut self.at_end),
            _feed: self.feed.take(),
            _signals: self.signals.take(),
        }
    }
}

/// What a loop leaves behind.
struct Remains {
    _ready: VecDeque<Ready>,
    _timers: Vec<HandleRef>,
    _free: [Vec<Spare>; 2],
    _spare_future: Option<Spare>,
    _posts: Vec<Post>,
    _driver: Option<Driver<Endpoint>>,
    _pending: Vec<Owned>,
    _factory: Option<Owned>,
    _kept: Vec<Box<dyn Native>>,
    _at_end: VecDeque<AtEnd>,
    _feed: Option<Rc<dyn Feed>>,
    _signals: Option<Subscription>,
}

impl Drop for Remains {
    fn drop(&mut self) {}
}
