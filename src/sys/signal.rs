//! The process's wake-up socketpair for signals: CPython's C handler writes each signal's number to one end,
//! the main thread's loop reads the other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

static PAIR: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

/// The reading and the writing end, made at the first call; both non-blocking and close-on-exec.
pub fn wakeup_pair() -> io::Result<(RawFd, RawFd)> {
    if let Some((read, write)) = PAIR.get() {
        return Ok((read.as_raw_fd(), write.as_raw_fd()));
    }
    let (read, write) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    let (read, write) = PAIR.get_or_init(|| (read.into(), write.into()));
    Ok((read.as_raw_fd(), write.as_raw_fd()))
}

/// Reads the numbers of the signals that came since the last call, up to `buf.len()` signal numbers.
pub fn read_wakeup(buf: &mut [u8]) -> io::Result<usize> {
    let (read, _) = wakeup_pair()?;
    super::socket::recv(read, buf)
}
