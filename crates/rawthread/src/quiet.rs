//! Debug builds know where a thread must not call Python: under a claim, under the locks of futures, and with a guard of `Attached`.
//!
//! A reference that is released there may run any code, which then waits for what its own thread holds, or blocks all threads
//! that want it: attached, so a collection, which stops every attached thread, never begins and never ends. A call into Python, and
//! an entry from it, may come to a safe point, where the collector stops the thread in the middle of a change.

#[cfg(debug_assertions)]
use std::cell::Cell;
use std::marker::PhantomData;

/// What keeps a thread quiet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Under {
    /// A claim, with or without the locks of futures. The thread that runs the loop may detach, since others are refused meanwhile;
    /// whether it may is known to `sys::detached`, in release builds too.
    Claim = 1,
    /// A lock of which the collector expects that no stopped or detached thread has it.
    Lock = 1 << 16,
}

#[cfg(debug_assertions)]
thread_local! {
    /// How many of each kind this thread is under, each counted in its own half.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Until it is dropped, this thread releases no reference to a Python object, and calls no Python. Costs nothing in release builds.
#[must_use]
pub struct Quiet {
    #[cfg(debug_assertions)]
    under: Under,
    /// It counts for the thread that made it.
    _stays: PhantomData<*const ()>,
}

impl Quiet {
    #[inline]
    pub fn begin(under: Under) -> Self {
        #[cfg(debug_assertions)]
        DEPTH.set(DEPTH.get() + under as u32);
        #[cfg(not(debug_assertions))]
        let _ = under;
        Self {
            #[cfg(debug_assertions)]
            under,
            _stays: PhantomData,
        }
    }
}

#[cfg(debug_assertions)]
impl Drop for Quiet {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - self.under as u32);
    }
}

/// Debug builds: checks that the calling thread may call Python and release references. A thread that panics releases what it has.
#[inline]
pub fn check_over() {
    #[cfg(debug_assertions)]
    if DEPTH.get() != 0 && !std::thread::panicking() {
        panic!("Python is called, or a reference released, under a claim or a lock");
    }
}

/// Debug builds: checks that the calling thread may detach, as far as locks say.
#[inline]
pub fn check_no_lock() {
    #[cfg(debug_assertions)]
    if DEPTH.get() >= Under::Lock as u32 && !std::thread::panicking() {
        panic!("a thread detaches with a guard of `Attached`");
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_until_the_outermost_is_over() {
        let outer = Quiet::begin(Under::Claim);
        drop(Quiet::begin(Under::Claim));
        assert!(std::panic::catch_unwind(check_over).is_err());
        std::thread::spawn(check_over).join().expect("each thread has its own");
        drop(outer);
        check_over();
    }

    #[test]
    fn a_lock_forbids_more_than_a_claim() {
        let claim = Quiet::begin(Under::Claim);
        check_no_lock();
        let lock = Quiet::begin(Under::Lock);
        assert!(std::panic::catch_unwind(check_no_lock).is_err());
        drop(claim);
        assert!(std::panic::catch_unwind(check_over).is_err());
        drop(lock);
        check_over();
    }
}
