//! A job: what is to be called, who waits for it, how it ended.
//!
//! It goes from pending to running to finished, or is cancelled on the way; each step is taken once, under the lock inside.
//! Whoever ends it tells those who wait. `wait` and `as_completed` of `concurrent.futures` lock a future's condition
//! and look at its state: a condition is made when first asked for, and from then on the end is written under it too.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::across::Answer;
use super::job_type;
use crate::event_loop::endpoint::Native;
use crate::event_loop::post::{Post, RemoteCall};
use crate::event_loop::task::begin::{self, End};
use crate::inbox::InboxSender;
use crate::py::{Owned, imports, raw};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    Pending,
    Running,
    Cancelled,
    Finished,
}

impl State {
    pub fn is_done(self) -> bool {
        matches!(self, Self::Cancelled | Self::Finished)
    }
}

/// What a job does when it is taken.
pub enum Work {
    /// A function; a coroutine that it returns is run.
    Call(RemoteCall),
    Coroutine {
        coro: Owned,
        context: Owned,
    },
}

/// Who is told of the end.
pub enum Watcher {
    /// Called with the job, in the thread that ends it.
    Callback(Owned),
    /// A future of some loop, which gets the end through the loop's inbox.
    Answer(Answer),
}

/// A coroutine that was begun: how to reach it.
struct Begun {
    inbox: InboxSender<Post>,
    /// None during its first step.
    task: Option<Owned>,
}

/// What `concurrent.futures` locks and changes.
pub struct Condition {
    pub condition: Owned,
    /// A list.
    pub waiters: Owned,
}

#[derive(Default)]
struct Inner {
    work: Option<Work>,
    end: Option<End>,
    begun: Option<Begun>,
    /// The running coroutine is to be cancelled once its first step is over.
    cancel_wanted: bool,
    watchers: Vec<Watcher>,
    condition: Option<Box<Condition>>,
}

pub struct Job {
    /// Written under the lock, with Release; read by anyone.
    state: AtomicU8,
    inner: Mutex<Inner>,
}

impl Job {
    pub fn new(work: Work) -> Self {
        let inner = Inner { work: Some(work), ..Inner::default() };
        Self { state: AtomicU8::new(State::Pending as u8), inner: Mutex::new(inner) }
    }

    #[inline]
    pub fn state(&self) -> State {
        // Acquire: pairs with `set_state`.
        match self.state.load(Ordering::Acquire) {
            0 => State::Pending,
            1 => State::Running,
            2 => State::Cancelled,
            _ => State::Finished,
        }
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Takes out what is to be done, for the one who does it now; None if it was cancelled.
    pub fn take_work(&self) -> Option<Work> {
        let mut inner = self.inner.lock();
        if self.state() != State::Pending {
            return None;
        }
        self.set_state(State::Running);
        inner.work.take()
    }

    /// The job turns out to be a coroutine, which is about to make its first step on the loop of that inbox.
    pub fn note_begin(&self, inbox: InboxSender<Post>) {
        self.inner.lock().begun = Some(Begun { inbox, task: None });
    }

    /// The first step is over and the task goes on; whether it is to be cancelled at once.
    #[must_use]
    pub fn note_task(&self, task: Owned) -> bool {
        let mut inner = self.inner.lock();
        let mut unused = Some(task);
        if let Some(begun) = &mut inner.begun {
            begun.task = unused.take();
        }
        let wanted = inner.cancel_wanted;
        drop(inner);
        wanted
    }

    /// Adds somebody to be told of the end; gives it back if that has been.
    pub fn watch(&self, watcher: Watcher) -> Result<(), Watcher> {
        let mut inner = self.inner.lock();
        if self.state().is_done() {
            return Err(watcher);
        }
        inner.watchers.push(watcher);
        Ok(())
    }

    /// A copy of the end; None before. Any thread.
    pub fn end_of(&self, py: Python<'_>) -> Option<End> {
        match self.state() {
            State::Pending | State::Running => None,
            State::Cancelled => Some(End::Cancelled),
            State::Finished => self.inner.lock().end.as_ref().map(|end| end.clone_ref(py)),
        }
    }

    /// The condition and the waiters, made by `make` if there are none yet.
    pub fn condition(
        &self,
        py: Python<'_>,
        make: impl FnOnce() -> PyResult<Condition>,
    ) -> PyResult<Condition> {
        if let Some(made) = self.condition_if_made(py) {
            return Ok(made);
        }
        let new = Box::new(make()?);
        let mut unused = Some(new);
        let mut inner = self.inner.lock();
        if inner.condition.is_none() {
            inner.condition = unused.take();
        }
        drop(inner);
        drop(unused);
        Ok(self.condition_if_made(py).expect("made above, and never taken out"))
    }

    fn condition_if_made(&self, py: Python<'_>) -> Option<Condition> {
        self.inner.lock().condition.as_ref().map(|made| Condition {
            condition: made.condition.clone_ref(py),
            waiters: made.waiters.clone_ref(py),
        })
    }

    /// Shows every Python object in it to the garbage collector, which has stopped all threads.
    pub fn visit<E>(&self, mut visit: impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        // SAFETY: no thread is stopped inside the lock, since nothing under it calls Python.
        let inner = unsafe { &*self.inner.data_ptr() };
        match &inner.work {
            Some(Work::Call(call)) => call.visit(&mut visit)?,
            Some(Work::Coroutine { coro, context }) => {
                visit(coro)?;
                visit(context)?;
            }
            None => {}
        }
        match &inner.end {
            Some(End::Result(object) | End::Error(object)) => visit(object)?,
            Some(End::Cancelled) | None => {}
        }
        if let Some(task) = inner.begun.as_ref().and_then(|begun| begun.task.as_ref()) {
            visit(task)?;
        }
        for watcher in &inner.watchers {
            if let Watcher::Callback(callback) = watcher {
                visit(callback)?;
            }
        }
        if let Some(made) = &inner.condition {
            visit(&made.condition)?;
            visit(&made.waiters)?;
        }
        Ok(())
    }

    /// Takes everything out, for the caller to drop.
    pub fn take_all(&self) -> impl Drop + use<> {
        struct Remains(#[allow(dead_code)] Inner);
        impl Drop for Remains {
            fn drop(&mut self) {}
        }
        Remains(std::mem::take(&mut *self.inner.lock()))
    }
}

/// What came out of a job that ended.
struct Ended {
    watchers: Vec<Watcher>,
    begun: Option<Begun>,
    /// What was not done.
    work: Option<Work>,
}

/// Of a job that was ended: the coroutine that had been begun, and what a callback raised.
type Outcome = (Option<Begun>, PyResult<()>);

/// Ends a job and tells who waits; false if it had ended. Any attached thread.
pub fn end(job: &Bound<'_, PyAny>, end: End) -> PyResult<bool> {
    match end_if(job, end, |_, _| true)? {
        Some((_, told)) => told.map(|()| true),
        None => Ok(false),
    }
}

/// `Future.cancel()`: a job that waits ends at once. So does one whose coroutine runs, for those who wait for it; the
/// coroutine is asked to cancel itself. A function that runs can't be cancelled. Any attached thread.
pub fn cancel(job: &Bound<'_, PyAny>) -> PyResult<bool> {
    let state = job_type::state_of(job).state();
    if state == State::Cancelled {
        return Ok(true);
    }
    match end_if(job, End::Cancelled, |state, inner| state == State::Pending || inner.begun.is_some())? {
        None => Ok(job_type::state_of(job).state() == State::Cancelled),
        Some((begun, told)) => {
            // First of all: a callback may have been interrupted.
            if let Some(Begun { inbox, task: Some(task) }) = begun {
                post_cancel(&inbox, task);
            }
            told.map(|()| true)
        }
    }
}

/// Asks for cancellation and leaves the job to end by itself, as a task does; one that waits ends at once. False if a function
/// runs, or the job has ended. Any attached thread.
pub fn ask_to_cancel(job: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Some((_, told)) = end_if(job, End::Cancelled, |state, _| state == State::Pending)? {
        return told.map(|()| true);
    }
    let py = job.py();
    let mut inner = job_type::state_of(job).inner.lock();
    let state = job_type::state_of(job).state();
    let Some(begun) = &inner.begun else {
        // A function that may still return a coroutine, which then is to be cancelled.
        inner.cancel_wanted = state == State::Running;
        return Ok(false);
    };
    match begun.task.as_ref().map(|task| (begun.inbox.clone(), task.clone_ref(py))) {
        Some((inbox, task)) => {
            drop(inner);
            post_cancel(&inbox, task);
        }
        None => inner.cancel_wanted = true,
    }
    Ok(true)
}

fn post_cancel(inbox: &InboxSender<Post>, task: Owned) {
    // A loop that is closed runs the task no further anyway.
    let _ = inbox.post(Post::Finished(Box::new(move |event_loop| begin::cancel(event_loop.py(), &task))));
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
            // Nobody has seen the condition; who asks for it from now on sees the end.
            let mut inner = state.inner.lock();
            if inner.condition.is_some() {
                continue;
            }
            let written = write_locked(state, &mut inner, &mut end, &may);
            drop(inner);
            return finish(job, written, end);
        };
        let condition = made.condition.bind(py);
        condition.call_method0("acquire")?;
        let mut inner = state.inner.lock();
        let written = write_locked(state, &mut inner, &mut end, &may);
        drop(inner);
        let told = match written {
            Some(_) => tell_waiters(job, &made),
            None => Ok(()),
        };
        condition.call_method0("release")?;
        told?;
        return finish(job, written, end);
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
    // During its first step nobody can reach the task: whoever makes the step sees the wish.
    inner.cancel_wanted = begun.as_ref().is_some_and(|begun| begun.task.is_none());
    Some(Ended { watchers: std::mem::take(&mut inner.watchers), begun, work: inner.work.take() })
}

/// The locked half of what `concurrent.futures` wants to be told.
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
    if let Some(Work::Coroutine { coro, .. }) = &ended.work {
        // Else it would say at its end that nobody awaited it.
        coro.bind(job.py()).call_method0("close")?;
    }
    let mut told = Ok(());
    for watcher in ended.watchers {
        told = told.and(tell(job, watcher));
    }
    Ok(Some((ended.begun, told)))
}

/// Tells one who waits that the job has ended. As in `concurrent.futures`, what a callback raises is logged; only what is no
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
        Watcher::Callback(callback) => match callback.bind(py).call1((job,)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                log_failed_callback(job, error);
                Ok(())
            }
            Err(error) => Err(error),
        },
    }
}

#[cold]
fn log_failed_callback(job: &Bound<'_, PyAny>, error: PyErr) {
    let py = job.py();
    let logged = imports::log_failed_callback(py).and_then(|log| log.call1((job, error.value(py))));
    if logged.is_err() {
        error.write_unraisable(py, Some(job));
    }
}

/// Holds a job on its way to being done, and ends it if it is dropped before that.
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

/// Ends a job that nobody will do. May run in a finaliser: an error that is set stays so.
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

/// A reference to a job for another thread to release.
pub fn share(job: &Bound<'_, PyAny>) -> Owned {
    // SAFETY: attached and alive.
    unsafe { Owned::borrow_for_another_thread(job.as_ptr()) }
}
