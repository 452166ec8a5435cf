//! A lock biased towards one thread: the owner takes it with two plain stores and no atomic read-modify-write; visitors
//! pay a system call.
//!
//! Two flags, as in Dekker's algorithm: each side raises its own, then looks at the other's. That needs a full fence between
//! the store and the load on both sides. The owner's is only a compiler fence; the visitor's `membarrier(2)` makes every
//! running thread of the process pass a full fence, which stands for the owner's too. Where the kernel has no such call, or refuses
//! it from some moment on, the owner fences for itself.
//!
//! | side      | taken by                                                         | cost               |
//! |-----------|------------------------------------------------------------------|--------------------|
//! | `owner`   | one thread at a time; its caller ensures that (the claim)        | two stores, a load |
//! | `visitor` | any other thread; they exclude one another by a mutex            | about a microsecond |
//!
//! The owner holds its side for a few instructions. A visitor may take longer (one copies the list of all tasks of a loop), and the owner
//! waits for it. Under neither side does anything block, detach, call Python or take the lock again, so a thread that waits, attached to the
//! interpreter, waits for a thread that runs.

use super::{AtomicBool, Mutex, MutexGuard, Ordering, lock};

/// A lock without content; it orders whatever its users agree on.
pub struct BiasedLock {
    owned: AtomicBool,
    visited: AtomicBool,
    visitors: Mutex<()>,
}

/// The owner's side, until dropped.
#[must_use]
pub struct Owner<'a> {
    lock: &'a BiasedLock,
    /// Where a visitor was met, the owner continues as a visitor.
    waited: Option<MutexGuard<'a, ()>>,
}

/// A visitor's side, until dropped.
#[must_use]
pub struct Visitor<'a> {
    lock: &'a BiasedLock,
    _turn: MutexGuard<'a, ()>,
}

impl BiasedLock {
    #[cfg(not(feature = "loom"))]
    pub fn new() -> Self {
        fence::prepare();
        Self { owned: AtomicBool::new(false), visited: AtomicBool::new(false), visitors: Mutex::new(()) }
    }

    #[cfg(feature = "loom")]
    pub fn new() -> Self {
        Self { owned: AtomicBool::new(false), visited: AtomicBool::new(false), visitors: Mutex::new(()) }
    }

    /// Takes the lock for its owner: one thread at a time, which the caller ensures.
    #[inline]
    pub fn owner(&self) -> Owner<'_> {
        debug_assert!(!self.owned.load(Ordering::Relaxed), "the owner's side is taken once at a time");
        self.owned.store(true, Ordering::Relaxed);
        fence::light();
        // Acquire: pairs with the Release of a visitor that has left.
        if self.visited.load(Ordering::Acquire) {
            return self.wait_for_visitor();
        }
        Owner { lock: self, waited: None }
    }

    #[cold]
    fn wait_for_visitor(&self) -> Owner<'_> {
        // Release: nothing was touched yet, but the visitor waits for this.
        self.owned.store(false, Ordering::Release);
        let turn = lock(&self.visitors);
        Owner { lock: self, waited: Some(turn) }
    }

    /// Takes the lock for any other thread. Waits for the owner by yielding: its side is held for a few instructions.
    pub fn visitor(&self) -> Visitor<'_> {
        let turn = lock(&self.visitors);
        self.visited.store(true, Ordering::Relaxed);
        fence::heavy();
        // Acquire: pairs with the owner's Release; what it did is seen.
        while self.owned.load(Ordering::Acquire) {
            yield_now();
        }
        Visitor { lock: self, _turn: turn }
    }
}

impl Owner<'_> {
    /// The lock whose side this is.
    #[inline]
    pub(super) fn lock(&self) -> &BiasedLock {
        self.lock
    }
}

impl Visitor<'_> {
    /// The lock whose side this is.
    #[inline]
    pub(super) fn lock(&self) -> &BiasedLock {
        self.lock
    }
}

impl Drop for Owner<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.waited.is_none() {
            // Release: pairs with the visitor's Acquire.
            self.lock.owned.store(false, Ordering::Release);
        }
    }
}

impl Drop for Visitor<'_> {
    fn drop(&mut self) {
        // Release: pairs with the owner's Acquire. The next visitor is ordered by the mutex, which goes after this.
        self.lock.visited.store(false, Ordering::Release);
    }
}

impl Default for BiasedLock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(feature = "loom"))]
fn yield_now() {
    crate::sys::thread::yield_now();
}

#[cfg(feature = "loom")]
fn yield_now() {
    loom::thread::yield_now();
}

#[cfg(not(feature = "loom"))]
mod fence {
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

    use crate::sys::thread;

    /// The kernel has no `membarrier`, or has begun to refuse it: owners fence for themselves. Never unset.
    static SYMMETRIC: AtomicBool = AtomicBool::new(false);
    /// As [`SYMMETRIC`], once no owner is left that might not have seen that.
    static SETTLED: AtomicBool = AtomicBool::new(false);

    pub fn prepare() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // Before the first lock is made, so that there is no owner.
            if !thread::register_membarrier() {
                SYMMETRIC.store(true, Ordering::SeqCst);
                SETTLED.store(true, Ordering::SeqCst);
            }
        });
    }

    #[inline]
    pub fn light() {
        compiler_fence(Ordering::SeqCst);
        if SYMMETRIC.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
    }

    #[inline]
    pub fn heavy() {
        fence(Ordering::SeqCst);
        // Acquire: pairs with the Release in `change_over`.
        if SETTLED.load(Ordering::Acquire) || thread::membarrier() {
            return;
        }
        change_over();
    }

    /// The kernel refuses what it granted before. Registering again helps where the registration was lost. Otherwise owners fence from here
    /// on; for owners that have not seen that yet, this call fences. Concurrent callers each do so.
    #[cold]
    fn change_over() {
        if thread::register_membarrier() && thread::membarrier() {
            return;
        }
        SYMMETRIC.store(true, Ordering::SeqCst);
        thread::slow_membarrier();
        // Release: a visitor that skips the barrier from here on comes after it.
        SETTLED.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

/// Loom knows no `membarrier`: both sides fence, which is what it stands for.
#[cfg(feature = "loom")]
mod fence {
    use loom::sync::atomic::{Ordering, fence};

    pub fn light() {
        fence(Ordering::SeqCst);
    }

    pub fn heavy() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;
    use std::sync::Arc;

    #[test]
    fn owner_and_visitors_never_overlap() {
        struct Pair(BiasedLock, UnsafeCell<(u64, u64)>);
        // SAFETY: the content is touched under the lock only; that is what the test checks.
        unsafe impl Sync for Pair {}
        let pair = Arc::new(Pair(BiasedLock::new(), UnsafeCell::new((0, 0))));
        let visitors: Vec<_> = (0..3)
            .map(|_| {
                let pair = pair.clone();
                std::thread::spawn(move || {
                    for _ in 0..2_000 {
                        let _held = pair.0.visitor();
                        // SAFETY: under the lock.
                        let content = unsafe { &mut *pair.1.get() };
                        assert_eq!(content.0, content.1);
                        content.0 += 1;
                        content.1 += 1;
                    }
                })
            })
            .collect();
        let mut owned = 0;
        while visitors.iter().any(|visitor| !visitor.is_finished()) {
            let _held = pair.0.owner();
            // SAFETY: under the lock.
            let content = unsafe { &mut *pair.1.get() };
            assert_eq!(content.0, content.1);
            content.0 += 1;
            content.1 += 1;
            owned += 1;
        }
        visitors.into_iter().for_each(|visitor| visitor.join().expect("no overlap was seen"));
        let _held = pair.0.owner();
        // SAFETY: under the lock.
        assert_eq!(unsafe { *pair.1.get() }, (6_000 + owned, 6_000 + owned));
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    #[test]
    fn loom_owner_and_visitors_exclude_one_another() {
        loom::model(|| {
            struct Pair(BiasedLock, UnsafeCell<u32>);
            // SAFETY: the content is touched under the lock only; loom checks that.
            unsafe impl Sync for Pair {}
            // SAFETY: as above.
            unsafe impl Send for Pair {}
            let pair = Arc::new(Pair(BiasedLock::new(), UnsafeCell::new(0)));
            let visitor = {
                let pair = pair.clone();
                loom::thread::spawn(move || {
                    let _held = pair.0.visitor();
                    // SAFETY: under the lock.
                    pair.1.with_mut(|content| unsafe { *content += 1 });
                })
            };
            for _ in 0..2 {
                let _held = pair.0.owner();
                // SAFETY: under the lock.
                pair.1.with_mut(|content| unsafe { *content += 1 });
            }
            visitor.join().expect("no panic");
            // SAFETY: all threads are gone.
            assert_eq!(pair.1.with(|content| unsafe { *content }), 3);
        });
    }
}
