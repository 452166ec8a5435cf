//! Life of the objects: what the collector sees of them, and finalisers. The base's fields stay empty, except for what
//! asyncio's own functions put there (3.14's `awaited_by`); the base's functions look after those.
//!
//! Called by Python's reference counting and collector, in any thread.

use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::{Callback, FUTURE, Future, FutureKind, Kind, Rare, TASK, Task, TaskKind, task_of};
use super::unseen;
use crate::event_loop::report::Report;
use crate::py::class::{Base, Class, Object, Visit};
use crate::py::{Owned, raw};
use crate::sync::held::{Exclusive, Sole};

/// What a future referred to, except its loop; released when dropped.
#[derive(Default)]
struct Remains {
    _objects: [Option<Owned>; 7],
    _rare: Option<Box<Rare>>,
}

impl Future {
    /// Takes everything out but the loop, which stays as long as the object: others may be reading it.
    ///
    /// # Safety
    /// `object` is of the kind.
    #[inline]
    unsafe fn take_fields<K: Kind>(&self, object: *mut ffi::PyObject, proof: impl Exclusive) -> Remains {
        let (callback, context) = (self.callback.take(proof), self.context.take(proof));
        let mut remains = Remains {
            _objects: [callback, context, self.value.take(proof), None, None, None, None],
            _rare: self.take_rare(proof),
        };
        if K::IS_TASK {
            // SAFETY: promised.
            let task = unsafe { task_of(object) };
            let [.., coro, context, waiter, name] = &mut remains._objects;
            *coro = task.coro.take(proof);
            *context = task.run_context.take(proof);
            *waiter = task.waiter.take(proof);
            *name = task.take_name(proof);
        }
        remains
    }

    fn visit_fields(&self, see: &mut Visit) {
        // SAFETY: its own reference, or null.
        unsafe { see.pointer(self.loop_pointer()) };
        for field in [&self.callback, &self.context, &self.value] {
            // SAFETY: its own reference, or null.
            unsafe { see.pointer(field.pointer()) };
        }
        // SAFETY: the collector has stopped all other threads.
        if let Some(rare) = self.rare(unsafe { Sole::new() }) {
            rare.visit(see);
        }
    }

    /// Whether it is pending, and its going is to be told.
    fn is_abandoned<K: Kind>(&self) -> bool {
        K::IS_TASK && self.life.is_pending() && self.life.logs_destruction()
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
        if self.life.is_unretrieved() {
            // SAFETY: the last reference is gone, and no list leads to the object.
            self.life.going(unsafe { Sole::new() });
        }
    }

    #[inline]
    fn is_unfinished(&self) -> bool {
        self.life.is_unretrieved()
    }

    unsafe fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
        tell::<FutureKind>(object)
    }

    fn saved(&self, _: *mut ffi::PyObject) {
        if self.life.is_going()
            && let Some(event_loop) = self.event_loop()
        {
            event_loop.look_at_tasks(|look| self.life.saved(look));
        }
    }

    #[inline]
    unsafe fn base_must_free(object: *mut ffi::PyObject) -> bool {
        // SAFETY: promised.
        unsafe { was_initialised_by_asyncio(object) }
    }
}

/// Whether asyncio's own deallocation has to free an object: 3.14 keeps lists of asyncio's C tasks, which one of ours is in only if
/// a program called asyncio's own `__init__` on it. That sets the base's first field, the loop. For all others that function would
/// search those lists without effect, and stop every thread for it.
///
/// # Safety
/// A future or task whose base's fields are whole.
#[inline]
unsafe fn was_initialised_by_asyncio(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the base's fields are behind the header.
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
            unsafe { see.pointer(field.pointer()) };
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

    /// The task leaves its loop's list, so that no thread can find an object that is going.
    #[inline]
    fn leave(&self, object: *mut ffi::PyObject) {
        if self.future.life.is_linked() {
            unlink(&self.future, object);
        }
        self.future.leave(object);
    }

    #[inline]
    fn is_unfinished(&self) -> bool {
        self.future.is_abandoned::<TaskKind>()
            || self.future.is_unfinished()
            || cfg!(not(Py_3_14)) && self.future.life.is_linked()
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
        if self.future.life.is_pending()
            && let Some(event_loop) = self.future.event_loop()
        {
            // SAFETY: alive again.
            unsafe { raw::enable_try_incref(object) };
            // SAFETY: a task of the loop, which left the list when it was about to go.
            event_loop.look_at_tasks(|look| unsafe { event_loop.tasks.link(object, look) });
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
        // SAFETY: a task of the loop.
        event_loop.look_at_tasks(|look| unsafe { event_loop.tasks.unlink(object, look) });
    }
}

/// What an object in garbage referred to. A snapshot of all tasks may still have found it, hence the lock.
unsafe fn take_under_lock<K: Kind>(object: *mut ffi::PyObject) -> Remains {
    // SAFETY: `Object::take` promises a live object of the kind.
    unsafe {
        let future = K::future(object);
        // Without a loop it was never filled, so that no other thread can do anything with it.
        let Some(event_loop) = future.event_loop() else {
            return future.take_fields::<K>(object, Sole::new());
        };
        event_loop.look_at_tasks(|look| {
            if K::IS_TASK {
                event_loop.tasks.unlink(object, look);
            }
            future.take_fields::<K>(object, look)
        })
    }
}

/// What an object that goes referred to; its loop last.
#[inline]
unsafe fn take_the_rest<K: Kind>(object: *mut ffi::PyObject) -> (Remains, Option<Owned>) {
    // SAFETY: `Object::take_all` promises an object of the kind that only the caller has.
    unsafe {
        let future = K::future(object);
        // No other thread has the object.
        let sole = Sole::new();
        (future.take_fields::<K>(object, sole), future.take_loop(sole))
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

/// Reports a future that has no reference left: a task that is pending, or an exception that was never retrieved.
fn tell<K: Kind>(object: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live object of the kind.
    let future = unsafe { K::future(object.as_ptr()) };
    let pending = future.is_abandoned::<K>();
    if !pending && !future.life.is_unretrieved()
        // A forked child's copy of what the parent goes on with.
        || future.event_loop().is_none_or(|event_loop| event_loop.shared.is_forked())
    {
        return Ok(());
    }
    if !pending && !future.life.is_going() && unseen::may_be_seen_yet() {
        unseen::wait(object, look_again::<K>)
    } else {
        complain(object, future, pending)
    }
}

/// Reports an exception that is still not retrieved now that all finalisers have run.
fn look_again<K: Kind>(object: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live object of the kind.
    let future = unsafe { K::future(object.as_ptr()) };
    if future.life.is_unretrieved() { complain(object, future, false) } else { Ok(()) }
}

/// Tells the loop's exception handler of a task that goes before its end, or an exception that was never retrieved.
fn complain(object: &Bound<'_, PyAny>, future: &Future, pending: bool) -> PyResult<()> {
    let py = object.py();
    // A finaliser that ran before this one may have handed the future to another thread.
    let (error, source_traceback) = future.alive()?.look_at_tasks(|look| {
        if !pending {
            future.life.retrieve(look);
        }
        let source_traceback = future.rare(look).and_then(|rare| rare.source_traceback.as_ref());
        (future.value.peek(look), source_traceback.map(|traceback| traceback.clone_ref(py)))
    });
    let mut report = if pending {
        Report::new("Task was destroyed but it is pending!").with("task", object.clone())
    } else {
        let kind = object.get_type().name()?;
        let mut report = Report::new(format!("{kind} exception was never retrieved"));
        if let Some(error) = error {
            report = report.with("exception", error.into_bound(py));
        }
        report.with("future", object.clone())
    };
    if let Some(traceback) = source_traceback {
        report = report.with("source_traceback", traceback.into_bound(py));
    }
    Ok(report.send(&future.loop_object(py)?)?)
}
