//! Thread identity, memory barriers and signal masks.

pub use rawthread::current_id;

use super::clock::monotonic_ns;

/// Lets another thread run on this core first, if one is ready to.
pub fn yield_now() {
    // SAFETY: always callable.
    unsafe { libc::sched_yield() };
}

/// Blocks all signals in the calling thread, so that they are handled by Python's threads.
pub fn block_all_signals() {
    set_mask(|set| {
        // SAFETY: `set` is a valid sigset_t.
        unsafe { libc::sigfillset(set) };
    });
}

/// Runs `f` with all signals blocked: threads that it starts begin with them blocked. The mask comes back also if `f` panics.
pub fn with_signals_blocked<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the mask that the thread had; a null old set is allowed.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        }
    }
    // SAFETY: zeroed is a valid sigset_t; both calls get valid pointers.
    let _restore = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        Restore(old)
    };
    f()
}

fn set_mask(fill: impl FnOnce(&mut libc::sigset_t)) {
    // SAFETY: zeroed is a valid sigset_t.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    fill(&mut set);
    // SAFETY: `set` is valid; a null old set is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) };
}

// <linux/membarrier.h>
const MEMBARRIER_GLOBAL: libc::c_int = 1;
const MEMBARRIER_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

fn call_membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Prepares this process for [`membarrier`]; false where the kernel has no such call or refuses it.
pub fn register_membarrier() -> bool {
    call_membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED)
}

/// When it returns, every running thread of the process has passed a full memory fence since the call. Needs
/// [`register_membarrier`]. Takes about a microsecond; does not block. False where the kernel refuses it, which it may begin to do
/// at any time: a filter of system calls can be installed, a frozen process be restored elsewhere.
pub fn membarrier() -> bool {
    call_membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
}

/// As [`membarrier`], by other means, in up to some hundredths of a second. For use once in a process.
///
/// The kernel's other barrier first, which needs no registration. A filter that refuses the one most likely refuses both. Then the protection of
/// a page changes: where an interrupt informs processors of that, each one that runs a thread of ours has passed a fence.
/// Some are informed without an interrupt, so it goes on for much longer than any store takes to leave its processor: tens of
/// milliseconds against microseconds. It stays attached meanwhile, if it is: its caller has a lock.
#[cold]
pub fn slow_membarrier() {
    if call_membarrier(MEMBARRIER_GLOBAL) {
        return;
    }
    let begin = monotonic_ns();
    while monotonic_ns() - begin < 30_000_000 {
        change_a_page();
        yield_now();
    }
}

/// Makes every processor that runs a thread of this process drop its entry for a page.
fn change_a_page() {
    let (size, both) = (4096, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a mapping of our own, written to while that is allowed, and taken away at the end.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), size, both, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return;
        }
        // Present, so that there is something to forget.
        page.cast::<u8>().write_volatile(1);
        libc::mprotect(page, size, libc::PROT_NONE);
        libc::munmap(page, size);
    }
}
