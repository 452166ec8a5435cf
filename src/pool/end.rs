//! How a job ends, and how its waiters are notified.
//!
//! `wait` and `as_completed` of `concurrent.futures` lock a future's condition and look at its state: a condition is made when first
//! asked for, and from then on the end is written under it too.

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::job::{Begun, Condition, Inner, Job, State, Watcher, Work};
use super::job_type;
use crate::event_loop::endpoint::Native;
use crate::event_loop::remote::Post;
use crate::event_loop::task::outside::{self, End};
use crate::inbox::InboxSender;
use crate::py::fatal::Fatal;
use crate::py::{Owned, context, imports, raw};

/// The outcome of a job.
struct Ended {
    watchers: Vec<Watcher>,
    begun: Option<Begun>,
    /// The work that was not done.
    work: Option<Work>,
}

/// Of a job that was ended: the coroutine that had been begun, and what a callback raised.
type Outcome = (Option<Begun>, PyResult<()>);

/// Ends a job and notifies its waiters; false if it had ended. Any attached thread.
pub fn end(job: &Bound<'_, PyAny>, end: End) -> PyResult<bool> {
    match end_if(job, end, |_, _| true)? {
        Some((_, told)) => told.map(|()| true),
        None => Ok(false),
    }
}

/// `Future.cancel()`: a job that waits ends at once. The future of one whose coroutine runs ends too, and the
/// coroutine's task is cancelled. A function that runs can't be cancelled. Any attached thread.
pub fn cancel(job: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = job.py();
    let state = job_type::state_of(job);
    if state.state() == State::Cancelled {
        return Ok(true);
    }
    let mut ended =
        end_if(job, End::Cancelled, |state, inner| state == State::Pending || inner.begun.is_some())?;
    if ended.is_none() && state.state() == State::Running {
        // It was being called. Checked only now, since a job that waited a moment ago did not show that.
        let to_be_one = is_to_be_coroutine(py, state)?;
        ended = end_if(job, End::Cancelled, |_, inner| inner.begun.is_some() || to_be_one)?;
    }
    match ended {
        None => Ok(state.state() == State::Cancelled),
        Some((begun, told)) => {
            // First of all: a callback may have been interrupted.
            if let Some(Begun { inbox, task: Some(task) }) = begun {
                post_cancel(py, &inbox, task)?;
            }
            told.map(|()| true)
        }
    }
}

/// Whether a coroutine function is being called: there is no coroutine yet, but there will be.
fn is_to_be_coroutine(py: Python<'_>, job: &Job) -> PyResult<bool> {
    match job.callee(py) {
        Some(callee) => imports::iscoroutinefunction(py)?.call1((callee.bind(py),))?.is_truthy(),
        None => Ok(false),
    }
}

/// Requests cancellation and lets the job end by itself, as a task does; one that waits ends at once. False if a function
/// runs, or the job has ended. Any attached thread.
pub fn ask_to_cancel(job: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Some((_, told)) = end_if(job, End::Cancelled, |state, _| state == State::Pending)? {
        return told.map(|()| true);
    }
    let py = job.py();
    let state = job_type::state_of(job);
    let to_be_one = is_to_be_coroutine(py, state)?;
    let mut inner = state.inner.lock(py);
    let Some(begun) = &inner.begun else {
        // Any function may still return a coroutine, which then is to be cancelled.
        inner.cancel_wanted = state.state() == State::Running;
        return Ok(to_be_one && inner.cancel_wanted);
    };
    match begun.task.as_ref().map(|task| (begun.inbox.clone(), task.clone_ref(py))) {
        Some((inbox, task)) => {
            drop(inner);
            post_cancel(py, &inbox, task)?;
        }
        None => inner.cancel_wanted = true,
    }
    Ok(true)
}

/// The awaited object may be the program's: its `cancel` runs in a copy of the caller's context, as by `call_soon_threadsafe`.
fn post_cancel(py: Python<'_>, inbox: &InboxSender<Post>, task: Owned) -> PyResult<()> {
    let context = context::copy_current(py)?;
    // A closed loop runs the task no further anyway.
    drop(inbox.post(Post::Finished(Box::new(move |on| outside::cancel(on.event_loop(), &task, &context)))));
    Ok(())
}

fn end_if(
    job: &Bound<'_, PyAny>,
    end: End,
    may: impl Fn(State, &Inner) -> bool,
) -> PyResult<Option<Outcome>> {
    let py = job.py();
    let state = job_type::state_of(job);
    let mut end = Some(end);
    loop {
        let Some(made) = state.condition_if_made(py) else {
            // The condition is unknown to other threads; a thread that asks for it from now on sees the end.
            let mut inner = state.inner.lock(py);
            if inner.condition.is_some() {
                continue;
            }
            let written = write_locked(state, &mut inner, &mut end, &may);
            drop(inner);
            return finish(job, written, end);
        };
        let condition = made.condition.bind(py);
        condition.call_method0("acquire")?;
        let held = Held(&condition);
        let mut inner = state.inner.lock(py);
        let written = write_locked(state, &mut inner, &mut end, &may);
        drop(inner);
        let told = match written {
            Some(_) => tell_waiters(job, &made),
            None => Ok(()),
        };
        let told = told.and(held.release());
        return match finish(job, written, end)? {
            Some((begun, others)) => Ok(Some((begun, first_error(job, told, others)))),
            None => told.map(|()| None),
        };
    }
}

/// A condition's lock; released when this is dropped.
struct Held<'a, 'py>(&'a Bound<'py, PyAny>);

impl Held<'_, '_> {
    fn release(self) -> PyResult<()> {
        let condition = self.0;
        std::mem::forget(self);
        condition.call_method0("release").map(drop)
    }
}

impl Drop for Held<'_, '_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.call_method0("release") {
            error.write_unraisable(self.0.py(), Some(self.0));
        }
    }
}

fn write_locked(
    job: &Job,
    inner: &mut Inner,
    end: &mut Option<End>,
    may: &impl Fn(State, &Inner) -> bool,
) -> Option<Ended> {
    if job.state().is_done() || !may(job.state(), inner) {
        return None;
    }
    let how = end.take().expect("written once");
    job.set_state(if matches!(how, End::Cancelled) { State::Cancelled } else { State::Finished });
    inner.end = Some(how);
    let begun = inner.begun.take();
    // Until its first step is over the task can't be reached: the thread that makes the step sees the request.
    inner.cancel_wanted = begun.as_ref().map_or(inner.calling.is_some(), |begun| begun.task.is_none());
    Some(Ended { watchers: std::mem::take(&mut inner.watchers), begun, work: inner.work.take() })
}

/// The half of `concurrent.futures`' notifications that needs its lock.
fn tell_waiters(job: &Bound<'_, PyAny>, made: &Condition) -> PyResult<()> {
    let py = job.py();
    let method = match job_type::state_of(job).end_of(py) {
        Some(End::Error(_)) => "add_exception",
        Some(End::Cancelled) => "add_cancelled",
        _ => "add_result",
    };
    for waiter in made.waiters.bind(py).try_iter()? {
        waiter?.call_method1(method, (job,))?;
    }
    made.condition.bind(py).call_method0("notify_all").map(drop)
}

fn finish(
    job: &Bound<'_, PyAny>,
    written: Option<Ended>,
    not_written: Option<End>,
) -> PyResult<Option<Outcome>> {
    drop(not_written);
    let Some(ended) = written else { return Ok(None) };
    let mut told = Ok(());
    if let Some(Work::Coroutine { coro, .. }) = &ended.work {
        // Otherwise it would warn at its end that it was never awaited.
        told = coro.bind(job.py()).call_method0("close").map(drop);
    }
    for watcher in ended.watchers {
        // All are notified, whatever happens to others.
        let one = tell(job, watcher);
        told = first_error(job, told, one);
    }
    Ok(Some((ended.begun, told)))
}

/// Of two errors one can be returned, the first one, or the one that must leave a run; the other is logged.
fn first_error(job: &Bound<'_, PyAny>, former: PyResult<()>, new: PyResult<()>) -> PyResult<()> {
    let py = job.py();
    match (former, new) {
        (Err(former), Err(new)) => {
            let swap = Fatal::is(py, &new) && !Fatal::is(py, &former);
            let (kept, other) = if swap { (new, former) } else { (former, new) };
            other.write_unraisable(py, Some(job));
            Err(kept)
        }
        (Ok(()), new) => new,
        (former, Ok(())) => former,
    }
}

/// Notifies one waiter that the job has ended. As in `concurrent.futures`, an error of a callback is logged; only one that is not an
/// Exception (KeyboardInterrupt) is returned.
pub fn tell(job: &Bound<'_, PyAny>, watcher: Watcher) -> PyResult<()> {
    let py = job.py();
    match watcher {
        Watcher::Answer(answer) => {
            if let Some(end) = job_type::state_of(job).end_of(py) {
                answer.send(end);
            }
            Ok(())
        }
        Watcher::Callback(callback) => {
            match raw::check_stack().and_then(|()| callback.bind(py).call1((job,))) {
                Ok(_) => Ok(()),
                Err(error) if error.is_instance_of::<PyException>(py) => {
                    log_failed_callback(job, error);
                    Ok(())
                }
                Err(error) => Err(error),
            }
        }
    }
}

#[cold]
fn log_failed_callback(job: &Bound<'_, PyAny>, error: PyErr) {
    let py = job.py();
    let logged = imports::log_failed_callback(py).and_then(|log| log.call1((job, error.value(py))));
    if let Err(failed) = logged {
        error.write_unraisable(py, Some(job));
        failed.write_unraisable(py, Some(job));
    }
}

/// Holds a job in transit, and ends it if it is dropped before the job's end.
pub struct Pledge(Option<Owned>);

impl Pledge {
    pub fn new(job: Owned) -> Self {
        Self(Some(job))
    }

    pub fn as_object(&self) -> &Owned {
        self.0.as_ref().expect("taken by drop only")
    }

    pub fn job<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.as_object().bind(py).to_owned()
    }
}

impl Native for Pledge {
    fn each(&self, see: &mut dyn FnMut(&Owned)) {
        self.0.iter().for_each(see);
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        let Some(job) = self.0.take() else { return };
        // SAFETY: as for every `Owned`, the thread is attached.
        let py = unsafe { Python::assume_attached() };
        if !job_type::state_of(&job.bind(py)).state().is_done() {
            break_off(&job.into_bound(py));
        }
    }
}

/// Ends a job that will not be done. May run in a finaliser: an error that is set stays so.
#[cold]
fn break_off(job: &Bound<'_, PyAny>) {
    // SAFETY: attached; the exception is set back.
    unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        raw::enter(|py| {
            let text = "the loop was closed before the job's end";
            let error = PyRuntimeError::new_err(text).into_value(py).into_bound(py).into_any();
            if let Err(error) = end(job, End::Error(error.into())) {
                error.write_unraisable(py, Some(job));
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
    }
}
