//! Thread identity and signal masks.

/// The calling thread's identity: what Python's `threading.get_ident()` returns. Never 0 for a live thread.
#[inline]
pub fn current_id() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let id: usize;
        // SAFETY: reads the thread control block's first word, which the ABI makes its own address: what pthread_self()
        // returns. Every access to a future asks for it, and a call through the linkage table costs several times as much.
        unsafe {
            std::arch::asm!("mov {}, fs:0", out(reg) id, options(nostack, preserves_flags, pure, readonly))
        };
        id
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: always callable.
    unsafe {
        libc::pthread_self() as usize
    }
}

/// Whether the calling thread is the process's main thread. After a fork the forking thread is.
pub fn is_main() -> bool {
    // SAFETY: always callable.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t == libc::getpid() }
}

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
/// [`register_membarrier`]. Takes about a microsecond; does not block.
pub fn membarrier() -> bool {
    call_membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_thread_is_known_by_its_pthread_id() {
        let check = || {
            // SAFETY: always callable.
            assert_eq!(super::current_id(), unsafe { libc::pthread_self() } as usize);
        };
        check();
        std::thread::spawn(check).join().expect("no panic");
    }
}
