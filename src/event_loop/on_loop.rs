//! The proof that the calling thread may use a loop, which is passed in the loop's place. `door` makes it, and defines what it permits.

use pyo3::prelude::*;

use super::EventLoop;
use crate::sync::ownership::Claim;

/// Proof that no other thread runs the loop as long as this lives: see `door`. It can't be sent to another thread.
#[derive(Clone, Copy)]
pub struct OnLoop<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
}

/// It is passed in a register, as the loop is without it.
const _: () = assert!(size_of::<OnLoop<'_, '_>>() == size_of::<usize>());

impl<'a, 'py> OnLoop<'a, 'py> {
    /// The proof, if the calling thread runs the loop.
    #[inline]
    pub fn mine(event_loop: &'a Bound<'py, EventLoop>) -> Option<Self> {
        // Nothing comes here under a claim, so the loop is this thread's by a run, whose end comes after that of whatever it called.
        event_loop.get().shared.is_mine().then_some(Self { event_loop })
    }

    /// # Safety
    /// The calling thread is inside of a run or a visit of the loop, which outlasts the result.
    #[inline]
    pub(super) unsafe fn promised(event_loop: &'a Bound<'py, EventLoop>) -> Self {
        Self { event_loop }
    }

    #[inline]
    pub fn py(self) -> Python<'py> {
        self.event_loop.py()
    }

    #[inline]
    pub fn event_loop(self) -> &'a Bound<'py, EventLoop> {
        self.event_loop
    }

    /// The loop's native state.
    #[inline]
    pub fn get(self) -> &'a EventLoop {
        self.event_loop.get()
    }

    /// The right to touch what belongs to the loop, for a few instructions that call no Python.
    #[inline]
    pub fn claim(self) -> Claim<'a> {
        // SAFETY: the proof comes from a run or a visit, which is not over.
        unsafe { self.get().shared.claim_inside() }
    }
}
