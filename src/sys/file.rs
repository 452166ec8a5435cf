//! Calls on regular files, which may wait for the disk or a network file system.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::detached::Detached;
use super::{check, retry};

/// Sends up to `count` bytes of `file` from `offset` on to a socket, without moving the file's position; 0 is the end of the
/// file. May wait for the disk, and for a socket that is blocking.
///
/// A peer that is gone raises SIGPIPE, which Python ignores from its start on: sendfile has no flag against it.
pub fn send(_: &Detached, socket: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
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

/// A whole file.
pub fn read(_: &Detached, path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// `preferred` if that is a file of the directory, or else all its files.
pub fn one_or_all(_: &Detached, directory: &Path, preferred: &str) -> Vec<PathBuf> {
    let one = directory.join(preferred);
    if one.is_file() {
        return vec![one];
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}
