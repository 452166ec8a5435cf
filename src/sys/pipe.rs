//! Pipes, FIFOs, terminals and other descriptors that read(2) and write(2) serve. No data call keeps other threads waiting, even where
//! the program has made the descriptor blocking; EINTR is retried inside.
//!
//! A flag of the call tells the kernel not to wait. The kernel supports it for pipes and sockets; for FIFOs, terminals and, before Linux
//! 6.4, pipes it refuses it. Those are polled for readiness and then read or written detached; the thread waits only if another process
//! takes the bytes meanwhile.

use std::io::{self, IoSlice};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::detached::{Detached, detached, may_detach};
use super::{check, is_blocking, is_ready, retry};

/// What a descriptor stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Fifo,
    Socket,
    Character,
    /// A regular file, a directory and the like.
    Other,
}

/// May wait for the file system of the descriptor's file.
pub fn kind(_: &Detached, fd: RawFd) -> io::Result<Kind> {
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
    // SAFETY: a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// The offset, in two halves, that stands for the descriptor's own position.
const HERE: libc::c_long = -1;

/// The error of a call that must be made in another place: it may have to wait, and other threads wait for this one
/// (see [`detached`](super::detached)). Nothing was read or written.
pub fn is_misplaced(error: &io::Error) -> bool {
    // None of the kernel's, which have numbers.
    error.kind() == io::ErrorKind::ResourceBusy && error.raw_os_error().is_none()
}

/// Reads the bytes that have come; 0 is the end.
///
/// # Safety
/// `ptr` must be valid for writing `len` bytes for the time of the call.
pub unsafe fn read_raw(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: ptr.cast(), iov_len: len };
    let read = retry(|| {
        // SAFETY: promised by the caller.
        check(unsafe {
            libc::syscall(libc::SYS_preadv2, fd, &raw const piece, 1usize, HERE, HERE, libc::RWF_NOWAIT)
        })
    });
    match read {
        // SAFETY: promised by the caller.
        Err(error) if is_refusal(&error) => unsafe { read_slowly(fd, ptr, len) },
        other => other,
    }
}

/// Writes what fits.
pub fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    write_vectored(fd, &[IoSlice::new(data)])
}

/// Writes what fits of several pieces.
pub fn write_vectored(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let written = retry(|| {
        // SAFETY: IoSlice has the layout of iovec; the kernel only reads what it describes.
        check(unsafe {
            libc::syscall(libc::SYS_pwritev2, fd, pieces.as_ptr(), pieces.len(), HERE, HERE, libc::RWF_NOWAIT)
        })
    });
    match written {
        Err(error) if is_refusal(&error) => write_slowly(fd, pieces),
        other => other,
    }
}

/// The kernel, or this kind of descriptor, does not know the flag.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// What a FIFO that is ready for writing surely takes.
const PIECE: usize = libc::PIPE_BUF;

/// # Safety
/// As for [`read_raw`].
#[cold]
unsafe fn read_slowly(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
    struct Memory(*mut u8);
    // SAFETY: it is used by the thread that waits for the call.
    unsafe impl Send for Memory {}

    if !may_detach() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    if is_blocking(fd)? && !is_ready(fd, libc::POLLIN)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let memory = Memory(ptr);
    // SAFETY: promised by the caller.
    detached(move |token| unsafe {
        let memory = memory;
        read_blocking(token, fd, memory.0, len)
    })
}

/// # Safety
/// As for [`read_raw`].
unsafe fn read_blocking(_: &Detached, fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
    // SAFETY: promised by the caller.
    retry(|| check(unsafe { libc::read(fd, ptr.cast(), len) } as i64))
}

/// A blocking descriptor gets no more at once than it has room for, until it has none.
#[cold]
fn write_slowly(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    if !may_detach() {
        return write_without_waiting(fd, pieces);
    }
    if !is_blocking(fd)? {
        return detached(|token| write_blocking(token, fd, pieces));
    }
    let mut written = 0;
    for piece in pieces.iter().flat_map(|piece| piece.chunks(PIECE)) {
        let sent = match is_ready(fd, libc::POLLOUT)? {
            true => detached(|token| write_blocking(token, fd, &[IoSlice::new(piece)])),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        match sent {
            Ok(sent) if sent == piece.len() => written += sent,
            Ok(sent) => return Ok(written + sent),
            // Bytes written before an error are reported first; the error comes again.
            Err(_) if written > 0 => return Ok(written),
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// A program that writes while its loop does not run may read the other end next, in the same thread: so bytes that fit must be written at once. The
/// descriptor's flags are checked before the call; a program that makes it blocking between the two makes others wait.
fn write_without_waiting(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    if is_blocking(fd)? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // SAFETY: IoSlice has the layout of iovec; the kernel only reads what it describes.
    retry(|| check(unsafe { libc::writev(fd, pieces.as_ptr().cast(), pieces.len() as i32) } as i64))
}

fn write_blocking(_: &Detached, fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: IoSlice has the layout of iovec; the kernel only reads what it describes.
    retry(|| check(unsafe { libc::writev(fd, pieces.as_ptr().cast(), pieces.len() as i32) } as i64))
}

/// Writes to the standard error, which may be anything and block for any time.
pub fn write_to_stderr(data: &[u8]) -> io::Result<usize> {
    if may_detach() {
        return detached(|token| write_blocking(token, libc::STDERR_FILENO, &[IoSlice::new(data)]));
    }
    write(libc::STDERR_FILENO, data)
}
