//! Pools of workers, each a thread with a loop of its own, and work handed from one loop to another.
//!
//! | room       | content                                                                         |
//! |------------|---------------------------------------------------------------------------------|
//! | `job`      | a job: the call, its waiters, its states                                        |
//! | `end`      | how it ends, in which thread, and how its waiters are notified                  |
//! | `job_type` | its Python face, a `concurrent.futures.Future`                                  |
//! | `start`    | from a call to a running coroutine, on the thread that took it                  |
//! | `across`   | a coroutine on another loop; a job's end sent to the loop that awaits it        |
//! | `queues`   | where jobs wait, and which worker is woken for them                             |
//! | `worker`   | one loop's share: the jobs that it takes and has begun                          |
//! | `class`    | `Pool`, the native half of `tokioloop.WorkerPool`                               |
//!
//! # Thread rules
//!
//! A job belongs to no thread: its state is behind a small lock of its own, under which nothing calls Python, drops a reference
//! or blocks. The thread that moves it to another state owns what it took out. Queues are lock-free. The jobs that a worker
//! has begun belong to its thread.
//!
//! A job that waits somewhere is held by a [`Pledge`](end::Pledge), which ends it with an error if it is dropped before the
//! job's end: so every job has one, whatever happens to loops and pools.

mod across;
mod class;
mod end;
mod job;
mod job_type;
mod queues;
mod start;
mod worker;

use pyo3::prelude::*;

/// Makes the types and adds them to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    job_type::init(module)?;
    module.add_class::<start::Ending>()?;
    class::init(module)?;
    module.add_function(wrap_pyfunction!(across::_run_on, module)?)?;
    module.add_function(wrap_pyfunction!(across::_outcome_of, module)?)?;
    module.add_function(wrap_pyfunction!(worker::_leave, module)?)?;
    module.add_function(wrap_pyfunction!(worker::_forget, module)?)?;
    module.add_function(wrap_pyfunction!(worker::_is_over, module)?)?;
    module.add_function(wrap_pyfunction!(worker::_cancel_running, module)?)?;
    module.add_function(wrap_pyfunction!(worker::_is_of_job, module)?)?;
    module.add_function(wrap_pyfunction!(job_type::_set_job_class, module)?)
}
