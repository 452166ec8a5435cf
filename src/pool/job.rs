//! A job: its call, its waiters, its outcome.
//!
//! It goes from pending to running to finished, or is cancelled on the way; each step is taken once, under the lock inside.
//! How it ends is in `end`.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use super::across::Answer;
use crate::event_loop::remote::{Post, RemoteCall};
use crate::event_loop::task::outside::End;
use crate::inbox::InboxSender;
use crate::py::{Attached, Owned};

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

/// The work of a job.
pub enum Work {
    /// A function; a coroutine that it returns is run.
    Call(RemoteCall),
    Coroutine {
        coro: Owned,
        context: Owned,
    },
}

/// A waiter for the end.
pub enum Watcher {
    /// Called with the job, in the thread that ends it.
    Callback(Owned),
    /// A future of some loop, which gets the end through the loop's inbox.
    Answer(Answer),
}

/// A coroutine that was begun: how to reach it.
pub(super) struct Begun {
    pub inbox: InboxSender<Post>,
    /// None during its first step.
    pub task: Option<Owned>,
}

/// The objects that `concurrent.futures` locks and changes.
pub struct Condition {
    pub condition: Owned,
    /// A list.
    pub waiters: Owned,
}

#[derive(Default)]
pub(super) struct Inner {
    pub work: Option<Work>,
    pub end: Option<End>,
    /// The object being called, borrowed from its [`Calling`].
    pub calling: Option<NonNull<ffi::PyObject>>,
    pub begun: Option<Begun>,
    /// The coroutine is to be cancelled once its first step is over.
    pub cancel_wanted: bool,
    pub watchers: Vec<Watcher>,
    pub condition: Option<Box<Condition>>,
}

pub struct Job {
    /// Written under the lock, with Release; read by anyone.
    state: AtomicU8,
    pub(super) inner: Attached<Inner>,
}

impl Job {
    pub fn new(work: Work) -> Self {
        let inner = Inner { work: Some(work), ..Inner::default() };
        Self { state: AtomicU8::new(State::Pending as u8), inner: Attached::new(inner) }
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

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Takes out the work, for a caller that does it now on the loop of that inbox; None if it was cancelled. The
    /// [`Calling`] must be dropped before the work.
    pub fn take_work<'py>(
        &self,
        py: Python<'py>,
        inbox: &InboxSender<Post>,
    ) -> Option<(Work, Calling<'_, 'py>)> {
        let mut inner = self.inner.lock(py);
        if self.state() != State::Pending {
            return None;
        }
        let work = inner.work.take()?;
        // In the same step: at no moment does a running job look like one that can't be cancelled and turn out to be one that can.
        match &work {
            Work::Call(call) => inner.calling = NonNull::new(call.callback.as_ptr()),
            Work::Coroutine { .. } => inner.begun = Some(Begun { inbox: inbox.clone(), task: None }),
        }
        self.set_state(State::Running);
        Some((work, Calling(self, py)))
    }

    /// Takes the work away from a job that must not be done.
    pub fn revoke(&self, py: Python<'_>) {
        let work = self.inner.lock(py).work.take();
        drop(work);
    }

    /// A reference to the object being called.
    pub fn callee(&self, py: Python<'_>) -> Option<Owned> {
        let inner = self.inner.lock(py);
        // SAFETY: attached; alive as long as it is in this field, which it is while the lock is held.
        inner.calling.map(|callee| unsafe { Owned::borrow(callee.as_ptr()) })
    }

    /// The job is a coroutine, which is about to make its first step on the loop of that inbox. False if it has been cancelled.
    #[must_use]
    pub fn note_begin(&self, py: Python<'_>, inbox: &InboxSender<Post>) -> bool {
        let mut inner = self.inner.lock(py);
        if self.state().is_done() {
            return false;
        }
        inner.calling = None;
        inner.begun = Some(Begun { inbox: inbox.clone(), task: None });
        true
    }

    /// The first step is over and the task goes on; whether it is to be cancelled at once.
    #[must_use]
    pub fn note_task(&self, py: Python<'_>, task: Owned) -> bool {
        let mut inner = self.inner.lock(py);
        let mut unused = Some(task);
        if let Some(begun) = &mut inner.begun {
            begun.task = unused.take();
        }
        let wanted = inner.cancel_wanted;
        drop(inner);
        wanted
    }

    /// The task of a coroutine that goes on.
    pub fn task(&self, py: Python<'_>) -> Option<Owned> {
        self.inner.lock(py).begun.as_ref()?.task.as_ref().map(|task| task.clone_ref(py))
    }

    /// Adds a waiter; gives it back if the job has ended.
    pub fn watch(&self, py: Python<'_>, watcher: Watcher) -> Result<(), Watcher> {
        let mut inner = self.inner.lock(py);
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
            State::Finished => self.inner.lock(py).end.as_ref().map(|end| end.clone_ref(py)),
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
        let mut inner = self.inner.lock(py);
        if inner.condition.is_none() {
            inner.condition = unused.take();
        }
        drop(inner);
        drop(unused);
        Ok(self.condition_if_made(py).expect("made above, and never taken out"))
    }

    pub(super) fn condition_if_made(&self, py: Python<'_>) -> Option<Condition> {
        self.inner.lock(py).condition.as_ref().map(|made| Condition {
            condition: made.condition.clone_ref(py),
            waiters: made.waiters.clone_ref(py),
        })
    }

    /// Shows every Python object in it to the garbage collector.
    pub fn visit<E>(&self, mut visit: impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        let Some(inner) = self.inner.seen_by_collector() else { return Ok(()) };
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
    pub fn take_all(&self, py: Python<'_>) -> impl Drop + use<> {
        struct Remains(#[allow(dead_code)] Inner);
        impl Drop for Remains {
            fn drop(&mut self) {}
        }
        Remains(std::mem::take(&mut *self.inner.lock(py)))
    }
}

/// As long as it lives, others can see the object being called, and so whether it will give a coroutine.
pub struct Calling<'a, 'py>(&'a Job, Python<'py>);

impl Drop for Calling<'_, '_> {
    fn drop(&mut self) {
        self.0.inner.lock(self.1).calling = None;
    }
}
