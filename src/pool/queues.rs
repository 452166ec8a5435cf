//! Where a pool's jobs wait, and which worker is woken for them.
//!
//! Jobs from outside wait in one shared queue, of which workers take some at a time into a queue of their own; what a worker's
//! own coroutines submit goes there at once. An idle worker takes from the others' queues. Jobs for one
//! worker only have a queue of their own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};
use parking_lot::Mutex;
use slotmap::{SlotMap, new_key_type};

use super::end::Pledge;
use crate::event_loop::remote::Post;
use crate::inbox::InboxSender;
use crate::py::{Attached, Owned};
use crate::sync::idle::Sleepers;
use crate::sync::ownership;

/// The most that a worker takes at once for itself: jobs are begun in about the order they came, and few have to be stolen back.
const BATCH: usize = 16;

/// A worker's counters, in a cache line of their own. Written by its thread, read by anyone.
#[derive(Default)]
#[repr(align(128))]
pub struct Figures {
    pub begun: AtomicUsize,
    pub stolen: AtomicUsize,
}

new_key_type! {
    /// A coroutine that was begun and has not ended.
    pub struct RunningKey;
}

/// The jobs that a worker has begun and that have not ended. Changed by its thread; others read them under the lock.
#[derive(Default)]
pub struct Begun {
    /// The one that it is calling or stepping for the first time.
    pub doing: Option<Owned>,
    pub running: SlotMap<RunningKey, Owned>,
}

pub struct Queues {
    /// That of the process whose threads the workers are.
    generation: u32,
    shared: Injector<Pledge>,
    own: Box<[Stealer<Pledge>]>,
    pinned: Box<[Injector<Pledge>]>,
    /// The workers' ends of `own`, until each takes its own.
    ends: Mutex<Vec<Option<Deque<Pledge>>>>,
    sleepers: Sleepers,
    /// The loops, by worker. Emptied when a worker leaves.
    inboxes: Box<[Mutex<Option<InboxSender<Post>>>]>,
    pub figures: Box<[Figures]>,
    pub begun: Box<[Attached<Begun>]>,
    /// No more jobs come, except those being submitted.
    closing: AtomicBool,
    /// Jobs that have not begun must not begin.
    dropping: AtomicBool,
    /// No worker will look any more.
    finished: AtomicBool,
}

impl Queues {
    pub fn new(workers: usize) -> Self {
        let ends: Vec<_> = (0..workers).map(|_| Deque::new_fifo()).collect();
        Self {
            generation: ownership::generation(),
            shared: Injector::new(),
            own: ends.iter().map(Deque::stealer).collect(),
            pinned: (0..workers).map(|_| Injector::new()).collect(),
            ends: Mutex::new(ends.into_iter().map(Some).collect()),
            sleepers: Sleepers::new(workers),
            inboxes: (0..workers).map(|_| Mutex::new(None)).collect(),
            figures: (0..workers).map(|_| Figures::default()).collect(),
            begun: (0..workers).map(|_| Attached::default()).collect(),
            closing: AtomicBool::new(false),
            dropping: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }
    }

    /// Whether the workers are threads of a process that forked this one.
    pub fn is_forked(&self) -> bool {
        self.generation != ownership::generation()
    }

    pub fn workers(&self) -> usize {
        self.own.len()
    }

    /// A worker begins: its loop, and its end of its own queue. None for a second time.
    pub fn enter(&self, worker: usize, inbox: InboxSender<Post>) -> Option<Deque<Pledge>> {
        let end = self.ends.lock().get_mut(worker)?.take()?;
        *self.inboxes[worker].lock() = Some(inbox);
        Some(end)
    }

    /// A worker leaves; it has emptied its own queue.
    pub fn leave(&self, worker: usize) {
        let inbox = self.inboxes[worker].lock().take();
        drop(inbox);
        self.sleepers.leave(worker);
    }

    pub fn wake(&self, worker: usize) {
        if self.is_forked() {
            return;
        }
        let inbox = self.inboxes[worker].lock().clone();
        if let Some(inbox) = inbox {
            inbox.wake();
        }
    }

    #[inline]
    fn wake_one(&self) {
        if let Some(worker) = self.sleepers.take_one() {
            self.wake(worker);
        }
    }

    /// Queues a job from outside. True if no worker is left to take it: the caller then empties the queues.
    #[must_use]
    #[inline]
    pub fn push(&self, job: Pledge) -> bool {
        self.shared.push(job);
        self.wake_one();
        // Ordered by the fence in there, as in `finish`: the job is seen by the thread that empties the queues last, or here.
        self.finished.load(Ordering::Relaxed)
    }

    /// Queues a job for one worker only.
    #[must_use]
    pub fn push_to(&self, worker: usize, job: Pledge) -> bool {
        self.pinned[worker].push(job);
        if self.sleepers.take(worker) {
            self.wake(worker);
        }
        self.finished.load(Ordering::Relaxed)
    }

    /// A worker queues a job of its own, which another may take.
    pub fn push_own(&self, own: &Deque<Pledge>, job: Pledge) {
        own.push(job);
        self.wake_one();
    }

    /// The worker's next job, wherever one waits.
    #[inline]
    pub fn next(&self, worker: usize, own: &Deque<Pledge>, shared_first: bool) -> Option<Pledge> {
        let pinned = || taken(|| self.pinned[worker].steal());
        let shared = || {
            let job = taken(|| self.shared.steal_batch_with_limit_and_pop(own, BATCH))?;
            self.tell_of_batch(own);
            Some(job)
        };
        if shared_first && let Some(job) = pinned().or_else(shared) {
            return Some(job);
        }
        pinned().or_else(|| own.pop()).or_else(shared).or_else(|| self.steal(worker, own))
    }

    fn steal(&self, worker: usize, own: &Deque<Pledge>) -> Option<Pledge> {
        let count = self.workers();
        let stolen = (1..count).find_map(|step| {
            let other = &self.own[(worker + step) % count];
            taken(|| other.steal_batch_with_limit_and_pop(own, BATCH))
        })?;
        let figure = &self.figures[worker].stolen;
        figure.store(figure.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.tell_of_batch(own);
        Some(stolen)
    }

    /// A worker has moved jobs to its own queue. Meanwhile they were in none, so another worker may have found nothing
    /// and sleep; the first job may be one that waits for the others.
    fn tell_of_batch(&self, own: &Deque<Pledge>) {
        if !own.is_empty() {
            self.wake_one();
        }
    }

    /// Whether the worker would find a job.
    pub fn has_for(&self, worker: usize) -> bool {
        !self.pinned[worker].is_empty()
            || !self.shared.is_empty()
            || self.own.iter().any(|queue| !queue.is_empty())
    }

    /// About how many jobs wait that were brought from outside.
    pub fn waiting(&self) -> usize {
        self.shared.len()
    }

    /// How many jobs have not been begun: a snapshot.
    pub fn len(&self) -> usize {
        let own: usize = self.own.iter().map(Stealer::len).sum();
        let pinned: usize = self.pinned.iter().map(Injector::len).sum();
        self.shared.len() + own + pinned
    }

    /// Marks the worker asleep; false if it may not sleep. One that has coroutines running may, even at the end.
    pub fn may_sleep(&self, worker: usize, has_running: bool) -> bool {
        self.sleepers.enter(worker);
        if self.has_for(worker) || (self.is_closing() && !has_running) {
            self.sleepers.leave(worker);
            return false;
        }
        true
    }

    pub fn woke(&self, worker: usize) {
        self.sleepers.leave(worker);
    }

    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Refuses further jobs and wakes every worker, so that each sees when there is nothing left to do.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        (0..self.workers()).for_each(|worker| self.wake(worker));
    }

    /// No job begins any more: those that a worker is moving from queue to queue, invisible to others, it drops itself.
    pub fn drop_waiting(&self) {
        self.dropping.store(true, Ordering::Release);
    }

    #[inline]
    pub fn is_dropping(&self) -> bool {
        // Acquire: pairs with `drop_waiting`.
        self.dropping.load(Ordering::Acquire)
    }

    /// All workers are gone. The caller empties the queues afterwards.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// A job that has not been begun, of whichever queue. Any thread.
    pub fn take_waiting(&self) -> Option<Pledge> {
        taken(|| self.shared.steal())
            .or_else(|| self.own.iter().find_map(|queue| taken(|| queue.steal())))
            .or_else(|| self.pinned.iter().find_map(|queue| taken(|| queue.steal())))
    }
}

/// The result of an attempt to take, repeated while other threads interfere.
#[inline]
fn taken(attempt: impl Fn() -> Steal<Pledge>) -> Option<Pledge> {
    loop {
        match attempt() {
            Steal::Success(job) => return Some(job),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
