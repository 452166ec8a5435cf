//! Write flow control: when a protocol must pause and resume writing.

/// asyncio's default high-water mark, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// The call that the protocol must get after the buffer's size changed.
#[must_use]
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum FlowChange {
    None,
    Pause,
    Resume,
}

/// The limits are out of order; carries them for the message.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLimits {
    pub high: i64,
    pub low: i64,
}

#[derive(Debug)]
pub struct FlowControl {
    high: usize,
    low: usize,
    paused: bool,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self { high: DEFAULT_HIGH, low: DEFAULT_HIGH / 4, paused: false }
    }
}

impl FlowControl {
    /// The low-water and the high-water mark, in bytes.
    pub fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// Sets the marks; a missing one follows from the other as in asyncio (low = high / 4, high = 4 * low).
    pub fn set_limits(&mut self, high: Option<i64>, low: Option<i64>) -> Result<(), BadLimits> {
        let high = high.unwrap_or_else(|| low.map_or(DEFAULT_HIGH as i64, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high.div_euclid(4));
        if !(high >= low && low >= 0) {
            return Err(BadLimits { high, low });
        }
        (self.high, self.low) = (high as usize, low as usize);
        Ok(())
    }

    /// Whether pause_writing() was called last.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The buffer grew to `size` bytes.
    pub fn grown(&mut self, size: usize) -> FlowChange {
        if size > self.high && !self.paused {
            self.paused = true;
            return FlowChange::Pause;
        }
        FlowChange::None
    }

    /// The buffer shrank to `size` bytes.
    pub fn shrunk(&mut self, size: usize) -> FlowChange {
        if self.paused && size <= self.low {
            self.paused = false;
            return FlowChange::Resume;
        }
        FlowChange::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_above_high_and_resumes_at_low_once_each() {
        let mut flow = FlowControl::default();
        flow.set_limits(Some(100), Some(10)).unwrap();
        assert_eq!(flow.grown(100), FlowChange::None);
        assert_eq!(flow.grown(101), FlowChange::Pause);
        assert_eq!(flow.grown(500), FlowChange::None);
        assert_eq!(flow.shrunk(11), FlowChange::None);
        assert_eq!(flow.shrunk(10), FlowChange::Resume);
        assert_eq!(flow.shrunk(0), FlowChange::None);
    }

    #[test]
    fn limits_follow_from_each_other() {
        let mut flow = FlowControl::default();
        assert_eq!(flow.limits(), (16384, 65536));
        flow.set_limits(Some(1000), None).unwrap();
        assert_eq!(flow.limits(), (250, 1000));
        flow.set_limits(None, Some(50)).unwrap();
        assert_eq!(flow.limits(), (50, 200));
        flow.set_limits(Some(0), None).unwrap();
        assert_eq!(flow.limits(), (0, 0));
        assert_eq!(flow.grown(1), FlowChange::Pause);
        assert_eq!(flow.set_limits(Some(1), Some(2)), Err(BadLimits { high: 1, low: 2 }));
        assert_eq!(flow.set_limits(Some(-1), None), Err(BadLimits { high: -1, low: -1 }));
        assert_eq!(flow.set_limits(None, Some(-1)), Err(BadLimits { high: -4, low: -1 }));
    }
}
