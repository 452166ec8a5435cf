//! What `await` sees of a future.
//!
//! An exact native future is its own iterator: awaiting makes no object. The slot is filled after the type was made, so that
//! it has no attribute `__next__`, and a future does not pass for a `collections.abc.Iterator`. `iter(future)`, `future.__await__()` by
//! name, and subclasses get a `FutureIter`, which has all that asyncio's has.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;

use super::fields::{FUTURE, Future, FutureKind, Kind, Slot, TASK, TaskKind, exact_future};
use super::future;
use crate::py::class::{Class, Object, Visit};
use crate::py::errors::{end_with, raise_the_end, thrown};
use crate::py::{Owned, raw};
use crate::sync::held::Sole;
use crate::sync::ownership::Foreign;

#[repr(C)]
struct FutureIter {
    header: ffi::PyObject,
    /// The future, until it was seen to be done. Of either type, or derived from one. Any thread may step the iterator: looked at
    /// and taken in its critical section.
    future: Slot,
    /// It was yielded to a thread that may not mark the future as yielded.
    yielded: AtomicBool,
}

/// The future of an iterator, as long as it is there.
fn future_of(iter: &Bound<'_, PyAny>) -> Option<Owned> {
    // SAFETY: a FutureIter; the section keeps other threads out.
    with_critical_section(iter, || unsafe { FutureIter::of(iter.as_ptr()).future.peek(Sole::new()) })
}

/// Releases the future.
fn let_go(iter: &Bound<'_, PyAny>) {
    // SAFETY: a FutureIter; the section keeps other threads out.
    let future =
        with_critical_section(iter, || unsafe { FutureIter::of(iter.as_ptr()).future.take(Sole::new()) });
    // Outside of the section: it may run any code.
    drop(future);
}

static CLASS: Class<FutureIter> = Class::new();

// SAFETY: the struct begins with the header.
unsafe impl Object for FutureIter {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn visit(&self, see: &mut Visit) {
        // SAFETY: its own reference, or null.
        unsafe { see.pointer(self.future.pointer()) };
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: no other thread has the iterator.
        unsafe { Self::of(object).future.take(Sole::new()) }
    }

    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: as above.
        unsafe { Self::of(object).future.take(Sole::new()) }
    }
}

pub(super) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let spec = raw::TypeSpec {
        name: c"tokioloop._tokioloop.FutureIter",
        basicsize: size_of::<FutureIter>() as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            (ffi::Py_tp_iter, ffi::PyObject_SelfIter as *mut c_void),
            (ffi::Py_tp_iternext, next as *mut c_void),
        ],
        methods: vec![
            raw::one_arg(c"send", send, c"As next(): what is sent does not matter."),
            raw::no_args(c"close", close, c"Release the future."),
            raw::method(
                c"throw",
                ffi::PyMethodDefPointer { PyCFunctionFast: throw },
                ffi::METH_FASTCALL,
                c"Raise the exception.",
            ),
        ],
        getset: vec![],
        members: vec![],
    };
    CLASS.init(module, spec, None)?;
    // SAFETY: our own types, not shared yet. PyType_Modified is not needed: no attribute changes.
    unsafe {
        (*FUTURE.native()).tp_iternext = Some(own_next::<FutureKind>);
        (*TASK.native()).tp_iternext = Some(own_next::<TaskKind>);
    }
    Ok(())
}

/// What `await` itself calls. Where another thread runs the loop that is an iterator of its own, which can tell that it is stepped
/// again: only the loop's thread can mark the future.
pub(super) unsafe extern "C" fn get_await(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a future.
    unsafe {
        match exact_future(object).and_then(Future::event_loop) {
            Some(event_loop) if event_loop.shared.is_mine() || !event_loop.shared.is_running() => {
                ffi::Py_NewRef(object)
            }
            _ => make(object),
        }
    }
}

/// `__iter__`.
pub(super) unsafe extern "C" fn get_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe { make(object) }
}

/// `__await__()` in so many words.
pub(super) unsafe extern "C" fn await_by_name(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe { make(object) }
}

unsafe fn make(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a future.
    unsafe {
        raw::enter(|py| {
            state_of(object).alive()?;
            let made = CLASS.allocate(py)?;
            FutureIter::of(made.as_ptr()).future.put(Owned::borrow(object), Sole::new());
            Ok(made.into_ptr())
        })
    }
}

/// The state of a future of either type or of a subclass.
unsafe fn state_of<'a>(object: *mut ffi::PyObject) -> &'a Future {
    // SAFETY: promised by the caller.
    unsafe { if TASK.is_instance(object) { TaskKind::future(object) } else { FutureKind::future(object) } }
}

/// A future as its own iterator: yields itself once, then returns its result or raises.
unsafe extern "C" fn own_next<K: Kind>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a future of the kind. `enter_hot`: errors alone drop pyo3's references.
    unsafe {
        raw::enter_hot(|py| {
            advance(py, object, K::future(object), |foreign| match foreign.is_forked() {
                true => Err(crate::event_loop::forked()),
                // Awaited in its own thread, which is where it may be stepped.
                false => Err(future::not_awaited()),
            })
        })
    }
}

/// The future once while it is pending; null without an exception for a result of None; otherwise as in C. `elsewhere` decides
/// whether it is yielded to a thread that may not mark it.
#[inline]
unsafe fn advance(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    future: &Future,
    elsewhere: impl FnOnce(Foreign) -> PyResult<()>,
) -> PyResult<*mut ffi::PyObject> {
    if future.life.is_pending() {
        future::yield_once(future)?.or_else(elsewhere)?;
        // SAFETY: alive.
        return Ok(unsafe { ffi::Py_NewRef(object) });
    }
    end_with(py, future::result(py, future)?)
}

unsafe extern "C" fn next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a FutureIter.
    unsafe {
        raw::enter(|py| {
            let iter = Bound::from_borrowed_ptr(py, object);
            let Some(future) = future_of(&iter) else { return Ok(std::ptr::null_mut()) };
            let state = state_of(future.as_ptr());
            if !state.life.is_pending() {
                let_go(&iter);
            }
            let yielded = &(*object.cast::<FutureIter>()).yielded;
            advance(py, future.as_ptr(), state, |_| match yielded.swap(true, Ordering::Relaxed) {
                // A task of another loop, which says what is wrong when it sees what was yielded.
                false => Ok(()),
                true => Err(future::not_awaited()),
            })
        })
    }
}

unsafe extern "C" fn send(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as for `next`.
    unsafe { raise_the_end(next(object)) }
}

unsafe extern "C" fn close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a FutureIter.
    unsafe {
        raw::enter(|py| {
            let_go(&Bound::from_borrowed_ptr(py, object));
            Ok(raw::none(py))
        })
    }
}

/// `throw(exception)`, or the deprecated `throw(type, value, traceback)`.
unsafe extern "C" fn throw(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a FutureIter and `nargs` arguments.
    unsafe {
        raw::enter::<*mut ffi::PyObject>(|py| {
            let error = thrown(py, args, nargs)?;
            let_go(&Bound::from_borrowed_ptr(py, object));
            Err(error)
        })
    }
}
