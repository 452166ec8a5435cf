//! Which thread this is.

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
