//! Life of the objects: what the collector sees of them, and finalisers. The base's fields stay empty but for what
//! asyncio's own functions put there (3.14's `awaited_by`); the base's functions look after those.

use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::{
    Callback, FUTURE, Future, FutureKind, GOING, Kind, LINKED, LOG_DESTROY, LOG_TRACEBACK, Rare, State, TASK,
    Task, TaskKind, peek, take, task_of,
};
use super::unseen;
use crate::event_loop::report::Report;
use crate::py::class::{Base, Class, Object, Visit};
use crate::py::{Owned, raw};

/// What a future referred to, but for its loop; released when dropped.
#[derive(Default)]
struct Remains {
    _objects: [Option<Owned>; 7],
    _rare: Option<Box<Rare>>,
}

impl Future {
    /// Takes everything out but the loop, which stays as long as the object: others may be reading it.
    ///
    /// # Safety
    /// The lock is held, or nobody else has the object. `object` is of the kind.
    #[inline]
    unsafe fn take_fields<K: Kind>(&self, object: *mut ffi::PyObject) -> Remains {
        // SAFETY: promised.
        unsafe {
            let rare = self.rare.replace(std::ptr::null_mut());
            let mut remains = Remains {
                _objects: [
                    take(&self.callback),
                    take(&self.context),
                    take(&self.value),
                    None,
                    None,
                    None,
                    None,
                ],
                _rare: (!rare.is_null()).then(|| Box::from_raw(rare)),
            };
            if K::IS_TASK {
                let task = task_of(object);
                let [.., coro, context, waiter, name] = &mut remains._objects;
                *coro = take(&task.coro);
                *context = take(&task.run_context);
                *waiter = take(&task.waiter);
                *name = task.take_name();
            }
            remains
        }
    }

    fn visit_fields(&self, see: &mut Visit) {
        for field in [&self.event_loop, &self.callback, &self.context, &self.value] {
            // SAFETY: its own reference, or null.
            unsafe { see.pointer(field.get()) };
        }
        if let Some(rare) = self.rare() {
            rare.visit(see);
        }
    }

    /// Whether it is pending, and its going is to be told.
    fn is_abandoned<K: Kind>(&self) -> bool {
        K::IS_TASK && self.state() == State::Pending && self.has(LOG_DESTROY)
    }
}

// SAFETY: both types were made over asyncio's, with their state behind the base's fields.
unsafe impl Object for Future {
    const BASE: Base = Base::C;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &FUTURE
    }

    #[inline]
    unsafe fn of<'a>(object: *mut ffi::PyObject) -> &'a Self {
        // SAFETY: promised.
        unsafe { FutureKind::future(object) }
    }

    fn visit(&self, see: &mut Visit) {
        self.visit_fields(see);
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: promised.
        unsafe { take_under_lock::<FutureKind>(object) }
    }

    #[inline]
    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: promised.
        unsafe { take_the_rest::<FutureKind>(object) }
    }

    #[inline]
    fn leave(&self, _: *mut ffi::PyObject) {
        if self.has(LOG_TRACEBACK) {
            self.flags.fetch_or(GOING, Ordering::Relaxed);
        }
    }

    #[inline]
    fn is_unfinished(&self) -> bool {
        self.has(LOG_TRACEBACK)
    }

    unsafe fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
        tell::<FutureKind>(object)
    }

    fn saved(&self, _: *mut ffi::PyObject) {
        self.flags.fetch_and(!GOING, Ordering::Relaxed);
    }

    #[inline]
    unsafe fn base_must_free(object: *mut ffi::PyObject) -> bool {
        // SAFETY: promised.
        unsafe { was_initialised_by_asyncio(object) }
    }
}

/// Whether asyncio's own deallocation has to free an object: 3.14 keeps lists of asyncio's C tasks, which one of ours is in only if
/// somebody called asyncio's own `__init__` on it. That sets the base's first field, the loop. For all others that function would
/// search in vain, and stop every thread for it.
///
/// # Safety
/// A future or task whose base's fields are whole.
#[inline]
unsafe fn was_initialised_by_asyncio(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the base's fields stand behind the header.
    cfg!(Py_3_14) && !unsafe { *object.add(1).cast::<*mut ffi::PyObject>() }.is_null()
}

// SAFETY: as above.
unsafe impl Object for Task {
    const BASE: Base = Base::C;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &TASK
    }

    #[inline]
    unsafe fn of<'a>(object: *mut ffi::PyObject) -> &'a Self {
        // SAFETY: promised.
        unsafe { task_of(object) }
    }

    fn visit(&self, see: &mut Visit) {
        self.future.visit_fields(see);
        for field in [&self.coro, &self.run_context, &self.waiter] {
            // SAFETY: its own reference, or null.
            unsafe { see.pointer(field.get()) };
        }
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: promised.
        unsafe { take_under_lock::<TaskKind>(object) }
    }

    #[inline]
    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: promised.
        unsafe { take_the_rest::<TaskKind>(object) }
    }

    /// The task leaves its loop's list, so that nobody can find an object that is going.
    #[inline]
    fn leave(&self, object: *mut ffi::PyObject) {
        if self.future.has(LINKED) {
            unlink(&self.future, object);
        }
        self.future.leave(object);
    }

    #[inline]
    fn is_unfinished(&self) -> bool {
        self.future.is_abandoned::<TaskKind>()
            || self.future.is_unfinished()
            || cfg!(not(Py_3_14)) && self.future.has(LINKED)
    }

    unsafe fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
        // Before 3.14 a task that the collector has found is no more among all tasks, should its handler revive it.
        #[cfg(not(Py_3_14))]
        // SAFETY: a live task.
        unlink(unsafe { &task_of(object.as_ptr()).future }, object.as_ptr());
        tell::<TaskKind>(object)
    }

    fn saved(&self, object: *mut ffi::PyObject) {
        self.future.saved(object);
        if self.future.state() == State::Pending
            && let Some(event_loop) = self.future.event_loop()
        {
            // SAFETY: alive again.
            unsafe { raw::enable_try_incref(object) };
            // SAFETY: under the lock.
            event_loop.look_at_tasks(|| unsafe { event_loop.tasks.link(object) });
        }
    }

    #[inline]
    unsafe fn base_must_free(object: *mut ffi::PyObject) -> bool {
        // SAFETY: promised.
        unsafe { was_initialised_by_asyncio(object) }
    }
}

/// Takes a task out of its loop's list.
fn unlink(future: &Future, object: *mut ffi::PyObject) {
    if let Some(event_loop) = future.event_loop() {
        // SAFETY: under the lock.
        event_loop.look_at_tasks(|| unsafe { event_loop.tasks.unlink(object) });
    }
}

/// What an object in garbage referred to. A snapshot of all tasks may still have found it, hence the lock.
unsafe fn take_under_lock<K: Kind>(object: *mut ffi::PyObject) -> Remains {
    // SAFETY: as promised to `Object::take`.
    unsafe {
        let future = K::future(object);
        let Some(event_loop) = future.event_loop() else { return future.take_fields::<K>(object) };
        event_loop.look_at_tasks(|| {
            if K::IS_TASK {
                event_loop.tasks.unlink(object);
            }
            future.take_fields::<K>(object)
        })
    }
}

/// What an object that goes referred to; its loop last.
#[inline]
unsafe fn take_the_rest<K: Kind>(object: *mut ffi::PyObject) -> (Remains, Option<Owned>) {
    // SAFETY: as promised to `Object::take_all`.
    unsafe {
        let future = K::future(object);
        (future.take_fields::<K>(object), take(&future.event_loop))
    }
}

/// `__new__`, as asyncio's.
pub(super) unsafe extern "C" fn new<K: Kind>(
    class: *mut ffi::PyTypeObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a class over the type.
    unsafe {
        if K::IS_TASK {
            TASK.adopt(class)
        } else {
            FUTURE.adopt(class)
        }
        ffi::PyType_GenericNew(class, arguments, keywords)
    }
}

impl Rare {
    fn visit(&self, see: &mut Visit) {
        for Callback { callback, context } in &self.callbacks {
            see.object(callback);
            context.iter().for_each(|context| see.object(context));
        }
        let single = [
            &self.exception_traceback,
            &self.source_traceback,
            &self.cancel_message,
            &self.cancelled_error,
            &self.throw,
        ];
        single.into_iter().flatten().for_each(|object| see.object(object));
    }
}

/// Tells of a future that nobody refers to any more: a task that is pending, an exception that nobody has seen.
fn tell<K: Kind>(object: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live object of the kind.
    let future = unsafe { K::future(object.as_ptr()) };
    let pending = future.is_abandoned::<K>();
    if !pending && !future.has(LOG_TRACEBACK)
        // A forked child's copy of what the parent goes on with.
        || future.event_loop().is_none_or(|event_loop| event_loop.shared.is_forked())
    {
        return Ok(());
    }
    if !pending && !future.has(GOING) && unseen::may_be_seen_yet() {
        unseen::wait(object, look_again::<K>)
    } else {
        complain(object, future, pending)
    }
}

/// Tells of an exception that is still unseen now that all finalisers have run.
fn look_again<K: Kind>(object: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live object of the kind.
    let future = unsafe { K::future(object.as_ptr()) };
    if future.has(LOG_TRACEBACK) { complain(object, future, false) } else { Ok(()) }
}

/// Tells the loop's exception handler of a task that goes before its end, or an exception that nobody has seen.
fn complain(object: &Bound<'_, PyAny>, future: &Future, pending: bool) -> PyResult<()> {
    let py = object.py();
    let mut report = if pending {
        Report::new("Task was destroyed but it is pending!").with("task", object.clone())
    } else {
        let kind = object.get_type().name()?;
        let mut report = Report::new(format!("{kind} exception was never retrieved"));
        // SAFETY: nobody else changes it now.
        if let Some(error) = unsafe { peek(&future.value) } {
            report = report.with("exception", error.into_bound(py));
        }
        future.flags.fetch_and(!LOG_TRACEBACK, Ordering::Relaxed);
        report.with("future", object.clone())
    };
    if let Some(traceback) = future.rare().and_then(|rare| rare.source_traceback.as_ref()) {
        report = report.with("source_traceback", traceback.bind(py).to_owned());
    }
    Ok(report.send(&future.loop_object(py)?)?)
}
