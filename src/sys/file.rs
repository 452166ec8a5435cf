//! Calls on regular files.

use std::io;
use std::os::fd::RawFd;

use super::{check, retry};

/// Sends up to `count` bytes of `file` from `offset` on to a socket, without moving the file's position; 0 is the end of the
/// file. Does not wait for the (non-blocking) socket; may wait for the disk.
///
/// A peer that is gone raises SIGPIPE, which Python ignores from its start on: sendfile has no flag against it.
pub fn send(socket: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
    retry(|| {
        let mut at = offset;
        // SAFETY: `at` is ours; both descriptors are only looked up.
        check(unsafe { libc::sendfile(socket, file, &mut at, count) } as i64)
    })
}

/// Sets the file's position.
pub fn seek(file: RawFd, offset: i64) -> io::Result<()> {
    // SAFETY: touches no memory.
    check(unsafe { libc::lseek(file, offset, libc::SEEK_SET) }).map(drop)
}
