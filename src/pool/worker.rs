//! One loop's share of a pool: the jobs that it takes and has begun. All of it belongs to the worker's thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_deque::Worker as Deque;
use pyo3::prelude::*;

use super::end::{self, Pledge};
use super::queues::{Begun, Queues, RunningKey};
use super::{job_type, start};
use crate::event_loop::EventLoop;
use crate::event_loop::door::OnLoop;
use crate::event_loop::feed::{Fed, Feed};
use crate::event_loop::report::OrReport;
use crate::event_loop::task::outside::{self, End};
use crate::py::fatal::OrFatal;
use crate::py::{Attached, Owned, panic};
use crate::sys::clock::monotonic_ns;

/// How many jobs are begun in one turn at most, and for how long: earlier jobs must have their turns too.
const MOST: usize = 16;
const LONGEST_NS: u64 = 50_000;

/// After this many jobs the shared queue comes before the worker's own, which its own coroutines might keep full.
const SHARED_FIRST_EVERY: usize = 61;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

pub struct Worker {
    index: usize,
    queues: Arc<Queues>,
    own: Deque<Pledge>,
    begun: Cell<usize>,
    /// Since `own` was last empty, jobs came there that this thread submitted.
    submitted: Cell<bool>,
}

/// The calling thread's loop becomes a worker. False if that worker was there before.
pub fn enter(event_loop: &Bound<'_, EventLoop>, queues: &Arc<Queues>, index: usize) -> PyResult<bool> {
    let py = event_loop.py();
    let Some(own) = queues.enter(index, event_loop.get().shared.inbox.clone()) else { return Ok(false) };
    let worker = Rc::new(Worker {
        index,
        queues: queues.clone(),
        own,
        begun: Cell::new(0),
        submitted: Cell::new(false),
    });
    event_loop.get().with(py, |core| {
        // Made now, so that a lack of descriptors is an error at the start.
        core.driver()?;
        core.feed = Some(worker.clone());
        core.hungry = true;
        PyResult::Ok(())
    })??;
    CURRENT.set(Some(worker));
    Ok(true)
}

/// The calling thread's worker takes no more jobs. Those that it has begun go on while its loop runs.
#[pyfunction]
pub fn _leave(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    let Some(worker) = CURRENT.with_borrow(Option::clone) else { return Ok(()) };
    let former = event_loop.get().with(event_loop.py(), |core| {
        core.hungry = false;
        core.feed.take()
    })?;
    drop(former);
    worker.queues.leave(worker.index);
    // Nothing waits there after a drain; after an error other workers do the jobs.
    while let Some(job) = worker.own.pop() {
        let _ = worker.queues.push(job);
    }
    Ok(())
}

/// The calling thread is not a worker any more; its loop no longer runs.
#[pyfunction]
pub fn _forget() {
    let former = CURRENT.take();
    drop(former);
}

/// Puts a job into the own queue of this thread's worker; gives it back if this is not a worker of that pool.
#[inline]
pub fn push_own(queues: &Arc<Queues>, job: Pledge) -> Result<(), Pledge> {
    let worker = CURRENT.with_borrow(|current| {
        current.as_ref().filter(|worker| Arc::ptr_eq(&worker.queues, queues)).cloned()
    });
    match worker {
        Some(worker) => {
            worker.submitted.set(true);
            queues.push_own(&worker.own, job);
            Ok(())
        }
        None => Err(job),
    }
}

/// The index of the worker that this thread is, in that pool.
pub fn index_in(queues: &Arc<Queues>) -> Option<usize> {
    CURRENT.with_borrow(|current| {
        current.as_ref().filter(|worker| Arc::ptr_eq(&worker.queues, queues)).map(|worker| worker.index)
    })
}

/// Whether the calling thread's worker has nothing left to do, ever. Of a thread that is none: True.
#[pyfunction]
pub fn _is_over(py: Python<'_>) -> bool {
    CURRENT.with_borrow(|current| current.as_ref().is_none_or(|worker| worker.is_over(py)))
}

/// Records a job whose coroutine goes on after its first step; None in a thread that is not a worker.
pub fn note_running(job: &Bound<'_, PyAny>) -> Option<Noted> {
    let Worker { index, queues, .. } = &*CURRENT.with_borrow(Option::clone)?;
    let key = queues.begun[*index].lock(job.py()).running.insert(job.into());
    Some(Noted { queues: queues.clone(), index: *index, key })
}

/// The record that a coroutine runs here; without it the worker may end. It may be dropped in any attached thread: a task of
/// the program's own type may release its callbacks anywhere.
pub struct Noted {
    queues: Arc<Queues>,
    index: usize,
    key: RunningKey,
}

impl Drop for Noted {
    fn drop(&mut self) {
        // SAFETY: attached, as any thread that drops a reference is, and the job's goes with this.
        let py = unsafe { Python::assume_attached() };
        let former = self.queues.begun[self.index].lock(py).running.remove(self.key);
        drop(former);
        if index_in(&self.queues) != Some(self.index) {
            // The worker may sleep, and this may have been the last job that it waited for.
            self.queues.wake(self.index);
        }
    }
}

/// Cancels the task of every coroutine that the calling thread's worker has begun; returns how many there are.
#[pyfunction]
pub fn _cancel_running(py: Python<'_>) -> PyResult<usize> {
    let Some(worker) = CURRENT.with_borrow(Option::clone) else { return Ok(0) };
    let jobs: Vec<_> = worker.begun().lock(py).running.values().map(|job| job.clone_ref(py)).collect();
    for job in &jobs {
        end::ask_to_cancel(&job.bind(py))?;
    }
    Ok(jobs.len())
}

/// Whether an error that left the run of the calling thread's worker is that of a job's coroutine, and so the job's end.
#[pyfunction]
pub fn _is_of_job(error: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = error.py();
    let Some(worker) = CURRENT.with_borrow(Option::clone) else { return Ok(false) };
    let jobs: Vec<_> = worker.begun().lock(py).running.values().map(|job| job.clone_ref(py)).collect();
    for job in jobs {
        let Some(task) = job_type::state_of(&job.bind(py)).task(py) else { continue };
        if let Some(End::Error(raised)) = outside::end_of(py, &task)?
            && raised.bind(py).is(error)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Worker {
    fn is_over(&self, py: Python<'_>) -> bool {
        self.queues.is_closing() && !self.has_running(py) && !self.queues.has_for(self.index)
    }

    fn begun(&self) -> &Attached<Begun> {
        &self.queues.begun[self.index]
    }

    fn has_running(&self, py: Python<'_>) -> bool {
        !self.begun().lock(py).running.is_empty()
    }

    /// Begins a job. Other threads can see it meanwhile.
    fn begin(&self, on: OnLoop<'_, '_>, pledge: Pledge) -> OrFatal {
        if self.queues.is_dropping() {
            let ended = end::end(&pledge.job(on.py()), End::Cancelled);
            return ended.or_report(on.event_loop(), start::failed).map(drop);
        }
        let py = on.py();
        let doing = Some(pledge.as_object().clone_ref(py));
        let former = std::mem::replace(&mut self.begun().lock(py).doing, doing);
        drop(former);
        let _doing = Doing(self, py);
        panic::point("job");
        start::start(on, pledge)
    }

    fn next(&self) -> Option<Pledge> {
        let begun = self.begun.get() + 1;
        if self.submitted.get() && self.own.is_empty() {
            self.submitted.set(false);
        }
        // Where the worker submits nothing itself, jobs are taken strictly in turn.
        let shared_first = self.submitted.get() && begun.is_multiple_of(SHARED_FIRST_EVERY);
        let job = self.queues.next(self.index, &self.own, shared_first)?;
        self.begun.set(begun);
        self.queues.figures[self.index].begun.store(begun, Ordering::Relaxed);
        Some(job)
    }
}

/// Clears `doing` when it is dropped.
struct Doing<'a, 'py>(&'a Worker, Python<'py>);

impl Drop for Doing<'_, '_> {
    fn drop(&mut self) {
        let done = self.0.begun().lock(self.1).doing.take();
        drop(done);
    }
}

impl Feed for Worker {
    fn feed(&self, on: OnLoop<'_, '_>) -> OrFatal<Fed> {
        let mut since = 0;
        for count in 0..MOST {
            let Some(job) = self.next() else {
                return Ok(match (count, self.is_over(on.py())) {
                    (0, true) => Fed::End,
                    (0, false) => Fed::Nothing,
                    _ => Fed::Some,
                });
            };
            self.begin(on, job)?;
            let now = monotonic_ns();
            if since == 0 {
                since = now;
            } else if now - since > LONGEST_NS {
                break;
            }
        }
        Ok(Fed::Some)
    }

    fn may_sleep(&self, py: Python<'_>) -> bool {
        // At the end the worker waits only for the coroutines begun here, which wake their loop themselves, and for jobs that
        // were being submitted when the pool was closed.
        self.queues.may_sleep(self.index, self.has_running(py))
    }

    fn waiting(&self) -> usize {
        self.queues.waiting()
    }

    fn woke(&self) {
        self.queues.woke(self.index);
    }

    fn each(&self, see: &mut dyn FnMut(&Owned)) {
        if let Some(begun) = self.begun().seen_by_collector() {
            begun.doing.iter().chain(begun.running.values()).for_each(see);
        }
    }
}
