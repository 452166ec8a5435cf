//! What waits for a future: its callbacks, and the tasks among them, which are kept as themselves, without a context.
//!
//! The list changes in the loop's thread, or while the loop does not run; any thread may ask for a copy.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::fields::{Callback, Future, Kind};
use super::wakeup;
use crate::event_loop::core::{Core, Ready};
use crate::event_loop::remote::{Post, Record, RemoteCall};
use crate::event_loop::{EventLoop, queue};
use crate::py::{Owned, context};
use crate::sync::held::{Change, Exclusive};
use crate::sync::ownership::Foreign;

/// What is to be scheduled now that a future is done.
#[must_use]
pub(super) struct Waiting {
    first: Option<Owned>,
    context: Option<Owned>,
    rest: Vec<Callback>,
    /// A message that another one replaced: to be dropped outside of the lock.
    _former: Option<Owned>,
}

impl Future {
    /// Takes out what waits, with what the future's end replaced.
    #[inline(always)]
    pub(super) fn take_waiting(
        &self,
        event_loop: &EventLoop,
        core: &mut Core,
        former: Option<Owned>,
        change: Change<'_>,
    ) -> Waiting {
        let (first, context) = (self.callback.take(change), self.context.take(change));
        let rest = match self.rare(change) {
            Some(rare) if !rare.callbacks.is_empty() => std::mem::take(&mut rare.callbacks),
            _ => Vec::new(),
        };
        if let (Some(_), None) = (&first, &context)
            && !event_loop.shared.steps_by_handle()
            && !core.closed
        {
            core.ready.push_back(Ready::Task(first.expect("just seen")));
            return Waiting { first: None, context: None, rest, _former: former };
        }
        Waiting { first, context, rest, _former: former }
    }

    /// Adds a callback, unless the future is done: then it is left to the caller.
    #[inline]
    pub(super) fn add_waiting(&self, new: &mut Option<Callback>, change: Change<'_>) {
        self.check(change);
        if !self.life.is_pending() {
            return;
        }
        let Some(new) = new.take() else { return };
        let first =
            self.callback.is_empty() && self.rare(change).is_none_or(|rare| rare.callbacks.is_empty());
        if first {
            self.put_first(new, change);
        } else {
            self.rare_mut(change).callbacks.push(new);
        }
    }

    /// Fills the first place, which is empty.
    #[inline]
    fn put_first(&self, Callback { callback, context }: Callback, change: Change<'_>) {
        self.callback.put(callback, change);
        if let Some(context) = context {
            self.context.put(context, change);
        }
    }

    /// References to all callbacks with their contexts.
    pub(super) fn copy_callbacks(
        &self,
        py: Python<'_>,
        proof: impl Exclusive,
    ) -> Vec<(Owned, Option<Owned>)> {
        let first = self.callback.peek(proof).map(|callback| (callback, self.context.peek(proof)));
        let rest = self.rare(proof).map(|rare| rare.callbacks.as_slice()).unwrap_or_default();
        let rest = rest.iter().map(|one| {
            (one.callback.clone_ref(py), one.context.as_ref().map(|context| context.clone_ref(py)))
        });
        first.into_iter().chain(rest).collect()
    }

    /// Takes out the callbacks that are one of `matching`.
    fn take_matching(&self, matching: &[*mut ffi::PyObject], change: Change<'_>) -> Vec<Callback> {
        let mut removed = Vec::new();
        if let Some(rare) = self.rare(change) {
            removed.extend(rare.callbacks.extract_if(.., |one| matching.contains(&one.callback.as_ptr())));
        }
        if matching.contains(&self.callback.pointer()) {
            let (callback, context) = (self.callback.take(change), self.context.take(change));
            removed.extend(callback.map(|callback| Callback { callback, context }));
            // The first place is filled again, so that the order stays.
            if let Some(rare) = self.rare(change)
                && !rare.callbacks.is_empty()
            {
                self.put_first(rare.callbacks.remove(0), change);
            }
        }
        removed
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
            None => wakeup::push(py, event_loop, callback.callback),
            Some(context) => {
                queue::soon_seen(py, event_loop, callback.callback.as_ptr(), &[object], context).map(drop)
            }
        }
    }
}

/// Schedules one callback while the loop does not run; but since its future ended, a thread may have begun to.
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
                let (callback, context) = wakeup::with_context(py, callback)?;
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
    match event_loop.with_tasks(|_, change| future.add_waiting(&mut new, change)) {
        Err(foreign) => Ok(Err(foreign)),
        Ok(()) => match new {
            None => Ok(Ok(())),
            // SAFETY: promised.
            Some(callback) => unsafe { call(py, future.loop_pointer(), object, callback).map(Ok) },
        },
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
    let callbacks = match event_loop.with_tasks(|_, change| future.copy_callbacks(py, change)) {
        Ok(callbacks) => callbacks,
        Err(foreign) => return Ok(Err(foreign)),
    };
    let mut matching = Vec::new();
    for (callback, context) in &callbacks {
        // Comparing runs any code, which may change the list: so a copy is compared.
        let same = match context {
            None => wakeup::is_of(unwanted, callback),
            // As in CPython: what is the same object is equal, whatever it says.
            Some(_) => callback.bind(py).is(unwanted) || callback.bind(py).eq(unwanted)?,
        };
        if same {
            matching.push(callback.as_ptr());
        }
    }
    let removed = event_loop.with_tasks(|_, change| future.take_matching(&matching, change));
    // Dropped outside of the lock.
    Ok(removed.map(|removed| removed.len()))
}

/// `_callbacks`: a list of (callback, context), or None. Any thread.
pub(super) fn callbacks(py: Python<'_>, future: &Future) -> PyResult<Py<PyAny>> {
    let callbacks = future.alive()?.look_at_tasks(|look| future.copy_callbacks(py, look));
    if callbacks.is_empty() {
        return Ok(py.None());
    }
    let list = PyList::empty(py);
    for (callback, context) in callbacks {
        let (callback, context) = match context {
            Some(context) => (callback.into_bound(py), context.into_bound(py)),
            None => wakeup::with_context(py, callback)?,
        };
        list.append(PyTuple::new(py, [callback, context])?)?;
    }
    Ok(list.into_any().unbind())
}
