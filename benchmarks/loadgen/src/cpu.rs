//! CPU time of processes: ours by `getrusage`, another's by its own kernel clock.
//!
//! The only module that calls libc. The clock of another process counts nanoseconds of all its threads, so a
//! window of half a second is measured to better than a thousandth.

use std::io;
use std::time::Duration;

/// CPU time (user and system, all threads) that process `pid` has used so far.
pub fn of_process(pid: i32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place to write to for the length of the call.
    let code = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to; a wrong clock is reported by the return value.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// CPU time (user and system, all threads) that this process has used so far.
pub fn own() -> Duration {
    // SAFETY: rusage is plain old data; all zeroes are a valid value, and getrusage overwrites it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Blocks SIGTERM and SIGINT in this thread and those it will start, so that `wait_for_end` receives them.
pub fn hold_end_signals() {
    // SAFETY: the set is initialised by sigemptyset before use and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Waits for SIGTERM or SIGINT, which `hold_end_signals` must have blocked.
pub fn wait_for_end() {
    // SAFETY: the set is initialised by sigemptyset before use and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut signal = 0;
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigwait(&set, &mut signal);
    }
}
