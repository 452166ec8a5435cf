//! Who may touch state that has no lock.
//!
//! `owner` says which thread may:
//!
//! - While the owner *runs*, the running thread owns the state from start to end; every other thread is refused.
//! - While nobody runs, a thread claims it for the length of one call (compare-exchange from 0) and gives it back. Claims
//!   are held for a few instructions, never across a call into foreign code, so that waiting for one is waiting for a
//!   running thread.
//!
//! A forked child has the parent's states, but not the threads that were at work on them. The hook that runs there begins a new
//! generation, and what was made in an earlier one is refused to everybody.
//!
//! `owner` equals a thread's identity only if that thread put it there itself, so "is it me?" is a relaxed load.

use std::sync::atomic::AtomicU32;

use super::{AtomicBool, AtomicUsize, Ordering};
use crate::sys::{detached, thread};

/// Counts forks that led to this process. Changed by the only thread of a forked child.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// No thread has this identity.
const NOBODY: usize = usize::MAX;

pub struct Ownership {
    owner: AtomicUsize,
    running: AtomicBool,
    generation: u32,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            owner: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            generation: GENERATION.load(Ordering::Relaxed),
        }
    }
}

/// The state is another thread's.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    pub owner: usize,
    /// It is nobody's: it belongs to the process that forked this one.
    pub forked: bool,
}

/// How many forks led to this process.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Begins a new generation. In a forked child, by its only thread.
pub fn begin_generation() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The right to touch the state; given back when dropped unless the thread had it before.
#[must_use]
pub struct Claim<'a> {
    ownership: &'a Ownership,
    release: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.release {
            detached::go();
            // Release: pairs with the Acquire in `claim_slow`; the next owner sees what we did.
            self.ownership.owner.store(0, Ordering::Release);
        }
    }
}

impl Ownership {
    /// Whether the calling thread owns the state at this moment.
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == thread::current_id()
    }

    /// The right to touch the state, or who has it.
    #[inline]
    pub fn claim(&self) -> Result<Claim<'_>, Foreign> {
        self.claim_as(thread::current_id())
    }

    #[inline]
    fn claim_as(&self, me: usize) -> Result<Claim<'_>, Foreign> {
        if self.owner.load(Ordering::Relaxed) == me {
            return Ok(Claim { ownership: self, release: false });
        }
        self.claim_slow(me)
    }

    #[cold]
    fn claim_slow(&self, me: usize) -> Result<Claim<'_>, Foreign> {
        if self.is_forked() {
            return Err(Foreign { owner: NOBODY, forked: true });
        }
        loop {
            // Acquire for a refusal too: a short claim's owner came after the end of a run, whose `running` must not be seen any more.
            match self.owner.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    // Others wait for it, attached.
                    detached::stay();
                    return Ok(Claim { ownership: self, release: true });
                }
                Err(0) => {}
                Err(owner) if self.running.load(Ordering::Relaxed) => {
                    return Err(Foreign { owner, forked: false });
                }
                // A short claim of another thread while nobody runs.
                Err(_) => yield_now(),
            }
        }
    }

    /// Starts running: the claim lasts until [`end_run`](Self::end_run).
    pub fn begin_run(&self) -> Result<(), Foreign> {
        self.begin_run_as(thread::current_id())
    }

    fn begin_run_as(&self, me: usize) -> Result<(), Foreign> {
        let mut claim = self.claim_as(me)?;
        self.running.store(true, Ordering::Relaxed);
        // A run is waited for by nobody: others are refused.
        if std::mem::take(&mut claim.release) {
            detached::go();
        }
        Ok(())
    }

    pub fn end_run(&self) {
        debug_assert!(cfg!(feature = "loom") || self.is_mine());
        self.running.store(false, Ordering::Relaxed);
        self.owner.store(0, Ordering::Release);
    }

    /// Whether the state belongs to a process that forked this one.
    #[cold]
    pub fn is_forked(&self) -> bool {
        self.generation != generation()
    }

    /// Takes a state of an earlier generation away from the thread that owned it, whose identity a new thread may get.
    pub fn disown(&self) {
        debug_assert!(self.is_forked());
        self.owner.store(NOBODY, Ordering::Relaxed);
        self.running.store(false, Ordering::Relaxed);
    }

    #[inline]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }
}

#[cfg(not(feature = "loom"))]
use std::thread::yield_now;

#[cfg(feature = "loom")]
use loom::thread::yield_now;

/// The model checker's threads are one to the system, so they are numbered here.
#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_a_short_claim_is_not_taken_for_a_run_that_has_ended() {
        loom::model(|| {
            let shared = Arc::new(Ownership::default());
            let other = shared.clone();
            let other = loom::thread::spawn(move || {
                if other.begin_run_as(1).is_ok() {
                    other.end_run();
                }
                drop(other.claim_as(2));
            });
            if let Err(foreign) = shared.claim_as(3) {
                assert_eq!(foreign.owner, 1, "the only one who runs");
            }
            other.join().expect("no panic");
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    #[test]
    fn claims_of_several_threads_never_overlap() {
        struct Counter(UnsafeCell<u64>);
        // SAFETY: touched under a claim only; that is what the test checks.
        unsafe impl Sync for Counter {}
        let shared = Arc::new(Ownership::default());
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
        let shared = Arc::new(Ownership::default());
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
