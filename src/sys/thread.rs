//! Thread identity, stacks and signal masks.

use std::cell::Cell;

use super::clock::monotonic_ns;

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

/// Of a stack that is used up to here, so much is kept for what must still run: a quarter, between these bounds.
const LEAST_RESERVE: usize = 24 * 1024;
const MOST_RESERVE: usize = 128 * 1024;

/// Whether so little of the calling thread's stack is left that nothing should be called that may come back here.
#[inline]
pub fn is_stack_short() -> bool {
    thread_local! {
        /// The address below which it is short; 0 before it was asked for.
        static LIMIT: Cell<usize> = const { Cell::new(0) };
    }
    let limit = match LIMIT.get() {
        0 => {
            let limit = stack_limit().unwrap_or(1);
            LIMIT.set(limit);
            limit
        }
        limit => limit,
    };
    // Stacks grow downwards.
    let here = 0u8;
    (&raw const here as usize) < limit
}

/// Where the reserve of the calling thread's stack begins; None where the system does not tell.
#[cold]
fn stack_limit() -> Option<usize> {
    // SAFETY: zeroed is a valid place for the attributes, which are filled in, asked and destroyed; all pointers are valid.
    let (low, size) = unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        let told = libc::pthread_attr_getstack(&attributes, &mut low, &mut size) == 0;
        libc::pthread_attr_destroy(&mut attributes);
        if !told {
            return None;
        }
        (low as usize, size)
    };
    Some(low + (size / 4).clamp(LEAST_RESERVE, MOST_RESERVE))
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

/// As [`membarrier`], by whatever means there are and in up to some hundredths of a second. For once in a process.
///
/// The kernel's other barrier first, which needs no registration. A filter that refuses the one most likely refuses both. Then a page is
/// given another protection: where processors are told of that by an interrupt, each that runs a thread of ours has passed a fence.
/// Some are told without an interrupt, so it goes on for much longer than any store takes to leave its processor: tens of
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

/// Has every processor that runs a thread of this process forget where a page was.
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

#[cfg(test)]
mod tests {
    #[test]
    fn a_stack_is_short_before_its_end() {
        fn dive(depth: usize) -> usize {
            let room = std::hint::black_box([0u8; 512]);
            if super::is_stack_short() { depth } else { dive(depth + 1) + usize::from(room[depth % 512]) }
        }
        for size in [64, 256, 1024] {
            let thread = std::thread::Builder::new().stack_size(size * 1024).spawn(|| dive(0));
            let depth = thread.expect("a thread").join().expect("no overflow");
            assert!(depth >= size / 8, "{depth} of {size} KiB");
        }
        assert!(!super::is_stack_short());
    }

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
