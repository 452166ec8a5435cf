//! Python's side of the runtime's settings and figures: `tokioloop.runtime` is made of these.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::runtime::{self, Refused, Settings};

/// Sets how the runtime is built; None leaves a setting as it is. ValueError for what cannot be, RuntimeError once it runs.
#[pyfunction]
pub fn _configure_runtime(
    worker_threads: Option<usize>,
    max_blocking_threads: Option<usize>,
    resolver_threads: Option<usize>,
    thread_name: Option<String>,
) -> PyResult<()> {
    runtime::configure(Settings { worker_threads, max_blocking_threads, resolver_threads, thread_name })
        .map_err(|refused| match refused {
            Refused::Invalid(message) => PyValueError::new_err(message),
            Refused::Started => PyRuntimeError::new_err(
                "the runtime is running in this process: configure() comes before its first use",
            ),
        })
}

/// The runtime's figures, in the order of `tokioloop.runtime.Metrics`.
#[pyfunction]
pub fn _runtime_metrics() -> (bool, usize, usize, usize, usize, usize, usize, usize, usize) {
    let found = runtime::metrics();
    (
        found.started,
        found.worker_threads,
        found.alive_tasks,
        found.blocking_threads,
        found.idle_blocking_threads,
        found.blocking_queue_depth,
        found.global_queue_depth,
        found.running_lookups,
        found.waiting_lookups,
    )
}
