//! The part of a loop that every thread may see: its present owner, its flags, its inbox.
//!
//! A loop's core (queues, timers, driver, transports) has no lock: see [`Ownership`]. The loop's runs are the owner's runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::event_loop::remote::Post;
use crate::inbox::InboxSender;
use crate::sync::ownership::{Claim, Foreign, Ownership, Running, Visiting};
use crate::sys::thread;

pub struct Shared {
    /// Number of the loop within the process, for tracing and the registry.
    pub id: u64,
    ownership: Ownership,
    closed: AtomicBool,
    debug: AtomicBool,
    /// Makes asyncio's C futures and tasks instead of native ones.
    asyncio_tasks: AtomicBool,
    /// A task of asyncio's C type was stepped here at least once.
    asyncio_task_seen: AtomicBool,
    /// Changes of native futures and tasks from another thread go through the inbox instead of raising.
    routes: AtomicBool,
    call_soon_overridden: AtomicBool,
    /// Runs end by themselves: `run_until_complete`.
    goal: AtomicBool,
    /// The thread that the loop is bound to: where it runs, or else where it was made. 0 after close.
    /// Shared with the registry, which outlives the loop a little and must not keep its inbox (and waker) alive.
    pub bound_thread: Arc<AtomicUsize>,
    pub inbox: InboxSender<Post>,
}

impl Shared {
    pub fn new(inbox: InboxSender<Post>, debug: bool) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            ownership: Ownership::default(),
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(debug),
            asyncio_tasks: AtomicBool::new(false),
            asyncio_task_seen: AtomicBool::new(false),
            routes: AtomicBool::new(false),
            call_soon_overridden: AtomicBool::new(false),
            goal: AtomicBool::new(false),
            bound_thread: Arc::default(),
            inbox,
        }
    }

    /// Whether the calling thread owns the core at this moment.
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.ownership.is_mine()
    }

    /// The right to touch the core for a moment, or the thread that runs the loop.
    #[inline]
    pub fn claim(&self) -> Result<Claim<'_>, Foreign> {
        self.ownership.claim()
    }

    /// As [`claim`](Self::claim), for callers that can't be refused.
    ///
    /// # Safety
    /// The calling thread is inside of a run or a visit of this loop.
    #[inline]
    pub unsafe fn claim_inside(&self) -> Claim<'_> {
        // SAFETY: promised.
        unsafe { self.ownership.claim_inside() }
    }

    /// Begins to run the loop. Waits, detached, for other threads' visits.
    pub fn run(&self) -> Result<Running<'_>, Foreign> {
        let running = self.ownership.run()?;
        self.bound_thread.store(thread::current_id(), Ordering::Relaxed);
        Ok(running)
    }

    /// Begins an operation on the loop, if no other thread runs it.
    pub fn visit(&self) -> Result<Visiting<'_>, Foreign> {
        self.ownership.visit()
    }

    pub fn has_goal(&self) -> bool {
        self.goal.load(Ordering::Relaxed)
    }

    pub fn set_goal(&self, has_goal: bool) -> bool {
        self.goal.swap(has_goal, Ordering::Relaxed)
    }

    /// Whether the loop belongs to a process that forked this one.
    pub fn is_forked(&self) -> bool {
        self.ownership.is_forked()
    }

    /// Makes the loop a dead one, in a forked child: without an owner, closed, and its inbox too.
    pub fn die(&self) {
        self.ownership.disown();
        self.set_closed();
        // What waits there stays: releasing it may run code and touch what the parent uses.
        std::mem::forget(self.inbox.close());
    }

    pub fn is_running(&self) -> bool {
        self.ownership.is_running()
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Marks the loop closed; true for the call that did it.
    pub fn set_closed(&self) -> bool {
        self.bound_thread.store(0, Ordering::Relaxed);
        !self.closed.swap(true, Ordering::Relaxed)
    }

    #[inline]
    pub fn has_native_tasks(&self) -> bool {
        !self.asyncio_tasks.load(Ordering::Relaxed)
    }

    /// Whether tasks of asyncio's own types may belong to this loop. Any thread.
    pub fn may_have_asyncio_tasks(&self) -> bool {
        self.asyncio_task_seen.load(Ordering::Relaxed)
    }

    /// Notes that such a task asked for a step.
    #[inline]
    pub fn note_asyncio_task(&self) {
        self.asyncio_task_seen.store(true, Ordering::Relaxed);
    }

    pub fn routes(&self) -> bool {
        self.routes.load(Ordering::Relaxed)
    }

    /// What the loop was made with; set before it is shared.
    pub fn choose(&self, native_tasks: bool, routes: bool, overridden: bool) {
        self.asyncio_tasks.store(!native_tasks, Ordering::Relaxed);
        self.routes.store(routes, Ordering::Relaxed);
        self.call_soon_overridden.store(overridden, Ordering::Relaxed);
    }

    /// Whether a derived class has a `call_soon` of its own, which is then to see every callback of a future and step of a task.
    #[inline]
    pub fn is_call_soon_overridden(&self) -> bool {
        self.call_soon_overridden.load(Ordering::Relaxed)
    }

    /// Whether tasks go onto the queue as Handles and not as themselves: where other code must see them.
    #[inline]
    pub fn steps_by_handle(&self) -> bool {
        self.is_debug() || self.is_call_soon_overridden()
    }

    #[inline]
    pub fn is_debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    pub fn set_debug(&self, enabled: bool) {
        self.debug.store(enabled, Ordering::Relaxed);
    }
}
