//! Work across loops: a coroutine begun on another loop, and a job's end sent to the loop that awaits it. One message each
//! way.

use pyo3::prelude::*;

use super::end::{Pledge, tell};
use super::job::{Watcher, Work};
use super::{job_type, start};
use crate::event_loop::core::PendingKey;
use crate::event_loop::life::binding;
use crate::event_loop::remote::Post;
use crate::event_loop::task::outside::{self, End};
use crate::event_loop::{EventLoop, closed, task};
use crate::inbox::InboxSender;
use crate::py::{Owned, context};

/// Where a job's end is awaited.
pub struct Answer {
    inbox: InboxSender<Post>,
    key: PendingKey,
}

impl Answer {
    /// Posts the end to the loop that waits. Attached. A closed loop needs none.
    pub fn send(self, end: End) {
        let key = self.key;
        let _ = self.inbox.post(Post::Finished(Box::new(move |on| {
            match on.core(|core| core.pending.remove(key)) {
                Some(waiting) => outside::pass_on(on.event_loop(), &waiting, &end),
                None => Ok(()),
            }
        })));
    }
}

/// A future of the running loop that gets the job's end; None where no TokioLoop runs.
#[pyfunction]
pub fn _outcome_of<'py>(job: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = job.py();
    let Some(event_loop) = binding::running(py) else { return Ok(None) };
    let waiting = task::create_future(&event_loop)?;
    if let Some(end) = job_type::checked_state_of(job)?.end_of(py) {
        outside::pass_on(&event_loop, &waiting, &end)?;
        return Ok(Some(waiting.into_bound(py)));
    }
    let lp = event_loop.get();
    let kept = waiting.clone_ref(py);
    let key = lp.with(py, |core| core.pending.insert(kept))?;
    let answer = Answer { inbox: lp.shared.inbox.clone(), key };
    if let Err(watcher) = job_type::state_of(job).watch(py, Watcher::Answer(answer)) {
        tell(job, watcher)?;
    }
    Ok(Some(waiting.into_bound(py)))
}

/// Runs a coroutine on a loop, in a copy of the caller's context; returns the job. Any thread. RuntimeError when the loop is closed.
#[pyfunction]
pub fn _run_on<'py>(
    event_loop: &Bound<'py, EventLoop>,
    coro: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let context = context::copy_current(py)?;
    let work = Work::Coroutine { coro: Owned::for_another_thread(coro), context };
    let job = job_type::create(py, work)?.into_bound(py);
    let pledge = Pledge::new(Owned::for_another_thread(&job));
    let posted =
        event_loop.get().shared.inbox.post(Post::Finished(Box::new(move |on| start::start(on, pledge))));
    match posted {
        Ok(()) => Ok(job),
        Err(refused) => {
            // A job that never began notifies no one.
            job_type::state_of(&job).revoke(py);
            drop(refused);
            Err(closed())
        }
    }
}
