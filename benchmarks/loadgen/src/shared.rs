//! The state that workers and the coordinator share.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};

use hdrhistogram::Histogram;

pub const WARM_UP: u8 = 0;
pub const MEASURE: u8 = 1;
pub const STOP: u8 = 2;

/// Counters of the workers for the coordinator, which reads them only for progress or after join.
#[derive(Default)]
pub struct Shared {
    pub phase: AtomicU8,
    /// Replies in the measured window.
    pub replies: AtomicU64,
    /// Connections that had a first reply, or died.
    pub warm: AtomicUsize,
    /// Workers that are done.
    pub finished: AtomicUsize,
}

/// The results of one worker in the measured window.
pub struct Seen {
    pub latency_ns: Histogram<u64>,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Datagrams that had no reply in time.
    pub lost: u64,
}

impl Default for Seen {
    fn default() -> Seen {
        // 100 ns to 60 s at three digits.
        let latency_ns = Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("valid bounds");
        Seen { latency_ns, errors: 0, first_error: None, lost: 0 }
    }
}

impl Seen {
    pub fn fail(&mut self, why: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| why.to_owned());
    }

    pub fn add(&mut self, other: Seen) {
        self.latency_ns.add(&other.latency_ns).expect("equal bounds");
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.lost += other.lost;
    }
}
