//! What a forked child does with what it inherited.

use pyo3::prelude::*;

use crate::sys;

/// Called once in a forked child, by its only thread, before anything else of Python runs there.
#[pyfunction]
pub fn _after_fork_in_child() {
    sys::signal::forget_parent();
}
