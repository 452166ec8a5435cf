//! What futures do, whichever of the two types they are: getting done, telling whoever waits, giving their result.

use std::ptr;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::{BLOCKING, Callback, FAILED, Future, Kind, LOG_TRACEBACK, State, peek, step, take};
use crate::event_loop::core::{Core, Ready};
use crate::event_loop::post::{Post, RemoteCall};
use crate::event_loop::record::Record;
use crate::event_loop::{EventLoop, queue};
use crate::py::names::names;
use crate::py::{Owned, context, imports};
use crate::sync::ownership::Foreign;

/// How a future ends.
pub(super) enum Outcome {
    Result(Owned),
    Exception { error: Owned, traceback: Option<Owned> },
    Cancelled { message: Option<Owned>, error: Option<Owned> },
}

/// Why a future did not end.
pub(super) enum Refused {
    /// It is done already.
    Done,
    Thread(Foreign),
}

/// Whom to tell that a future is done.
#[must_use]
pub(super) struct Waiting {
    first: Option<Owned>,
    context: Option<Owned>,
    rest: Vec<Callback>,
    /// A message that another one replaced: to be dropped outside of the lock.
    _former: Option<Owned>,
}

#[cold]
pub(super) fn invalid_state(py: Python<'_>, text: &str) -> PyErr {
    match imports::invalid_state_error(py).and_then(|class| class.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Ends a future: stores how, and takes out who waits for it. A single waiting task goes onto the queue at once.
///
/// # Safety
/// `object` is alive, and of the kind.
#[inline]
pub(super) unsafe fn finish<K: Kind>(
    object: *mut ffi::PyObject,
    event_loop: &EventLoop,
    outcome: Outcome,
) -> Result<Waiting, Refused> {
    // SAFETY: promised.
    let future = unsafe { K::future(object) };
    let mut outcome = Some(outcome);
    let done = event_loop.with_tasks(|core| {
        if future.state() != State::Pending {
            return None;
        }
        let former = future.store(outcome.take().expect("taken once"));
        if K::IS_TASK {
            // SAFETY: a task of this loop, under the lock.
            unsafe { event_loop.tasks.unlink(object) };
        }
        Some(Waiting { _former: former, ..future.take_waiting(event_loop, core) })
    });
    match done {
        Ok(Some(waiting)) => Ok(waiting),
        // What was not stored is dropped here, outside of the lock.
        Ok(None) => Err(Refused::Done),
        Err(foreign) => Err(Refused::Thread(foreign)),
    }
}

impl Future {
    /// Stores how it ended; gives back what was replaced. Under the lock.
    #[inline]
    fn store(&self, outcome: Outcome) -> Option<Owned> {
        match outcome {
            Outcome::Result(value) => {
                self.value.set(value.into_ptr());
                self.set_state(State::Finished);
            }
            Outcome::Exception { error, traceback } => {
                self.value.set(error.into_ptr());
                if traceback.is_some() {
                    self.rare_mut().exception_traceback = traceback;
                }
                self.set(FAILED | LOG_TRACEBACK, true);
                self.set_state(State::Finished);
            }
            Outcome::Cancelled { message, error } => {
                if message.is_some() || error.is_some() {
                    self.rare_mut().cancelled_error = error;
                }
                let former =
                    self.rare().and_then(|rare| std::mem::replace(&mut rare.cancel_message, message));
                self.set_state(State::Cancelled);
                return former;
            }
        }
        None
    }

    /// Takes out who waits. Under the lock.
    #[inline]
    fn take_waiting(&self, event_loop: &EventLoop, core: &mut Core) -> Waiting {
        // SAFETY: under the lock.
        let (first, context) = unsafe { (take(&self.callback), take(&self.context)) };
        let rest = match self.rare() {
            Some(rare) if !rare.callbacks.is_empty() => std::mem::take(&mut rare.callbacks),
            _ => Vec::new(),
        };
        if let (Some(_), None) = (&first, &context)
            && !event_loop.shared.steps_by_handle()
            && !core.closed
        {
            core.ready.push_back(Ready::Task(first.expect("just seen")));
            return Waiting { first: None, context: None, rest, _former: None };
        }
        Waiting { first, context, rest, _former: None }
    }
}

impl Waiting {
    /// Schedules the callbacks, in the order they were added. RuntimeError when the loop is closed.
    ///
    /// # Safety
    /// `object` is the future they waited for; its loop is `event_loop`.
    #[inline]
    pub(super) unsafe fn tell(
        self,
        py: Python<'_>,
        event_loop: *mut ffi::PyObject,
        object: *mut ffi::PyObject,
    ) -> PyResult<()> {
        if let Some(callback) = self.first {
            // SAFETY: promised.
            unsafe { call(py, event_loop, object, Callback { callback, context: self.context })? };
        }
        for callback in self.rest {
            // SAFETY: promised.
            unsafe { call(py, event_loop, object, callback)? };
        }
        Ok(())
    }
}

/// Schedules one callback of a future.
unsafe fn call(
    py: Python<'_>,
    event_loop: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    callback: Callback,
) -> PyResult<()> {
    // SAFETY: as for the caller; without context the callback is a task of this loop.
    unsafe {
        let lp = Bound::from_borrowed_ptr(py, event_loop).cast_into_unchecked::<EventLoop>();
        if !lp.get().shared.is_mine() {
            return call_from_outside(&lp, object, callback);
        }
        match callback.context {
            None => step::push(py, event_loop, callback.callback),
            Some(context) => {
                queue::soon_seen(py, event_loop, callback.callback.as_ptr(), &[object], context).map(drop)
            }
        }
    }
}

/// Schedules one callback while nobody runs the loop; but since its future ended, a thread may have begun to.
#[cold]
unsafe fn call_from_outside(
    event_loop: &Bound<'_, EventLoop>,
    object: *mut ffi::PyObject,
    Callback { callback, context }: Callback,
) -> PyResult<()> {
    let py = event_loop.py();
    let shared = &event_loop.get().shared;
    let is_wakeup = context.is_none();
    // SAFETY: as for the caller.
    unsafe {
        let (callback, context) = match context {
            Some(context) => (callback, context),
            None => {
                let (callback, context) = step::wakeup_with_context(py, callback)?;
                (callback.into(), context.into())
            }
        };
        let args: &[*mut ffi::PyObject] = if is_wakeup { &[] } else { &[object] };
        let again = context.clone_ref(py);
        let refused = match queue::soon_in(py, event_loop.as_ptr(), callback.as_ptr(), args, context) {
            Err(refused) if shared.is_running() && !shared.is_mine() => refused,
            scheduled => return scheduled.map(drop),
        };
        let call = RemoteCall::new(py, callback.as_ptr(), args, &again, true, None);
        let sent = match call.and_then(|call| Record::new(py, call)) {
            Ok(record) => match shared.inbox.post(Post::Call(record)) {
                Ok(()) => Ok(()),
                Err(_) => return Err(refused),
            },
            Err(error) => Err(error),
        };
        // It said that another thread runs the loop now, which has the call. On the hot way pyo3 must be told for the drop.
        crate::py::raw::told(|_| drop(refused));
        sent
    }
}

/// `set_result`, for whoever may change the future.
///
/// # Safety
/// `object` is alive and of the kind.
#[inline]
pub(super) unsafe fn set_result<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    value: Owned,
) -> PyResult<Result<(), Foreign>> {
    // SAFETY: promised.
    unsafe { end::<K>(py, object, Outcome::Result(value)) }
}

/// Ends a future and tells who waits. InvalidStateError when it is done; what is not stored is dropped here.
///
/// # Safety
/// `object` is alive and of the kind.
#[inline]
pub(super) unsafe fn end<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    outcome: Outcome,
) -> PyResult<Result<(), Foreign>> {
    // SAFETY: promised.
    unsafe {
        let future = K::future(object);
        match finish::<K>(object, future.alive()?, outcome) {
            Ok(waiting) => waiting.tell(py, future.event_loop.get(), object).map(Ok),
            Err(Refused::Done) => Err(invalid_state(py, "invalid state")),
            Err(Refused::Thread(foreign)) => Ok(Err(foreign)),
        }
    }
}

/// What `set_exception` makes of its argument: an instance, never StopIteration.
pub(super) fn exception_outcome(py: Python<'_>, given: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    // SAFETY: only the type is looked at.
    let is_class = unsafe { ffi::PyExceptionClass_Check(given.as_ptr()) != 0 };
    let error = if is_class { given.call0()? } else { given.clone() };
    // SAFETY: as above.
    if unsafe { ffi::PyExceptionInstance_Check(error.as_ptr()) } == 0 {
        return Err(PyTypeError::new_err("invalid exception object"));
    }
    let error = if error.is_instance_of::<PyStopIteration>() {
        let text = "StopIteration interacts badly with generators and cannot be raised into a Future";
        let instead = PyRuntimeError::new_err(text).into_value(py).into_bound(py).into_any();
        instead.setattr("__cause__", &error)?;
        instead.setattr("__context__", &error)?;
        instead
    } else {
        error
    };
    // SAFETY: an exception; the answer is a new reference or null.
    let traceback = unsafe { ffi::PyException_GetTraceback(error.as_ptr()) };
    // SAFETY: as said.
    let traceback = (!traceback.is_null()).then(|| unsafe { Owned::steal(traceback) });
    Ok(Outcome::Exception { error: error.into(), traceback })
}

/// The error that a cancelled future raises. Any thread.
pub(super) fn cancelled_error(py: Python<'_>, future: &Future) -> PyResult<Owned> {
    let (made, message) = match future.event_loop() {
        None => (None, None),
        Some(event_loop) => event_loop.look_at_tasks(|| match future.rare() {
            None => (None, None),
            Some(rare) => {
                let message = rare.cancel_message.as_ref().map(|message| message.clone_ref(py));
                (rare.cancelled_error.take(), message)
            }
        }),
    };
    if let Some(made) = made {
        return Ok(made);
    }
    let class = imports::cancelled_error(py)?;
    Ok(match message.map(|message| message.into_bound(py)).filter(|message| !message.is_none()) {
        Some(message) => class.call1((message,))?.into(),
        None => class.call0()?.into(),
    })
}

/// How a future ended, as a task is told: None, or what to throw into its coroutine. Marks an exception as retrieved.
#[inline]
pub(super) fn failure(py: Python<'_>, future: &Future) -> PyResult<Option<Owned>> {
    match future.state() {
        State::Finished if !future.has(FAILED) => Ok(None),
        State::Finished => exception(py, future).map(Some),
        State::Cancelled => cancelled_error(py, future).map(Some),
        State::Pending => Err(invalid_state(py, "Result is not set.")),
    }
}

/// The exception of a failed future with the traceback it came with. Any thread.
#[cold]
fn exception(py: Python<'_>, future: &Future) -> PyResult<Owned> {
    let (error, traceback) = future.alive()?.look_at_tasks(|| {
        future.set(LOG_TRACEBACK, false);
        let traceback = future.rare().and_then(|rare| rare.exception_traceback.take());
        // SAFETY: under the lock.
        (unsafe { peek(&future.value) }, traceback)
    });
    let error = error.ok_or_else(|| invalid_state(py, "Result is not set."))?;
    let none = Owned::from(py.None().into_bound(py));
    // SAFETY: an exception and a traceback or None.
    unsafe { ffi::PyException_SetTraceback(error.as_ptr(), traceback.unwrap_or(none).as_ptr()) };
    Ok(error)
}

/// `result()`. Any thread.
#[inline]
pub(super) fn result(py: Python<'_>, future: &Future) -> PyResult<Owned> {
    let event_loop =
        future.event_loop().ok_or_else(|| invalid_state(py, "Future object is not initialized."))?;
    if let Some(error) = failure(py, future)? {
        return Err(PyErr::from_value(error.into_bound(py)));
    }
    let value = if event_loop.shared.is_mine() {
        // SAFETY: this thread is the only one to change it.
        unsafe { peek(&future.value) }
    } else {
        // SAFETY: under the lock.
        event_loop.look_at_tasks(|| unsafe { peek(&future.value) })
    };
    value.ok_or_else(|| invalid_state(py, "Result is not set."))
}

/// `add_done_callback`.
///
/// # Safety
/// `object` is alive and of the kind; `callback` is alive.
pub(super) unsafe fn add_callback<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    callback: *mut ffi::PyObject,
    given: Option<Owned>,
) -> PyResult<Result<(), Foreign>> {
    // SAFETY: promised.
    let (future, callback) = unsafe { (K::future(object), Owned::borrow(callback)) };
    let event_loop = future.alive()?;
    let context = match given {
        Some(context) => context,
        None => context::copy_current(py)?,
    };
    let mut new = Some(Callback { callback, context: Some(context) });
    match event_loop.with_tasks(|_| future.add_waiting(&mut new)) {
        Err(foreign) => Ok(Err(foreign)),
        Ok(()) => match new {
            None => Ok(Ok(())),
            // SAFETY: promised.
            Some(callback) => unsafe { call(py, future.event_loop.get(), object, callback).map(Ok) },
        },
    }
}

impl Future {
    /// Adds a callback, unless the future is done: then it is left to the caller. Under the lock.
    #[inline]
    pub(super) fn add_waiting(&self, new: &mut Option<Callback>) {
        if self.state() != State::Pending {
            return;
        }
        let Some(new) = new.take() else { return };
        let first = self.callback.get().is_null() && self.rare().is_none_or(|rare| rare.callbacks.is_empty());
        if first {
            self.callback.set(new.callback.into_ptr());
            self.context.set(new.context.map_or(ptr::null_mut(), Owned::into_ptr));
        } else {
            self.rare_mut().callbacks.push(new);
        }
    }

    /// References to all callbacks with their contexts. Under the lock.
    pub(super) fn copy_callbacks(&self, py: Python<'_>) -> Vec<(Owned, Option<Owned>)> {
        // SAFETY: under the lock.
        let first = unsafe { peek(&self.callback).map(|callback| (callback, peek(&self.context))) };
        let rest = self.rare().map(|rare| rare.callbacks.as_slice()).unwrap_or_default();
        let rest = rest.iter().map(|one| {
            (one.callback.clone_ref(py), one.context.as_ref().map(|context| context.clone_ref(py)))
        });
        first.into_iter().chain(rest).collect()
    }
}

/// `remove_done_callback`: how many were removed.
///
/// # Safety
/// `object` is alive and of the kind.
pub(super) unsafe fn remove_callback<K: Kind>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    unwanted: &Bound<'_, PyAny>,
) -> PyResult<Result<usize, Foreign>> {
    // SAFETY: promised.
    let future = unsafe { K::future(object) };
    let event_loop = future.alive()?;
    let callbacks = match event_loop.with_tasks(|_| future.copy_callbacks(py)) {
        Ok(callbacks) => callbacks,
        Err(foreign) => return Ok(Err(foreign)),
    };
    let mut matching = Vec::new();
    for (callback, context) in &callbacks {
        // Comparing runs any code, which may change the list: so a copy is compared.
        let same = match context {
            None => step::is_wakeup_of(unwanted, callback),
            // As in CPython: what is the same object is equal, whatever it says.
            Some(_) => callback.bind(py).is(unwanted) || callback.bind(py).eq(unwanted)?,
        };
        if same {
            matching.push(callback.as_ptr());
        }
    }
    let removed = event_loop.with_tasks(|_| future.take_matching(&matching));
    // Dropped outside of the lock.
    Ok(removed.map(|removed| removed.len()))
}

impl Future {
    /// Takes out the callbacks that are one of `matching`. Under the lock.
    fn take_matching(&self, matching: &[*mut ffi::PyObject]) -> Vec<Callback> {
        let mut removed = Vec::new();
        if let Some(rare) = self.rare() {
            removed.extend(rare.callbacks.extract_if(.., |one| matching.contains(&one.callback.as_ptr())));
        }
        if matching.contains(&self.callback.get()) {
            // SAFETY: under the lock.
            let (callback, context) = unsafe { (take(&self.callback), take(&self.context)) };
            removed.extend(callback.map(|callback| Callback { callback, context }));
            // The first place is filled again, so that the order stays.
            if let Some(rare) = self.rare()
                && !rare.callbacks.is_empty()
            {
                let next = rare.callbacks.remove(0);
                self.callback.set(next.callback.into_ptr());
                self.context.set(next.context.map_or(ptr::null_mut(), Owned::into_ptr));
            }
        }
        removed
    }
}

/// `_callbacks`: a list of (callback, context), or None. Any thread.
pub(super) fn callbacks(py: Python<'_>, future: &Future) -> PyResult<Py<PyAny>> {
    let callbacks = future.alive()?.look_at_tasks(|| future.copy_callbacks(py));
    if callbacks.is_empty() {
        return Ok(py.None());
    }
    let list = PyList::empty(py);
    for (callback, context) in callbacks {
        let (callback, context) = match context {
            Some(context) => (callback.into_bound(py), context.into_bound(py)),
            None => step::wakeup_with_context(py, callback)?,
        };
        list.append(PyTuple::new(py, [callback, context])?)?;
    }
    Ok(list.into_any().unbind())
}

/// What an `await` does first with a pending future: marks it as yielded. RuntimeError when that was done before.
#[inline]
pub(super) fn yield_once(future: &Future) -> PyResult<Result<(), Foreign>> {
    let marked = future.alive()?.with_tasks(|_| {
        let fresh = !future.has(BLOCKING);
        future.set(BLOCKING, true);
        fresh
    });
    match marked {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Err(not_awaited()),
        Err(foreign) => Ok(Err(foreign)),
    }
}

/// The error of a pending future that is stepped again.
#[cold]
pub(super) fn not_awaited() -> PyErr {
    PyRuntimeError::new_err("await wasn't used with future")
}

/// Calls a method of a future in its loop's thread, at some later time.
#[cold]
pub(super) fn route(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    method: &str,
    args: &[*mut ffi::PyObject],
) -> PyResult<()> {
    // SAFETY: all alive in the caller's hands.
    let (future, args): (_, Vec<_>) = unsafe {
        (
            Bound::<PyAny>::from_borrowed_ptr(py, object),
            args.iter().map(|&arg| Bound::<PyAny>::from_borrowed_ptr(py, arg)).collect(),
        )
    };
    let event_loop = future.getattr(names()._loop.bind(py))?;
    let args: Vec<_> = std::iter::once(future.getattr(method)?).chain(args).collect();
    event_loop.call_method1("call_soon_threadsafe", PyTuple::new(py, args)?).map(drop)
}
