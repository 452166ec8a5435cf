//! What gives a loop work beyond its own queue: a worker's share of a pool.
//!
//! The loop asks once a turn, when its own queue has been run, and before it sleeps. It knows no more of pools than this.

use pyo3::prelude::*;

use super::on_loop::OnLoop;
use crate::py::Owned;
use crate::py::fatal::OrFatal;

/// What a feed had to give.
pub enum Fed {
    /// There is nothing more to do now.
    Nothing,
    /// Something was begun; there may be more.
    Some,
    /// There is nothing more to do ever: the loop's run ends.
    End,
}

/// Called on the loop's thread, inside a run, with no borrow of the core.
pub trait Feed {
    /// Begins some of what waits, bounded in number and time.
    fn feed(&self, on: OnLoop<'_, '_>) -> OrFatal<Fed>;

    /// The loop is about to sleep: false if there is something to do after all. Calls no Python.
    fn may_sleep(&self, py: Python<'_>) -> bool;

    /// About how much waits to be begun. Calls no Python.
    fn waiting(&self) -> usize;

    /// The loop is awake, whatever woke it. Calls no Python.
    fn woke(&self);

    /// Shows every Python object that it holds to the garbage collector.
    fn each(&self, see: &mut dyn FnMut(&Owned));
}
