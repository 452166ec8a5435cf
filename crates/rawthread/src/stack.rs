//! How much of a thread's stack is left.

use std::cell::Cell;

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

/// Where the reserve of the calling thread's stack begins; None where the system does not report it.
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
}
