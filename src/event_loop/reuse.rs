//! Objects that are used again: handles, timers, futures. One rule for all of them.
//!
//! An object is kept to be used again if nobody else has it, and given out again if nobody has come to have it since. The collector
//! knows the object all that time: whoever asks it for all objects, for those that refer to the loop, or for what the loop refers
//! to, may take it. And emptying one runs foreign code, which may do so too. Someone who has it keeps it, for good.

use pyo3::prelude::*;

use crate::py::{Owned, raw};

/// An emptied object. It can only be had again by [`again`](Self::again), which asks who else has it.
pub struct Spare(Owned);

impl Spare {
    /// Keeps an object, unless somebody else has it.
    #[inline]
    pub fn new(_py: Python<'_>, emptied: Owned) -> Option<Self> {
        // SAFETY: alive and attached.
        unsafe { raw::is_nobody_elses(emptied.as_ptr()) }.then(|| Self(emptied))
    }

    /// The object, to be used again; None if somebody has found it. Not under a claim: in that case its last reference may go.
    #[inline]
    pub fn again(self, py: Python<'_>) -> Option<Owned> {
        Self::new(py, self.0).map(|spare| spare.0)
    }

    /// For the collector.
    pub fn as_object(&self) -> &Owned {
        &self.0
    }
}
