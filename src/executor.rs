//! The native half of a loop's default executor: the queue of jobs, and the threads that wait for them.
//!
//! A thread attaches once, when Python starts it, and detaches only while it waits for a ticket, which permits it to look for a
//! job. It takes jobs attached, since the collector visits those that wait. The result of a function goes to the
//! loop's inbox in one message; no `concurrent.futures.Future` is made.

use std::collections::VecDeque;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use crate::event_loop::remote::Post;
use crate::event_loop::task::outside::{self, End};
use crate::event_loop::{EventLoop, task};
use crate::inbox::InboxSender;
use crate::py::pyclass::{BaseClass, Functions};
use crate::py::{Attached, Owned, imports};
use crate::sync::idle::Tickets;

struct Job {
    function: Owned,
    /// A tuple.
    args: Owned,
    /// A future of the loop that owns the inbox; only its state is read here.
    future: Owned,
    inbox: InboxSender<Post>,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    /// Threads that wait for a ticket, or are about to, and have not been given one.
    idle: usize,
    threads: usize,
    closed: bool,
}

/// Functions for threads to call, first come, first served.
#[pyclass(frozen, subclass, module = "tokioloop._tokioloop")]
pub struct ThreadQueue {
    most: usize,
    inner: Attached<Inner>,
    tickets: Tickets,
}

impl BaseClass for ThreadQueue {
    fn functions() -> &'static Functions {
        static FUNCTIONS: Functions = Functions::new();
        &FUNCTIONS
    }
}

#[pymethods]
impl ThreadQueue {
    /// For up to `most` threads.
    #[new]
    fn new(most: usize) -> Self {
        Self { most, inner: Attached::default(), tickets: Tickets::default() }
    }

    /// Calls `function(*args)` in one of the threads. Returns the loop's future for the result, and whether the caller has to
    /// start a thread for it. On the loop's thread. RuntimeError once closed.
    fn _submit(
        &self,
        event_loop: &Bound<'_, EventLoop>,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
    ) -> PyResult<(Py<PyAny>, bool)> {
        let py = event_loop.py();
        let future = task::create_future(event_loop)?;
        let job = Job {
            function: Owned::for_another_thread(function),
            args: Owned::for_another_thread(args),
            future: Owned::for_another_thread(&future.bind(py)),
            inbox: event_loop.get().shared.inbox.clone(),
        };
        let (refused, wake, wants_thread) = self.add(py, job);
        if wake {
            self.tickets.give(1);
        }
        if refused.is_some() {
            return Err(PyRuntimeError::new_err("cannot schedule new futures after shutdown"));
        }
        Ok((future.into_bound(py).unbind(), wants_thread))
    }

    /// A thread's work, until the queue is closed and empty. Called once in each thread that was started.
    fn _work(&self, py: Python<'_>) {
        while let Some(job) = self.next(py) {
            job.perform(py);
        }
    }

    /// Takes no more jobs; waiting ones are still done, or cancelled with `drop_waiting`. Returns how many were cancelled. Any thread.
    #[pyo3(signature = (drop_waiting = false))]
    fn _close(&self, py: Python<'_>, drop_waiting: bool) -> usize {
        let (dropped, idle) = {
            let mut inner = self.inner.lock(py);
            inner.closed = true;
            let dropped = if drop_waiting { std::mem::take(&mut inner.jobs) } else { VecDeque::new() };
            (dropped, std::mem::take(&mut inner.idle))
        };
        self.tickets.give(idle);
        let count = dropped.len();
        for job in dropped {
            job.answer(py, End::Cancelled);
        }
        count
    }

    /// A requested thread could not be started.
    fn _lost_thread(&self, py: Python<'_>) {
        let mut inner = self.inner.lock(py);
        inner.threads = inner.threads.saturating_sub(1);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(inner) = self.inner.seen_by_collector() else { return Ok(()) };
        for job in &inner.jobs {
            for object in [&job.function, &job.args, &job.future] {
                visit.call(object.as_py())?;
            }
        }
        Ok(())
    }
}

impl ThreadQueue {
    /// The job back if it was refused; whether to wake a thread, and whether to start one.
    fn add(&self, py: Python<'_>, job: Job) -> (Option<Job>, bool, bool) {
        let mut inner = self.inner.lock(py);
        if inner.closed {
            return (Some(job), false, false);
        }
        inner.jobs.push_back(job);
        if inner.idle > 0 {
            inner.idle -= 1;
            return (None, true, false);
        }
        let wants_thread = inner.threads < self.most;
        inner.threads += usize::from(wants_thread);
        (None, false, wants_thread)
    }

    fn next(&self, py: Python<'_>) -> Option<Job> {
        loop {
            {
                let mut inner = self.inner.lock(py);
                // Another thread may have taken the job of this ticket.
                if let Some(job) = inner.jobs.pop_front() {
                    return Some(job);
                }
                if inner.closed {
                    return None;
                }
                // The giver of its ticket takes it off the count.
                inner.idle += 1;
            }
            py.detach(|| self.tickets.take());
        }
    }
}

impl Job {
    fn perform(self, py: Python<'_>) {
        if task::is_cancelled(&self.future) {
            return;
        }
        // SAFETY: attached; a callable, or an object whose call raises TypeError, and a tuple.
        let result = unsafe {
            Owned::steal_or_err(
                py,
                ffi::PyObject_Call(self.function.as_ptr(), self.args.as_ptr(), std::ptr::null_mut()),
            )
        };
        let end = match result {
            Ok(value) => End::Result(Owned::for_another_thread(&value.bind(py))),
            Err(error) => End::Error(as_asyncios(py, error)),
        };
        self.answer(py, end);
    }

    /// Sends the result to the loop. A closed loop needs none.
    fn answer(self, _py: Python<'_>, end: End) {
        let Self { future, inbox, .. } = self;
        drop(
            inbox.post(Post::Finished(Box::new(move |on| outside::pass_on(on.event_loop(), &future, &end)))),
        );
    }
}

/// The exception that the future gets: as from `wrap_future`, those of `concurrent.futures` become asyncio's.
#[cold]
fn as_asyncios(py: Python<'_>, error: PyErr) -> Owned {
    let converted = imports::convert_future_exc(py).and_then(|convert| convert.call1((error.value(py),)));
    match converted {
        Ok(converted) => Owned::for_another_thread(&converted),
        Err(failed) => Owned::for_another_thread(failed.value(py)),
    }
}
