//! The shared work-stealing Tokio runtime: one for the process, built at first use.
//!
//! Its threads block all signals and never touch Python: work given to it is plain Rust and reports back
//! through a loop's inbox. It is never shut down; the process's end takes its threads along.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::sys::thread;

/// The runtime, and the process that built it: the threads of a forked child's copy are not there.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// The runtime's handle; the first call starts it.
pub fn handle() -> io::Result<&'static Handle> {
    let mut runtime = RUNTIME.lock();
    if let Some((process, runtime)) = *runtime
        && process == std::process::id()
    {
        return Ok(runtime.handle());
    }
    let built = thread::with_signals_blocked(|| {
        Builder::new_multi_thread()
            .thread_name("tokioloop")
            .on_thread_start(thread::block_all_signals)
            .build()
    })?;
    tracing::debug!(workers = built.metrics().num_workers(), "runtime started");
    Ok(runtime.insert((std::process::id(), Box::leak(Box::new(built)))).1.handle())
}

/// Runs a blocking function on the runtime's blocking pool.
pub fn spawn_blocking(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let handle = handle()?;
    // The pool starts threads from the calling one: they must not inherit an open signal mask even for a moment.
    starting_threads(|| drop(handle.spawn_blocking(work)))
}

/// Runs `start` with all signals blocked. Tokio panics where the system refuses a thread; here that is an error.
fn starting_threads<R>(start: impl FnOnce() -> R) -> io::Result<R> {
    let start = AssertUnwindSafe(|| thread::with_signals_blocked(start));
    catch_unwind(start).map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    #[test]
    fn blocking_work_runs_with_all_signals_blocked() {
        let (sender, receiver) = std::sync::mpsc::channel();
        super::spawn_blocking(move || {
            // SAFETY: reads the thread's mask into a valid set.
            let blocked = unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
                libc::sigismember(&set, libc::SIGINT) == 1 && libc::sigismember(&set, libc::SIGTERM) == 1
            };
            sender.send(blocked).expect("the test waits");
        })
        .expect("the runtime starts");
        assert!(receiver.recv().expect("the work runs"));
    }
}
