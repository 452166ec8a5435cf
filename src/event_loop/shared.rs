//! What every thread may see of a loop: who owns it now, its flags, its inbox.
//!
//! # Ownership
//!
//! A loop's core (queues, timers, driver, transports) has no lock. `owner` says which thread may touch it:
//!
//! - While the loop runs, the running thread owns it from start to end; every other thread is refused.
//! - While it does not run, a thread claims it for the length of one call (compare-exchange from 0) and gives
//!   it back. Claims are held for a few instructions, never across a call into Python, so that waiting for
//!   one is waiting for a running thread and can't deadlock with the interpreter.
//!
//! `owner` equals a thread's identity only if that thread put it there itself, so "is it me?" is a relaxed load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::event_loop::post::Post;
use crate::inbox::InboxSender;
use crate::sys::thread;

pub struct Shared {
    /// Number of the loop within the process, for tracing and the registry.
    pub id: u64,
    owner: AtomicUsize,
    running: AtomicBool,
    closed: AtomicBool,
    debug: AtomicBool,
    /// The thread that the loop is bound to: where it runs, or else where it was made. 0 after close.
    pub bound_thread: AtomicUsize,
    pub inbox: InboxSender<Post>,
}

/// The core is another thread's.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    pub owner: usize,
}

/// The right to touch the core; given back when dropped unless the thread had it before.
#[must_use]
pub struct Claim<'a> {
    shared: &'a Shared,
    release: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.release {
            // Release: pairs with the Acquire in `claim`; the next owner sees what we did.
            self.shared.owner.store(0, Ordering::Release);
        }
    }
}

impl Shared {
    pub fn new(inbox: InboxSender<Post>, debug: bool) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            owner: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(debug),
            bound_thread: AtomicUsize::new(0),
            inbox,
        }
    }

    /// Whether the calling thread owns the core at this moment.
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == thread::current_id()
    }

    /// The right to touch the core, or who has it: see the module's words on ownership.
    #[inline]
    pub fn claim(&self) -> Result<Claim<'_>, Foreign> {
        let me = thread::current_id();
        if self.owner.load(Ordering::Relaxed) == me {
            return Ok(Claim { shared: self, release: false });
        }
        self.claim_slow(me)
    }

    #[cold]
    fn claim_slow(&self, me: usize) -> Result<Claim<'_>, Foreign> {
        loop {
            match self.owner.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Claim { shared: self, release: true }),
                Err(0) => {}
                Err(owner) if self.running.load(Ordering::Relaxed) => return Err(Foreign { owner }),
                // A short claim of another thread on a loop that does not run.
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Starts running: the claim lasts until [`end_run`](Self::end_run). Call with the core claimed or free.
    pub fn begin_run(&self) -> Result<(), Foreign> {
        let mut claim = self.claim()?;
        self.running.store(true, Ordering::Relaxed);
        self.bound_thread.store(thread::current_id(), Ordering::Relaxed);
        claim.release = false;
        Ok(())
    }

    pub fn end_run(&self) {
        debug_assert!(self.is_mine());
        self.running.store(false, Ordering::Relaxed);
        self.owner.store(0, Ordering::Release);
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Marks the loop closed; true for the call that did it.
    pub fn set_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::Relaxed)
    }

    #[inline]
    pub fn is_debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    pub fn set_debug(&self, enabled: bool) {
        self.debug.store(enabled, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Inbox;
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    #[test]
    fn claims_of_several_threads_never_overlap() {
        struct Counter(UnsafeCell<u64>);
        // SAFETY: touched under a claim only; that is what the test checks.
        unsafe impl Sync for Counter {}
        let inbox = Inbox::new();
        let shared = Arc::new(Shared::new(inbox.sender(), false));
        let counter = Arc::new(Counter(UnsafeCell::new(0)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (shared, counter) = (shared.clone(), counter.clone());
                std::thread::spawn(move || {
                    for _ in 0..5_000 {
                        let _claim = shared.claim().expect("nobody runs the loop");
                        // SAFETY: claimed.
                        unsafe { *counter.0.get() += 1 };
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        // SAFETY: all threads are gone.
        assert_eq!(unsafe { *counter.0.get() }, 20_000);
    }

    #[test]
    fn a_running_loop_refuses_other_threads_and_lets_its_own_in() {
        let inbox = Inbox::new();
        let shared = Arc::new(Shared::new(inbox.sender(), false));
        shared.begin_run().expect("free");
        assert!(shared.claim().is_ok());
        assert!(shared.is_mine(), "an inner claim does not give the loop away");
        let me = thread::current_id();
        let other = shared.clone();
        std::thread::spawn(move || assert_eq!(other.claim().err().map(|foreign| foreign.owner), Some(me)))
            .join()
            .expect("no panic");
        shared.end_run();
        std::thread::spawn(move || assert!(shared.claim().is_ok())).join().expect("no panic");
    }
}
