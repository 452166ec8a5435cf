//! Which thread may touch state that has no lock, and for how long.
//!
//! | right        | while                | how long                                    | other threads meanwhile            |
//! |--------------|----------------------|---------------------------------------------|------------------------------------|
//! | [`Running`]  | the thread runs it   | until dropped                               | are refused                        |
//! | [`Claim`]    | it is not running    | a few instructions, no foreign code         | wait, attached                     |
//! | [`Visiting`] | it is not running    | an operation, which may call foreign code   | may claim and visit, and can't run |
//!
//! A claim that is taken inside of a run costs a load and a comparison. A visit holds nothing while foreign code runs: it touches the state
//! by claims, which nothing can refuse, since a thread that wants to run the state waits for the visit to end. It waits detached, so that
//! neither a collection nor the visitor waits for it.
//!
//! A forked child has the parent's states, but not the threads that were at work on them. The hook that runs there begins a new
//! generation, and states of an earlier one are refused to every thread.
//!
//! `owner` equals a thread's identity only if that thread put it there itself, so "is it me?" is a relaxed load.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU32;

use super::{AtomicBool, AtomicUsize, Ordering};
use crate::sys::{detached, thread};

/// Counts forks that led to this process. Changed by the only thread of a forked child.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// No thread has this identity.
const NOBODY: usize = usize::MAX;

/// How often a run asks again whether a visit is over. Between two questions it waits for [`visits::SLICE`] at the most.
const PATIENCE: usize = 100;

pub struct Ownership {
    owner: AtomicUsize,
    running: AtomicBool,
    generation: u32,
    /// Touched under a claim. None without visits.
    visits: UnsafeCell<Option<Box<Visits>>>,
}

// SAFETY: `visits` is touched under a claim only, which one thread holds at a time.
unsafe impl Sync for Ownership {}

/// The visits that are going on.
#[derive(Default)]
struct Visits {
    /// The visiting threads, each as often as it visits.
    threads: Vec<usize>,
    /// Those that wait for the end of a visit, to run the state.
    waiting: Vec<visits::Waiter>,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            owner: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            generation: GENERATION.load(Ordering::Relaxed),
            visits: UnsafeCell::new(None),
        }
    }
}

/// The state is another thread's.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    pub owner: usize,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `owner` runs it.
    Runs,
    /// `owner` visits it, and the visit did not end while the caller waited. Only a run is refused so.
    Visits,
    /// It belongs to the process that forked this one, so to no thread here.
    Forked,
}

impl Foreign {
    pub fn is_forked(self) -> bool {
        self.why == Why::Forked
    }
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

/// The right to touch the state for a moment; given back when dropped unless the thread had it before.
#[must_use]
pub struct Claim<'a> {
    ownership: &'a Ownership,
    release: bool,
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.release {
            detached::go();
            // Release: pairs with the Acquire in `claim_slow`; the next owner sees what we did.
            self.ownership.owner.store(0, Ordering::Release);
        }
    }
}

impl Claim<'_> {
    /// The visits, for changes; None if there are none.
    fn visits(&mut self) -> &mut Option<Box<Visits>> {
        // SAFETY: claimed, and borrowed for as long as the claim is.
        unsafe { &mut *self.ownership.visits.get() }
    }

    /// A thread but `me` that visits the state.
    fn other_visitor(&mut self, me: usize) -> Option<usize> {
        self.visits().as_ref()?.threads.iter().copied().find(|&thread| thread != me)
    }
}

/// A run: the thread that began it owns the state until this is dropped.
#[must_use]
pub struct Running<'a> {
    ownership: &'a Ownership,
    /// It counts for the thread that made it.
    _stays: PhantomData<*const ()>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // In a forked child it is the parent's thread that still runs the state.
        if !self.ownership.is_forked() {
            self.ownership.running.store(false, Ordering::Relaxed);
            // Release: as for a claim.
            self.ownership.owner.store(0, Ordering::Release);
        }
    }
}

/// A visit: until this is dropped, no other thread begins to run the state.
#[must_use]
pub struct Visiting<'a> {
    ownership: &'a Ownership,
    /// The visitor; None inside a run of its own, which nothing needs to be kept away from.
    thread: Option<usize>,
    /// It counts for the thread that made it.
    _stays: PhantomData<*const ()>,
}

impl Drop for Visiting<'_> {
    fn drop(&mut self) {
        let Some(me) = self.thread else { return };
        // A forked child refuses inherited states to all its threads, so none waits for them.
        if self.ownership.is_forked() {
            return;
        }
        let Ok(mut claim) = self.ownership.claim_as(me) else {
            debug_assert!(false, "a visit keeps runs of other threads away");
            return;
        };
        let all = claim.visits();
        let Some(visits) = all else { return };
        if let Some(index) = visits.threads.iter().position(|&thread| thread == me) {
            visits.threads.swap_remove(index);
        }
        let waiting = std::mem::take(&mut visits.waiting);
        let unused = visits.threads.is_empty().then(|| all.take());
        drop(claim);
        drop(unused);
        waiting.iter().for_each(visits::Waiter::wake);
    }
}

impl Ownership {
    /// Whether the calling thread owns the state at this moment.
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == thread::current_id()
    }

    /// The right to touch the state for a moment, or the thread that runs it.
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
            return Err(Foreign { owner: NOBODY, why: Why::Forked });
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
                    return Err(Foreign { owner, why: Why::Runs });
                }
                // A short claim of another thread while the state is not running.
                Err(_) => yield_now(),
            }
        }
    }

    /// The right to touch the state for a moment, inside of a run or a visit of the calling thread, which nothing can refuse. In a forked
    /// child the run or visit is over, but its thread is the only one that may come here.
    ///
    /// # Safety
    /// The calling thread is inside of a [`Running`] or [`Visiting`] of this state.
    #[inline]
    pub unsafe fn claim_inside(&self) -> Claim<'_> {
        if self.is_mine() { Claim { ownership: self, release: false } } else { self.claim_visited() }
    }

    #[cold]
    fn claim_visited(&self) -> Claim<'_> {
        match self.claim_slow(thread::current_id()) {
            Ok(claim) => claim,
            Err(foreign) if foreign.is_forked() => Claim { ownership: self, release: false },
            Err(_) => unreachable!("a visit keeps runs of other threads away"),
        }
    }

    /// Begins a run. Waits for visits of other threads to end, with a limit.
    pub fn run(&self) -> Result<Running<'_>, Foreign> {
        self.run_as(thread::current_id())
    }

    fn run_as(&self, me: usize) -> Result<Running<'_>, Foreign> {
        let mut asked = 0;
        loop {
            let mut claim = self.claim_as(me)?;
            if !claim.release {
                return Err(Foreign { owner: me, why: Why::Runs });
            }
            let Some(owner) = claim.other_visitor(me) else {
                self.running.store(true, Ordering::Relaxed);
                // The claim goes over to the run. No thread waits for that: others are refused.
                claim.release = false;
                detached::go();
                return Ok(Running { ownership: self, _stays: PhantomData });
            };
            if asked == PATIENCE {
                return Err(Foreign { owner, why: Why::Visits });
            }
            asked += 1;
            if let Some(visits) = claim.visits() {
                visits.waiting.push(visits::Waiter::new());
            }
            drop(claim);
            visits::wait();
        }
    }

    /// Begins a visit, unless another thread runs the state.
    pub fn visit(&self) -> Result<Visiting<'_>, Foreign> {
        self.visit_as(thread::current_id())
    }

    fn visit_as(&self, me: usize) -> Result<Visiting<'_>, Foreign> {
        let mut claim = self.claim_as(me)?;
        let visits = claim.release;
        if visits {
            claim.visits().get_or_insert_default().threads.push(me);
        }
        Ok(Visiting { ownership: self, thread: visits.then_some(me), _stays: PhantomData })
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

/// How a thread waits for the end of a visit.
#[cfg(not(feature = "loom"))]
mod visits {
    use std::thread::{self, Thread};
    use std::time::Duration;

    use crate::sys::detached::{Detached, detached};

    /// The longest wait between two questions.
    const SLICE: Duration = Duration::from_millis(100);

    pub struct Waiter(Thread);

    impl Waiter {
        /// The calling thread.
        pub fn new() -> Self {
            Self(thread::current())
        }

        pub fn wake(&self) {
            self.0.unpark();
        }
    }

    /// Waits until the calling thread's [`Waiter`] was woken, or a little while. Detached, since the visitor may need the interpreter
    /// to itself before it gets on.
    pub fn wait() {
        let park = |_: &Detached| thread::park_timeout(SLICE);
        detached(park);
    }
}

/// The model checker explores the questions; their order is its own.
#[cfg(feature = "loom")]
mod visits {
    pub struct Waiter;

    impl Waiter {
        pub fn new() -> Self {
            Self
        }

        pub fn wake(&self) {}
    }

    pub fn wait() {
        loom::thread::yield_now();
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
                drop(other.run_as(1));
                drop(other.claim_as(2));
            });
            if let Err(foreign) = shared.claim_as(3) {
                assert_eq!(foreign.owner, 1, "the only one that runs");
            }
            other.join().expect("no panic");
        });
    }

    /// Looks at all orders in which a thread is interrupted twice at the most: all of them would take minutes.
    fn bounded_model(check: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(check);
    }

    /// State that notes whether it is touched as the rules say.
    struct Watched {
        ownership: Ownership,
        content: loom::cell::UnsafeCell<usize>,
    }

    // SAFETY: the content is touched under a claim or in a run; that is what the models check.
    unsafe impl Sync for Watched {}
    // SAFETY: as above.
    unsafe impl Send for Watched {}

    impl Watched {
        fn new() -> Arc<Self> {
            Arc::new(Self { ownership: Ownership::default(), content: loom::cell::UnsafeCell::new(0) })
        }

        fn add(&self) {
            // SAFETY: the model checker finds threads that interfere.
            self.content.with_mut(|content| unsafe { *content += 1 });
        }

        /// As [`Ownership::claim_inside`] does for a visitor.
        fn add_inside(&self, me: usize) {
            let claim = self.ownership.claim_as(me).expect("no run of another thread begins in a visit");
            self.add();
            drop(claim);
        }
    }

    #[test]
    fn loom_a_run_waits_for_a_visit_and_a_visit_is_refused_by_a_run() {
        bounded_model(|| {
            let shared = Watched::new();
            let other = shared.clone();
            let other = loom::thread::spawn(move || {
                let run = other.ownership.run_as(1).expect("the visit ends");
                other.add();
                other.add();
                drop(run);
            });
            match shared.ownership.visit_as(2) {
                Ok(visit) => {
                    // Between the two there might be foreign code.
                    shared.add_inside(2);
                    assert!(!shared.ownership.is_running());
                    shared.add_inside(2);
                    drop(visit);
                }
                Err(foreign) => assert_eq!((foreign.owner, foreign.why), (1, Why::Runs)),
            }
            other.join().expect("no panic");
            drop(shared.ownership.run_as(3).expect("no visit is left"));
        });
    }

    #[test]
    fn loom_visits_of_two_threads_share_the_state_by_turns() {
        bounded_model(|| {
            let shared = Watched::new();
            let other = shared.clone();
            let visit = move |shared: &Watched, me| {
                let visit = shared.ownership.visit_as(me).expect("it is not running");
                shared.add_inside(me);
                drop(visit);
            };
            let thread = loom::thread::spawn(move || visit(&other, 1));
            visit(&shared, 2);
            thread.join().expect("no panic");
            let run = shared.ownership.run_as(3).expect("both are over");
            shared.content.with(|content| {
                // SAFETY: run.
                assert_eq!(unsafe { *content }, 2);
            });
            drop(run);
        });
    }

    #[test]
    fn loom_a_run_inside_a_visit_waits_for_others_only() {
        bounded_model(|| {
            let shared = Watched::new();
            let other = shared.clone();
            let other = loom::thread::spawn(move || {
                if let Ok(visit) = other.ownership.visit_as(1) {
                    other.add_inside(1);
                    drop(visit);
                }
            });
            let visit = shared.ownership.visit_as(2).expect("no other thread runs it");
            let run = shared.ownership.run_as(2).expect("its own visit does not count");
            shared.add();
            drop(run);
            shared.add_inside(2);
            drop(visit);
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
                        let _claim = shared.claim().expect("the loop is not running");
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
        let run = shared.run().expect("free");
        assert!(shared.claim().is_ok());
        assert!(shared.is_mine(), "an inner claim does not give the loop away");
        let me = thread::current_id();
        let other = shared.clone();
        std::thread::spawn(move || assert_eq!(other.claim().err().map(|foreign| foreign.owner), Some(me)))
            .join()
            .expect("no panic");
        drop(run);
        std::thread::spawn(move || assert!(shared.claim().is_ok())).join().expect("no panic");
    }

    /// What a thread of its own gets.
    fn elsewhere<R: Send>(look: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| scope.spawn(look).join().expect("no panic"))
    }

    #[test]
    fn a_visit_lets_others_claim_and_visit_but_not_run() {
        let shared = Ownership::default();
        let visit = shared.visit().expect("free");
        elsewhere(|| {
            drop(shared.claim().expect("a visit is not a claim"));
            drop(shared.visit().expect("nor does it keep others from visiting"));
        });
        let began = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let run = shared.run().expect("the visit ends");
                began.store(true, Ordering::Relaxed);
                drop(run);
            });
            // Until the other thread has come to wait.
            while shared
                .claim()
                .expect("no run")
                .visits()
                .as_ref()
                .is_none_or(|visits| visits.waiting.is_empty())
            {
                yield_now();
            }
            assert!(!began.load(Ordering::Relaxed));
            // SAFETY: inside of the visit.
            drop(unsafe { shared.claim_inside() });
            drop(visit);
            waits.join().expect("no panic");
        });
        assert!(shared.claim().expect("free").visits().is_none());
    }

    #[test]
    fn a_run_in_a_visit_of_its_own_thread_does_not_wait() {
        let shared = Ownership::default();
        let visit = shared.visit().expect("free");
        let run = shared.run().expect("the visit is our own");
        drop(shared.visit().expect("and so is the run"));
        assert!(shared.is_mine());
        assert_eq!(elsewhere(|| shared.visit().err().map(|foreign| foreign.why)), Some(Why::Runs));
        drop(run);
        assert!(!shared.is_mine());
        drop(visit);
        elsewhere(|| drop(shared.run().expect("all is over")));
    }

    #[test]
    fn a_run_is_not_begun_twice() {
        let shared = Ownership::default();
        let run = shared.run().expect("free");
        assert_eq!(shared.run().err().map(|foreign| foreign.why), Some(Why::Runs));
        assert!(shared.is_mine(), "the refused one gave nothing back");
        drop(run);
    }

    #[test]
    fn guards_give_back_by_a_panic_too() {
        let shared = Ownership::default();
        for run in [true, false] {
            let panics = std::panic::AssertUnwindSafe(|| {
                let _guards = (shared.visit().expect("free"), run.then(|| shared.run().expect("free")));
                panic!("on purpose");
            });
            assert!(std::panic::catch_unwind(panics).is_err());
            assert!(!shared.is_running() && !shared.is_mine());
            elsewhere(|| drop(shared.run().expect("given back")));
        }
    }

    /// What a forked child finds, whose thread was inside of a run or a visit. The states are made as of an earlier process, since a
    /// generation once begun counts for all tests.
    #[test]
    fn what_was_inherited_is_given_back_by_nobody() {
        for runs in [true, false] {
            let mut shared = Ownership::default();
            let me = thread::current_id();
            {
                let visit = Visiting { ownership: &shared, thread: Some(me), _stays: PhantomData };
                let run = runs.then(|| shared.run().expect("free"));
                std::mem::forget((visit, run));
            }
            shared.generation = shared.generation.wrapping_sub(1);
            shared.disown();
            // SAFETY: inside of what the parent's thread began.
            drop(unsafe { shared.claim_inside() });
            for refused in [shared.claim().err(), shared.visit().err(), shared.run().err()] {
                assert_eq!(refused.map(|foreign| foreign.why), Some(Why::Forked));
            }
            drop(Visiting { ownership: &shared, thread: Some(me), _stays: PhantomData });
            drop(Running { ownership: &shared, _stays: PhantomData });
            assert_eq!(shared.owner.load(Ordering::Relaxed), NOBODY);
        }
    }
}
