//! Every call into libc that is not made through mio or socket2. Thin, safe wrappers: arguments in Rust
//! types, errors as `io::Error`, no policy. Those that may block take a [`detached::Detached`]; the others never do,
//! whatever the descriptor is set to.

pub mod clock;
pub mod datagram;
pub mod detached;
pub mod dns;
pub mod epoll;
pub mod file;
pub mod libssl;
pub mod pipe;
pub mod process;
pub mod signal;
pub mod socket;
pub mod thread;

/// The system's text for an error number, from `strerror(3)`.
pub fn error_text(code: i32) -> String {
    let mut text = [0u8; 256];
    // SAFETY: the buffer is valid for its length; the result is checked to be a terminated string.
    let found = unsafe { libc::strerror_r(code, text.as_mut_ptr().cast(), text.len()) } == 0;
    match std::ffi::CStr::from_bytes_until_nul(&text) {
        Ok(text) if found => text.to_string_lossy().into_owned(),
        _ => format!("Unknown error {code}"),
    }
}

/// Makes a call again until no signal interrupts it.
pub(crate) fn retry(mut call: impl FnMut() -> std::io::Result<i64>) -> std::io::Result<usize> {
    loop {
        match call() {
            Ok(n) => return Ok(n as usize),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Turns libc's -1 into the thread's `errno`.
pub(crate) fn check(result: impl Into<i64>) -> std::io::Result<i64> {
    match result.into() {
        -1 => Err(std::io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// Whether calls on the descriptor wait.
pub(crate) fn is_blocking(fd: std::os::fd::RawFd) -> std::io::Result<bool> {
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })? as i32;
    Ok(flags & libc::O_NONBLOCK == 0)
}

/// Whether the descriptor has one of the events now, or is broken.
pub(crate) fn is_ready(fd: std::os::fd::RawFd, events: libc::c_short) -> std::io::Result<bool> {
    let mut asked = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one valid entry; a timeout of 0 does not wait.
    retry(|| check(unsafe { libc::poll(&mut asked, 1, 0) }))?;
    Ok(asked.revents != 0)
}
