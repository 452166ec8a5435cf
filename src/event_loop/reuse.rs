//! Objects that are used again: handles, timers, futures. One rule for all of them.
//!
//! An object is emptied to be used again if nobody else has it, and given out again if nobody has come to have it since. The collector
//! knows the object all that time: whoever asks it for all objects, for those that refer to the loop, or for what the loop refers
//! to, may take it. So may the code that runs while it is emptied. Someone who has it keeps it, for good.

use pyo3::prelude::*;

use crate::py::{Owned, raw};

/// An emptied object. It can only be had again by [`again`](Self::again), which asks whether somebody else has it.
pub struct Spare(Owned);

impl Spare {
    #[inline]
    pub fn new(emptied: Owned) -> Self {
        Self(emptied)
    }

    /// The object, to be used again; None if somebody has found it. Not under a claim: in that case its last reference may go.
    #[inline]
    pub fn again(self, _py: Python<'_>) -> Option<Owned> {
        // SAFETY: alive and attached.
        unsafe { raw::is_nobody_elses(self.0.as_ptr()) }.then_some(self.0)
    }

    /// For the collector.
    pub fn as_object(&self) -> &Owned {
        &self.0
    }
}
