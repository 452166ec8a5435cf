//! Pipes, FIFOs, terminals and other descriptors that read(2) and write(2) serve. Those given to the data calls are
//! non-blocking; EINTR is retried inside.

use std::io::{self, IoSlice};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::{check, retry};

/// What a descriptor stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Fifo,
    Socket,
    Character,
    /// A regular file, a directory and the like.
    Other,
}

pub fn kind(fd: RawFd) -> io::Result<Kind> {
    // SAFETY: zeroed is a valid `stat`, which the call fills in.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    check(unsafe { libc::fstat(fd, &mut status) })?;
    Ok(match status.st_mode & libc::S_IFMT {
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFCHR => Kind::Character,
        _ => Kind::Other,
    })
}

pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })? as i32;
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: F_SETFL takes a number.
        check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    }
    Ok(())
}

/// Another number for the same open file; close-on-exec.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes the lowest number wanted.
    let new = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// Reads what is there; 0 is the end.
///
/// # Safety
/// `ptr` must be valid for writing `len` bytes for the time of the call.
pub unsafe fn read_raw(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
    // SAFETY: promised by the caller.
    retry(|| check(unsafe { libc::read(fd, ptr.cast(), len) } as i64))
}

/// Writes what fits.
pub fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `data`.
    retry(|| check(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) } as i64))
}

/// Writes what fits of several pieces.
pub fn write_vectored(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: IoSlice has the layout of iovec; the kernel only reads what it describes.
    retry(|| check(unsafe { libc::writev(fd, pieces.as_ptr().cast(), pieces.len() as i32) } as i64))
}
