//! Pools of workers, each a thread with a loop of its own, and work handed from one loop to another.
//!
//! | room       | what lives there                                                                |
//! |------------|---------------------------------------------------------------------------------|
//! | `job`      | a job: the call, who waits for it, its states                                   |
//! | `end`      | how it ends, by whomever, and who is told                                       |
//! | `job_type` | its Python face, a `concurrent.futures.Future`                                  |
//! | `start`    | from a call to a running coroutine, on the thread that took it                  |
//! | `across`   | a coroutine on another loop; a job's end brought to the loop that awaits it     |
//! | `queues`   | where jobs wait, and who is woken for them                                      |
//! | `worker`   | one loop's share: what it takes, and what it has begun                          |
//! | `class`    | `Pool`, the native half of `tokioloop.WorkerPool`                               |
//!
//! # Who may touch what
//!
//! A job belongs to nobody: its state is behind a small lock of its own, under which nothing calls Python, drops a reference
//! or blocks. Who moves it from one state to the next has what came out of it for itself. Queues are lock-free. What a worker
//! has begun is its thread's.
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
