//! Every call into libc that is not made through mio or socket2. Thin, safe wrappers: arguments in Rust
//! types, errors as `io::Error`, no policy. Which of them block is said at each.

pub mod clock;
pub mod datagram;
pub mod dns;
pub mod epoll;
pub mod file;
pub mod libssl;
pub mod pipe;
pub mod process;
pub mod signal;
pub mod socket;
pub mod thread;

/// The system's words for an error number, as `strerror(3)` has them.
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
