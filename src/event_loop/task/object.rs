//! Life of the objects: what the collector sees of them, finalisers, deallocation. The base's fields stay empty but for what
//! asyncio's own functions put there (3.14's `awaited_by`); the base's functions look after those.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;

use super::{
    Callback, Future, GOING, Kind, LOG_DESTROY, LOG_TRACEBACK, Rare, State, peek, take, task_of, types,
    unseen,
};
use crate::event_loop::report::Report;
use crate::py::{Owned, raw};

/// What a future referred to; released when dropped.
#[derive(Default)]
struct Remains {
    _objects: Vec<Owned>,
    _rare: Option<Box<Rare>>,
}

/// asyncio's type that the kind derives from.
unsafe fn base<K: Kind>() -> *mut ffi::PyTypeObject {
    let kind = if K::IS_TASK { types().task } else { types().future };
    // SAFETY: a live type.
    unsafe { (*kind).tp_base }
}

impl Future {
    /// Takes everything out but the loop, which stays as long as the object: others may be reading it.
    ///
    /// # Safety
    /// The lock is held, or nobody else has the object. `object` is of the kind.
    unsafe fn take_all<K: Kind>(&self, object: *mut ffi::PyObject, remains: &mut Remains) {
        // SAFETY: promised.
        unsafe {
            let rare = self.rare.replace(std::ptr::null_mut());
            remains._rare = (!rare.is_null()).then(|| Box::from_raw(rare));
            remains._objects.extend(
                [&self.callback, &self.context, &self.value].into_iter().filter_map(|field| take(field)),
            );
            if K::IS_TASK {
                let task = task_of(object);
                let fields = [&task.coro, &task.run_context, &task.waiter];
                remains._objects.extend(fields.into_iter().filter_map(|field| take(field)));
                remains._objects.extend(task.take_name());
            }
        }
    }
}

pub(super) unsafe extern "C" fn traverse<K: Kind>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector with the world stopped; only reads. The base's function shows the type, its own
    // fields and the instance's dict.
    unsafe {
        if let Some(inherited) = (*base::<K>()).tp_traverse {
            let stopped = inherited(object, visit, arg);
            if stopped != 0 {
                return stopped;
            }
        }
        let future = K::future(object);
        let see = |reference: *mut ffi::PyObject| match raw::visit(reference, visit, arg) {
            0 => Ok(()),
            stopped => Err(stopped),
        };
        let fields = [&future.event_loop, &future.callback, &future.context, &future.value];
        let mut seen = fields.into_iter().try_for_each(|field| see(field.get()));
        if K::IS_TASK {
            let task = task_of(object);
            let fields = [&task.coro, &task.run_context, &task.waiter];
            seen = seen.and_then(|()| fields.into_iter().try_for_each(|field| see(field.get())));
        }
        if let Some(rare) = future.rare() {
            seen = seen.and_then(|()| rare.visit(|object| see(object.as_ptr())));
        }
        seen.err().unwrap_or(0)
    }
}

impl Rare {
    fn visit<E>(&self, mut see: impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        for Callback { callback, context } in &self.callbacks {
            see(callback)?;
            context.iter().try_for_each(&mut see)?;
        }
        let single = [
            &self.exception_traceback,
            &self.source_traceback,
            &self.cancel_message,
            &self.cancelled_error,
            &self.throw,
        ];
        single.into_iter().flatten().try_for_each(see)
    }
}

pub(super) unsafe extern "C" fn clear<K: Kind>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage. A snapshot of all tasks may still have found it, hence the lock.
    unsafe {
        if let Some(inherited) = (*base::<K>()).tp_clear {
            inherited(object);
        }
        let future = K::future(object);
        let mut remains = Remains::default();
        match future.event_loop() {
            Some(event_loop) => event_loop.look_at_tasks(|| {
                if K::IS_TASK {
                    event_loop.tasks.unlink(object);
                }
                future.take_all::<K>(object, &mut remains);
            }),
            None => future.take_all::<K>(object, &mut remains),
        }
        drop(remains);
    }
    0
}

pub(super) unsafe extern "C" fn finalize<K: Kind>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python, attached, with an object of the kind that nobody refers to any more.
    unsafe {
        let future = K::future(object);
        #[cfg(not(Py_3_14))]
        if K::IS_TASK
            && let Some(event_loop) = future.event_loop()
        {
            // Before 3.14 a task that the collector has found is no more among all tasks, should its handler revive it.
            event_loop.look_at_tasks(|| event_loop.tasks.unlink(object));
        }
        let pending = K::IS_TASK && future.state() == State::Pending && future.has(LOG_DESTROY);
        if !pending && !future.has(LOG_TRACEBACK)
            // A forked child's copy of what the parent goes on with.
            || future.event_loop().is_none_or(|event_loop| event_loop.shared.is_forked())
        {
            return;
        }
        let raised = ffi::PyErr_GetRaisedException();
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            let told = if !pending && !future.has(GOING) && unseen::may_be_seen_yet() {
                unseen::wait(&object, look_again::<K>)
            } else {
                complain(&object, future, pending)
            };
            if let Err(error) = told {
                error.write_unraisable(py, Some(&object));
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
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

pub(super) unsafe extern "C" fn dealloc<K: Kind>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference. The task leaves its loop's list first, so that nobody can find an
    // object that is going; then follows the order of every type with a finaliser. The base's function does the rest, and frees.
    unsafe {
        let future = K::future(object);
        if K::IS_TASK
            && future.has(super::LINKED)
            && let Some(event_loop) = future.event_loop()
        {
            event_loop.look_at_tasks(|| event_loop.tasks.unlink(object));
        }
        if future.has(LOG_TRACEBACK) {
            future.flags.fetch_or(GOING, Ordering::Relaxed);
        }
        if ffi::PyObject_CallFinalizerFromDealloc(object) != 0 {
            // Somebody has it again.
            future.flags.fetch_and(!GOING, Ordering::Relaxed);
            if K::IS_TASK
                && future.state() == State::Pending
                && let Some(event_loop) = future.event_loop()
            {
                raw::enable_try_incref(object);
                event_loop.look_at_tasks(|| event_loop.tasks.link(object));
            }
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        let event_loop = take(&future.event_loop);
        if !future.rare.get().is_null() {
            let mut remains = Remains::default();
            future.take_all::<K>(object, &mut remains);
            drop(remains);
        } else {
            drop([take(&future.callback), take(&future.context), take(&future.value)]);
            if K::IS_TASK {
                let task = task_of(object);
                drop([take(&task.coro), take(&task.run_context), take(&task.waiter), task.take_name()]);
            }
        }
        drop(event_loop);
        let base = base::<K>();
        let mut frees = base;
        // The base's first field is its loop: set only if somebody called asyncio's own `__init__` on the object.
        let plain = (*object.add(1).cast::<*mut ffi::PyObject>()).is_null();
        if cfg!(Py_3_14) && K::IS_TASK && plain {
            // A C task's looks for the object in a list of its thread's, and stops every thread if it takes it for another's. Ours
            // stand in no such list (see `asyncio`): the rest of what it does is cleared here, and left to the future's.
            ffi::PyObject_ClearWeakRefs(object);
            if let Some(clear_inherited) = (*base).tp_clear {
                clear_inherited(object);
            }
            frees = (*base).tp_base;
        }
        let inherited = (*frees).tp_dealloc.expect("asyncio's types have one");
        inherited(object);
    }
}
