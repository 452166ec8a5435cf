//! Objects that are used again: handles, timers, futures. One rule for all of them.
//!
//! An object is emptied for reuse if it has no other reference, and reused if it has got none since. The collector
//! knows the object all that time: a program that asks it for all objects, for those that refer to the loop, or for the loop's referents,
//! may get it. So may code that runs while it is emptied. An object with another reference is not reused.

use pyo3::prelude::*;

use crate::py::{Owned, raw};

/// An emptied object. Only [`again`](Self::again) gives it back, after checking that it has no other reference.
pub struct Spare(Owned);

impl Spare {
    #[inline]
    pub fn new(emptied: Owned) -> Self {
        Self(emptied)
    }

    /// The object, for reuse; None if it has another reference. Not under a claim: in that case its last reference may be dropped here.
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
