//! Every call into libc that is not made through mio or socket2. Thin, safe wrappers: arguments in Rust
//! types, errors as `io::Error`, no policy. Which of them block is said at each.

pub mod clock;
pub mod dns;
pub mod epoll;
pub mod signal;
pub mod socket;
pub mod thread;

/// Turns libc's -1 into the thread's `errno`.
pub(crate) fn check(result: impl Into<i64>) -> std::io::Result<i64> {
    match result.into() {
        -1 => Err(std::io::Error::last_os_error()),
        value => Ok(value),
    }
}
