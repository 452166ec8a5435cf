//! The process's wake-up socketpair for signals: CPython's C handler writes each signal's number to one end,
//! the main thread's loop reads the other.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

/// The pair, and the process that made it: a forked child must not read its parent's signals.
static PAIR: Mutex<Option<(u32, Socket, Socket)>> = Mutex::new(None);

/// The reading and the writing end, made at the process's first call; both non-blocking and close-on-exec.
pub fn wakeup_pair() -> io::Result<(RawFd, RawFd)> {
    let mut pair = PAIR.lock();
    if let Some((process, read, write)) = &*pair
        && *process == std::process::id()
    {
        return Ok((read.as_raw_fd(), write.as_raw_fd()));
    }
    let (read, write) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    let ends = (read.as_raw_fd(), write.as_raw_fd());
    *pair = Some((std::process::id(), read, write));
    Ok(ends)
}

/// Reads the numbers of the signals that came since the last call, up to `buf.len()` signal numbers.
pub fn read_wakeup(buf: &mut [u8]) -> io::Result<usize> {
    let (read, _) = wakeup_pair()?;
    super::socket::recv(read, buf)
}
