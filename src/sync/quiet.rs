//! Debug builds know where a thread must not call Python: under a claim and under the locks of futures.
//!
//! A reference that is released there may run any code, which then waits for what its own thread holds, or keeps all those waiting
//! who want it: attached, so that a collection, which stops every attached thread, never begins and never ends.

#[cfg(debug_assertions)]
use std::cell::Cell;
use std::marker::PhantomData;

#[cfg(debug_assertions)]
thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Until it is dropped, this thread releases no reference to a Python object. Costs nothing in release builds.
#[must_use]
pub struct Quiet(PhantomData<*const ()>);

impl Quiet {
    #[inline]
    pub fn begin() -> Self {
        #[cfg(debug_assertions)]
        DEPTH.set(DEPTH.get() + 1);
        Self(PhantomData)
    }
}

impl Drop for Quiet {
    #[inline]
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether the calling thread may release references. Release builds do not know, and say yes.
#[inline]
pub fn is_over() -> bool {
    #[cfg(debug_assertions)]
    return DEPTH.get() == 0;
    #[cfg(not(debug_assertions))]
    true
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_until_the_outermost_is_over() {
        let outer = Quiet::begin();
        drop(Quiet::begin());
        assert!(!is_over());
        assert!(std::thread::spawn(is_over).join().expect("no panic"), "each thread has its own");
        drop(outer);
        assert!(is_over());
    }
}
