//! Children of this process, each by a descriptor of its own (a pidfd), so that a number used again is never mistaken for
//! its predecessor. Nothing here blocks.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// How a child ended, as `subprocess` reports it: its exit code, or the negated number of the signal that ended it.
pub type ExitCode = i32;

/// A descriptor that becomes readable when the child ends; close-on-exec. ESRCH when the number is not a child's (any more).
pub fn open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor without another owner.
    let child = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // Other code may have taken the child's status, and another process may have got its number.
    match wait(&child, libc::WEXITED | libc::WNOWAIT) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
        other => other.map(|_| child),
    }
}

/// Signals a child. ESRCH once its exit status was taken, whichever process has its number now.
pub fn signal(child: &OwnedFd, number: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the call takes numbers, and a null pointer for the signal's usual details.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, child.as_raw_fd(), number, info, 0) }).map(drop)
}

/// Takes the exit status of a child that has ended; None while it lives. ECHILD when other code took it.
pub fn reap(child: &OwnedFd) -> io::Result<Option<ExitCode>> {
    let info = wait(child, libc::WEXITED)?;
    // SAFETY: filled in by waitid, for which these fields are the valid ones.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(status),
        _ => Some(-status),
    })
}

fn wait(child: &OwnedFd, options: i32) -> io::Result<libc::siginfo_t> {
    // SAFETY: zeroed is a valid siginfo_t; its pid stays 0 where there is nothing to tell.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let fd = child.as_raw_fd() as libc::id_t;
    // SAFETY: the pointer is valid for the call.
    check(unsafe { libc::waitid(libc::P_PIDFD, fd, &mut info, options | libc::WNOHANG) })?;
    Ok(info)
}
