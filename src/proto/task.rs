//! The life of a future, or of a task, as one word: its state and its marks, with a name for each way from one to the next.
//!
//! Three kinds of access, by proofs of [`sync::held`](crate::sync::held):
//!
//! - Changes ask for the proof that the lock of the future's loop is held. So they are plain loads and stores, which count no atomic
//!   operation on the hot path.
//! - [`begin`](Life::begin) and its opposite ask for no proof: there is no lock before the future has a loop. They are atomic operations,
//!   and write nothing once the future was begun.
//! - Any thread may read the word. Every store is a Release, so that a thread which reads that the future is done finds its value there.

use crate::sync::held::{Change, Exclusive, Held, Sole};
use crate::sync::{AtomicU32, Ordering};

/// A future's state, as in asyncio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Cancelled,
    Finished,
}

/// How a future ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Result,
    /// With an exception, which is reported when the future goes and nothing has retrieved it.
    Exception,
    Cancelled,
}

/// Whether a task may make a step.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Enter,
    IsDone,
}

/// What a task that is asked to cancel itself answers.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// It is done: there is nothing to cancel.
    Over,
    /// It is pending: what it waits for is to be cancelled, or its next step is to raise.
    Pending,
}

/// What a pending future that is awaited answers.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    First,
    /// It was yielded before, and no task has looked at it since.
    Again,
}

/// The future was begun before.
#[derive(Debug)]
pub struct Begun;

const CANCELLED: u32 = 1;
const FINISHED: u32 = 2;
const DONE: u32 = CANCELLED | FINISHED;
/// The value is an exception.
const FAILED: u32 = 1 << 2;
/// `_asyncio_future_blocking`: an `await` has yielded the future, and no task has looked at it yet.
const BLOCKING: u32 = 1 << 3;
/// Nothing has retrieved the exception: it is reported when the future goes.
const LOG_TRACEBACK: u32 = 1 << 4;
/// The task is to be cancelled in its next step.
const MUST_CANCEL: u32 = 1 << 5;
/// A task that goes while it is pending is reported.
const LOG_DESTROY: u32 = 1 << 6;
/// The task is in its loop's list.
const LINKED: u32 = 1 << 7;
/// The object was begun: by its `__init__`, or complete from the start.
const BEGUN: u32 = 1 << 8;
/// The last reference is gone: the object is finalised for that reason, and not by the collector.
const GOING: u32 = 1 << 9;

/// The word. All zeros, as in the memory of a new object, are a pending future that was not begun.
pub struct Life(AtomicU32);

/// The right to end a pending future, once its value is stored.
#[must_use]
pub struct Ending<'a> {
    life: &'a Life,
    change: Change<'a>,
}

impl Ending<'_> {
    /// Ends the future. Whatever a reader is to find is stored before.
    #[inline]
    pub fn with(self, how: Ended) {
        let on = match how {
            Ended::Result => FINISHED,
            Ended::Exception => FINISHED | FAILED | LOG_TRACEBACK,
            Ended::Cancelled => CANCELLED,
        };
        self.life.change(self.change, on, 0);
    }
}

impl Default for Life {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl Life {
    // ---- any thread ---------------------------------------------------------------------------------------

    #[inline]
    pub fn state(&self) -> State {
        // Acquire: pairs with the Release in `change`; the value is there once the state is not pending.
        match self.0.load(Ordering::Acquire) & DONE {
            0 => State::Pending,
            CANCELLED => State::Cancelled,
            _ => State::Finished,
        }
    }

    #[inline]
    pub fn is_pending(&self) -> bool {
        self.state() == State::Pending
    }

    #[inline]
    fn has(&self, mark: u32) -> bool {
        self.0.load(Ordering::Relaxed) & mark != 0
    }

    /// Whether it ended with an exception.
    #[inline]
    pub fn has_failed(&self) -> bool {
        self.has(FAILED)
    }

    /// Whether it has an exception that nothing has retrieved.
    #[inline]
    pub fn is_unretrieved(&self) -> bool {
        self.has(LOG_TRACEBACK)
    }

    /// Whether an `await` has yielded it to a task that is yet to look at it.
    #[inline]
    pub fn is_blocking(&self) -> bool {
        self.has(BLOCKING)
    }

    /// Whether the task's next step is to raise CancelledError.
    #[inline]
    pub fn must_cancel(&self) -> bool {
        self.has(MUST_CANCEL)
    }

    /// Whether it is to be reported when it goes while it is pending.
    #[inline]
    pub fn logs_destruction(&self) -> bool {
        self.has(LOG_DESTROY)
    }

    #[inline]
    pub fn is_linked(&self) -> bool {
        self.has(LINKED)
    }

    /// Whether the object is finalised because its last reference is gone.
    pub fn is_going(&self) -> bool {
        self.has(GOING)
    }

    // ---- the object's beginning and end ---------------------------------------------------------------------

    /// Begins a future that other threads may have: the first caller may fill it.
    pub fn begin(&self) -> Result<(), Begun> {
        self.begin_with(BEGUN)
    }

    /// The same for a task, which is to be reported when it goes while it is pending.
    pub fn begin_task(&self) -> Result<(), Begun> {
        self.begin_with(BEGUN | LOG_DESTROY)
    }

    fn begin_with(&self, marks: u32) -> Result<(), Begun> {
        // Asked first: what was begun may have a loop, whose thread changes the word by plain stores.
        if self.has(BEGUN) || self.0.fetch_or(BEGUN, Ordering::Relaxed) & BEGUN != 0 {
            return Err(Begun);
        }
        self.0.fetch_or(marks, Ordering::Relaxed);
        Ok(())
    }

    /// The first caller could not fill it: another one may try.
    pub fn did_not_begin(&self) {
        self.0.fetch_and(!BEGUN, Ordering::Relaxed);
    }

    /// As [`begin_task`](Self::begin_task), for a task that only the caller has.
    #[inline]
    pub fn begin_alone(&self, sole: Sole<'_>) {
        self.change(sole, BEGUN | LOG_DESTROY, 0);
    }

    /// Python code sets `_log_destroy_pending` of a task that was not begun, which has no lock yet.
    pub fn log_destruction_early(&self, on: bool) {
        if on {
            self.0.fetch_or(LOG_DESTROY, Ordering::Relaxed);
        } else {
            self.0.fetch_and(!LOG_DESTROY, Ordering::Relaxed);
        }
    }

    /// A future is as new, to be used again.
    #[inline]
    pub fn renew(&self, _: Change<'_>) {
        self.0.store(0, Ordering::Release);
    }

    /// The last reference is gone.
    #[inline]
    pub fn going(&self, sole: Sole<'_>) {
        self.change(sole, GOING, 0);
    }

    /// Its finaliser has made a new reference, which another thread may have by now.
    pub fn saved(&self, held: impl Held) {
        self.change(held, 0, GOING);
    }

    // ---- under the lock -------------------------------------------------------------------------------------

    /// Sets and clears marks. A plain load and store: the proof says that no other thread does so.
    #[inline]
    fn change(&self, _: impl Exclusive, on: u32, off: u32) {
        let word = self.0.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `state`. Not for the store that ends the future alone, since a reader may find a later one.
        self.0.store(word & !off | on, Ordering::Release);
    }

    #[inline]
    fn set(&self, proof: impl Exclusive, mark: u32, on: bool) {
        if on { self.change(proof, mark, 0) } else { self.change(proof, 0, mark) }
    }

    /// The right to end the future; None if it is done.
    #[inline]
    pub fn end<'a>(&'a self, change: Change<'a>) -> Option<Ending<'a>> {
        self.is_pending().then_some(Ending { life: self, change })
    }

    /// Whether the task may make a step.
    #[inline]
    pub fn enter(&self, _: Change<'_>) -> Step {
        if self.is_pending() { Step::Enter } else { Step::IsDone }
    }

    /// An `await` yields the pending future.
    #[inline]
    pub fn yielded(&self, change: Change<'_>) -> Yield {
        if self.has(BLOCKING) {
            return Yield::Again;
        }
        self.change(change, BLOCKING, 0);
        Yield::First
    }

    /// A task has looked at the yielded future and waits for it.
    #[inline]
    pub fn wait(&self, change: Change<'_>) {
        self.change(change, 0, BLOCKING);
    }

    /// Python code sets `_asyncio_future_blocking`.
    pub fn set_blocking(&self, change: Change<'_>, on: bool) {
        self.set(change, BLOCKING, on);
    }

    /// The task is asked to cancel itself. An exception counts as retrieved.
    pub fn ask_cancel(&self, change: Change<'_>) -> Ask {
        self.retrieve(change);
        if self.is_pending() { Ask::Pending } else { Ask::Over }
    }

    /// The task's next step is to raise CancelledError.
    pub fn cancel_next_step(&self, change: Change<'_>) {
        self.change(change, MUST_CANCEL, 0);
    }

    /// What the next step was to do is done, or was taken back.
    pub fn take_cancel(&self, change: Change<'_>) {
        self.change(change, 0, MUST_CANCEL);
    }

    /// The exception counts as retrieved.
    pub fn retrieve(&self, held: impl Held) {
        self.change(held, 0, LOG_TRACEBACK);
    }

    /// The task enters its loop's list.
    #[inline]
    pub fn link(&self, held: impl Held) {
        self.change(held, LINKED, 0);
    }

    /// The task leaves its loop's list; whether it was there.
    #[must_use]
    #[inline]
    pub fn unlink(&self, held: impl Held) -> bool {
        if !self.has(LINKED) {
            return false;
        }
        self.change(held, 0, LINKED);
        true
    }

    /// Python code sets `_log_destroy_pending`.
    pub fn log_destruction(&self, held: impl Held, on: bool) {
        self.set(held, LOG_DESTROY, on);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::sync::biased::BiasedLock;

    /// A word, and the owner's proof to change it by.
    fn with(f: impl FnOnce(&Life, Change<'_>)) {
        let (life, lock) = (Life::default(), BiasedLock::new());
        f(&life, lock.owner().change());
    }

    fn end(life: &Life, change: Change<'_>, how: Ended) {
        life.end(change).expect("pending").with(how);
    }

    #[test]
    fn it_ends_once() {
        for (how, state) in [
            (Ended::Result, State::Finished),
            (Ended::Exception, State::Finished),
            (Ended::Cancelled, State::Cancelled),
        ] {
            with(|life, change| {
                assert!(life.is_pending());
                end(life, change, how);
                assert_eq!(life.state(), state);
                assert!(life.end(change).is_none());
                assert_eq!(life.has_failed(), how == Ended::Exception);
                assert_eq!(life.is_unretrieved(), how == Ended::Exception);
                assert_eq!(life.enter(change), Step::IsDone);
            });
        }
    }

    #[test]
    fn the_right_to_end_it_may_be_dropped() {
        with(|life, change| {
            let _ = life.end(change);
            assert!(life.is_pending());
            assert_eq!(life.enter(change), Step::Enter);
        });
    }

    #[test]
    fn marks_stay_as_they_are_at_the_end() {
        with(|life, change| {
            life.link(change);
            life.cancel_next_step(change);
            assert_eq!(life.yielded(change), Yield::First);
            end(life, change, Ended::Cancelled);
            assert!(life.is_linked() && life.must_cancel() && life.is_blocking());
            assert!(life.unlink(change) && !life.unlink(change) && !life.is_linked());
            assert_eq!(life.state(), State::Cancelled);
        });
    }

    #[test]
    fn it_is_yielded_once_until_a_task_waits() {
        with(|life, change| {
            assert_eq!(life.yielded(change), Yield::First);
            assert_eq!(life.yielded(change), Yield::Again);
            life.wait(change);
            assert_eq!(life.yielded(change), Yield::First);
            life.set_blocking(change, false);
            assert!(!life.is_blocking());
            life.set_blocking(change, true);
            assert!(life.is_blocking());
        });
    }

    #[test]
    fn who_asks_a_failed_task_to_cancel_itself_has_seen_its_error() {
        with(|life, change| {
            assert_eq!(life.ask_cancel(change), Ask::Pending);
            life.cancel_next_step(change);
            assert!(life.must_cancel());
            life.take_cancel(change);
            assert!(!life.must_cancel());
            end(life, change, Ended::Exception);
            assert_eq!(life.ask_cancel(change), Ask::Over);
            assert!(!life.is_unretrieved() && life.has_failed());
        });
    }

    #[test]
    fn it_begins_once_unless_that_failed() {
        let life = Life::default();
        assert!(life.begin_task().is_ok());
        assert!(life.logs_destruction());
        assert!(life.begin().is_err() && life.begin_task().is_err());
        life.did_not_begin();
        assert!(life.begin().is_ok());
        life.log_destruction_early(false);
        assert!(!life.logs_destruction());
        assert!(life.begin().is_err());
    }

    #[test]
    fn one_that_is_used_again_is_as_new() {
        with(|life, change| {
            // SAFETY: the word is a local of this thread.
            life.going(unsafe { Sole::new() });
            assert!(life.is_going());
            life.saved(change);
            assert!(!life.is_going());
            end(life, change, Ended::Exception);
            life.renew(change);
            assert!(life.is_pending() && !life.has_failed() && !life.is_unretrieved());
        });
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use crate::sync::biased::BiasedLock;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    /// A future: its word, its lock, and a value that is written under the lock, before the end.
    struct Future {
        life: Life,
        lock: BiasedLock,
        value: UnsafeCell<u32>,
    }

    // SAFETY: the value is written under the lock, and read under it or once the future is done; loom checks that.
    unsafe impl Sync for Future {}
    // SAFETY: as above.
    unsafe impl Send for Future {}

    fn future() -> Arc<Future> {
        Arc::new(Future { life: Life::default(), lock: BiasedLock::new(), value: UnsafeCell::new(0) })
    }

    impl Future {
        fn end(&self, how: Ended) {
            let held = self.lock.owner();
            let ending = self.life.end(held.change()).expect("ended once");
            // SAFETY: under the lock, by the owner.
            self.value.with_mut(|value| unsafe { *value = 1 });
            ending.with(how);
        }
    }

    #[test]
    fn loom_a_thread_that_reads_done_finds_the_value() {
        loom::model(|| {
            let future = future();
            let reader = {
                let future = future.clone();
                loom::thread::spawn(move || {
                    // Without the lock.
                    if !future.life.is_pending() {
                        // SAFETY: written before the end, and not after.
                        assert_eq!(future.value.with(|value| unsafe { *value }), 1);
                    }
                })
            };
            future.end(Ended::Exception);
            // A later change of a mark must not hide the end from a thread that reads that one.
            future.life.retrieve(future.lock.owner().change());
            reader.join().expect("no panic");
        });
    }

    #[test]
    fn loom_no_mark_is_lost_between_the_owner_and_a_visitor() {
        loom::model(|| {
            let future = future();
            future.end(Ended::Exception);
            let visitor = {
                let future = future.clone();
                loom::thread::spawn(move || {
                    let held = future.lock.visitor();
                    future.life.retrieve(held.look());
                    future.life.saved(held.look());
                })
            };
            {
                let held = future.lock.owner();
                future.life.link(held.change());
            }
            visitor.join().expect("no panic");
            assert!(future.life.is_linked() && !future.life.is_unretrieved() && future.life.has_failed());
        });
    }

    #[test]
    fn loom_one_of_two_threads_begins() {
        loom::model(|| {
            let future = future();
            let other = {
                let future = future.clone();
                loom::thread::spawn(move || future.life.begin_task().is_ok())
            };
            let mine = future.life.begin_task().is_ok();
            assert!(mine != other.join().expect("no panic"));
            assert!(future.life.logs_destruction());
        });
    }

    #[test]
    fn loom_a_second_begin_takes_nothing_from_the_owners_changes() {
        loom::model(|| {
            let future = future();
            assert!(future.life.begin_task().is_ok());
            let other = {
                let future = future.clone();
                loom::thread::spawn(move || assert!(future.life.begin_task().is_err()))
            };
            future.life.link(future.lock.owner().change());
            future.end(Ended::Result);
            other.join().expect("no panic");
            assert!(future.life.is_linked() && !future.life.is_pending());
            assert!(future.life.begin().is_err());
        });
    }
}
