//! Which of several workers sleep, so that a thread that brings work wakes one, and no worker sleeps while there is work.
//!
//! A worker that finds nothing to do marks itself asleep ([`Sleepers::enter`]) and then looks once more. A thread that brings work puts it
//! where workers look, and then asks for a sleeper ([`Sleepers::take_one`]). Both put a full fence between their two
//! steps, so at least one of them sees the other: the worker finds the work, or it is found asleep and woken. A worker is
//! taken once; it enters again when it next runs out of work.

use super::{AtomicU64, Condvar, Mutex, Ordering, fence, lock, wait};

const BITS: usize = 64;

pub struct Sleepers {
    /// A bit for each worker, set while it sleeps or is about to.
    words: Box<[AtomicU64]>,
}

impl Sleepers {
    pub fn new(workers: usize) -> Self {
        Self { words: (0..workers.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect() }
    }

    fn place(&self, worker: usize) -> (&AtomicU64, u64) {
        (&self.words[worker / BITS], 1 << (worker % BITS))
    }

    /// The worker is going to sleep unless it finds work in a look that follows this call.
    pub fn enter(&self, worker: usize) {
        let (word, bit) = self.place(worker);
        word.fetch_or(bit, Ordering::Relaxed);
        // Pairs with the fence in `take_one` and `take`.
        fence(Ordering::SeqCst);
    }

    /// The worker is awake. A thread that took it meanwhile wakes it needlessly.
    pub fn leave(&self, worker: usize) {
        let (word, bit) = self.place(worker);
        if word.load(Ordering::Relaxed) & bit != 0 {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// A worker that sleeps, for the caller to wake. Called after the work was put where workers look.
    #[inline]
    pub fn take_one(&self) -> Option<usize> {
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        for (index, word) in self.words.iter().enumerate() {
            let mut asleep = word.load(Ordering::Relaxed);
            while asleep != 0 {
                let bit = asleep & asleep.wrapping_neg();
                asleep = word.fetch_and(!bit, Ordering::Relaxed);
                if asleep & bit != 0 {
                    return Some(index * BITS + bit.trailing_zeros() as usize);
                }
            }
        }
        None
    }

    /// Whether that worker sleeps, for the caller to wake. Called after work that only it may do was put where it looks.
    pub fn take(&self, worker: usize) -> bool {
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        let (word, bit) = self.place(worker);
        word.load(Ordering::Relaxed) & bit != 0 && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }
}

/// Permissions to look for work, given to threads that wait for one: a counting semaphore. It holds nothing else, so that a thread may
/// wait for a ticket where it may not touch the work.
#[derive(Default)]
pub struct Tickets {
    left: Mutex<usize>,
    came: Condvar,
}

impl Tickets {
    /// Gives so many. Blocks for no longer than another thread's few instructions.
    pub fn give(&self, count: usize) {
        if count == 0 {
            return;
        }
        *lock(&self.left) += count;
        for _ in 0..count {
            self.came.notify_one();
        }
    }

    /// Takes one, waiting until there is one.
    pub fn take(&self) {
        let mut left = lock(&self.left);
        while *left == 0 {
            left = wait(&self.came, left);
        }
        *left -= 1;
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn each_ticket_is_taken_once() {
        let tickets = std::sync::Arc::new(Tickets::default());
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let tickets = tickets.clone();
                std::thread::spawn(move || (0..1000).for_each(|_| tickets.take()))
            })
            .collect();
        for count in (0..4).cycle().take(2000) {
            tickets.give(count);
        }
        // 3000 were given; the last 1000 wait here.
        tickets.give(1000);
        takers.into_iter().for_each(|taker| taker.join().expect("no panic"));
        assert_eq!(*tickets.left.lock(), 0);
    }

    #[test]
    fn each_sleeper_is_taken_once() {
        let sleepers = Sleepers::new(130);
        for worker in [3, 64, 129] {
            sleepers.enter(worker);
        }
        assert!(sleepers.take(64));
        assert!(!sleepers.take(64));
        assert_eq!(sleepers.take_one(), Some(3));
        assert_eq!(sleepers.take_one(), Some(129));
        assert_eq!(sleepers.take_one(), None);
        sleepers.enter(5);
        sleepers.leave(5);
        assert_eq!(sleepers.take_one(), None);
    }
}

/// Run with `cargo test --no-default-features --features loom --profile loom loom`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    struct Place {
        sleepers: Sleepers,
        /// Stands in for the queue, of which workers see only what the fences let them.
        work: AtomicUsize,
        /// Stands in for each worker's eventfd: a wake-up that comes before the wait is not lost.
        awake: [(Mutex<bool>, Condvar); 2],
    }

    impl Place {
        fn take_work(&self) -> bool {
            let mut left = self.work.load(Ordering::Relaxed);
            while left > 0 {
                match self.work.compare_exchange(left, left - 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return true,
                    Err(now) => left = now,
                }
            }
            false
        }

        /// Does one piece of work, sleeping until there is one.
        fn work(&self, me: usize) {
            loop {
                if self.take_work() {
                    return;
                }
                self.sleepers.enter(me);
                if self.work.load(Ordering::Relaxed) == 0 {
                    let (lock, woken) = &self.awake[me];
                    let mut awake = lock.lock().unwrap();
                    while !*awake {
                        awake = woken.wait(awake).unwrap();
                    }
                    *awake = false;
                }
                self.sleepers.leave(me);
            }
        }

        fn bring(&self) {
            self.work.fetch_add(1, Ordering::Relaxed);
            if let Some(worker) = self.sleepers.take_one() {
                let (lock, woken) = &self.awake[worker];
                *lock.lock().unwrap() = true;
                woken.notify_one();
            }
        }
    }

    /// A worker that slept while there is work would wait forever; loom reports that as a deadlock.
    #[test]
    fn loom_nobody_sleeps_beside_work() {
        loom::model(|| {
            let place = Arc::new(Place {
                sleepers: Sleepers::new(2),
                work: AtomicUsize::new(0),
                awake: [(Mutex::new(false), Condvar::new()), (Mutex::new(false), Condvar::new())],
            });
            let other = place.clone();
            let worker = loom::thread::spawn(move || other.work(0));
            place.bring();
            worker.join().unwrap();
        });
    }

    #[test]
    fn loom_two_workers_share_what_two_bring() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let place = Arc::new(Place {
                sleepers: Sleepers::new(2),
                work: AtomicUsize::new(0),
                awake: [(Mutex::new(false), Condvar::new()), (Mutex::new(false), Condvar::new())],
            });
            let workers: Vec<_> = (0..2)
                .map(|me| {
                    let place = place.clone();
                    loom::thread::spawn(move || place.work(me))
                })
                .collect();
            place.bring();
            place.bring();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
        });
    }
}
