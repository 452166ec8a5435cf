//! Plain counters of one loop, written by its thread only.

/// What a loop has done since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// Times the driver was polled for events.
    pub polls: u64,
    /// Times the loop slept in the kernel.
    pub parks: u64,
    /// Connections accepted.
    pub accepts: u64,
}
