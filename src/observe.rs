//! Structured events on the terminal: `TOKIOLOOP_LOG=debug` (a level, or `tracing` directives).
//!
//! Without the variable nothing is installed and an event costs one relaxed load. An application that has its own
//! `tracing` subscriber in this process keeps it.

use tracing_subscriber::EnvFilter;

use crate::sys::pipe;

/// The environment variable.
const VARIABLE: &str = "TOKIOLOOP_LOG";

/// Starts printing to standard error if the environment asks for it.
pub fn init() {
    let Ok(filter) = EnvFilter::try_from_env(VARIABLE) else { return };
    // An error means that a subscriber is installed already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| StandardError)
        .with_ansi(false)
        .with_thread_ids(true)
        .try_init();
}

/// Written past Rust's own handle, which would stay locked while a slow reader makes the writer wait.
struct StandardError;

impl std::io::Write for StandardError {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        pipe::write_to_stderr(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
