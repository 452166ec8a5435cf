//! The Python types of handles: methods, attributes, repr, and the order of timers.

use std::ffi::{c_int, c_void};

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::object::{self, HANDLE, Handle, HandleRef, TIMER};
use super::shown::{describe_callback, loop_of, report};
use crate::py::method::{function, getter};
use crate::py::{Owned, context, imports, raw};

const FLAGS: std::ffi::c_ulong =
    ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;

/// Makes both types and adds them to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    HANDLE.init_and_add(module, handle_spec(), None)?;
    // SAFETY: the type just made.
    let base = unsafe { Bound::from_borrowed_ptr(module.py(), HANDLE.native().cast()) };
    TIMER.init_and_add(module, timer_spec(), Some(&base))
}

fn handle_spec() -> raw::TypeSpec {
    raw::TypeSpec {
        name: c"tokioloop._tokioloop.Handle",
        basicsize: size_of::<Handle>() as c_int,
        flags: FLAGS | ffi::Py_TPFLAGS_BASETYPE,
        slots: vec![
            (ffi::Py_tp_doc, c"A callback that waits to be run by its loop.".as_ptr() as *mut c_void),
            (ffi::Py_tp_repr, repr as *mut c_void),
        ],
        methods: vec![
            raw::no_args(
                c"cancel",
                cancel,
                c"Do not run the callback. While the loop runs, only from its thread, except handles of call_soon_threadsafe.",
            ),
            raw::no_args(c"cancelled", cancelled, c"Whether it was cancelled. Any thread."),
            raw::no_args(c"get_context", get_context, c"The context that the callback runs in. Any thread."),
            raw::no_args(c"_run", run, c"Run the callback now; errors go to the loop's exception handler."),
        ],
        getset: vec![
            raw::getter(
                c"__class__",
                get_class,
                c"asyncio's class of the same name, so that isinstance() holds.",
            ),
            raw::getter(c"_callback", get_callback, c"The callback, or None once cancelled."),
            raw::getter(c"_args", get_args, c"The arguments as a tuple, or None once cancelled."),
            raw::getter(c"_loop", get_loop, c"The loop."),
            raw::getter(c"_context", get_context_attribute, c"The context."),
            raw::getter(c"_cancelled", get_cancelled, c"Whether it was cancelled."),
            raw::getter(c"_source_traceback", get_traceback, c"Where it was made, in debug mode."),
        ],
        members: vec![raw::weaklist_member(offset_of_weaklist())],
    }
}

fn timer_spec() -> raw::TypeSpec {
    raw::TypeSpec {
        name: c"tokioloop._tokioloop.TimerHandle",
        basicsize: size_of::<Handle>() as c_int,
        flags: FLAGS,
        slots: vec![
            (
                ffi::Py_tp_doc,
                c"A callback that waits for a time of its loop's clock.".as_ptr() as *mut c_void,
            ),
            (ffi::Py_tp_richcompare, compare as *mut c_void),
            (ffi::Py_tp_hash, hash as *mut c_void),
        ],
        methods: vec![raw::no_args(
            c"when",
            when,
            c"The time it is due, in seconds of loop.time(). Any thread.",
        )],
        getset: vec![
            raw::getter(c"_when", get_when, c"The time it is due."),
            raw::getter(c"_scheduled", get_scheduled, c"Whether it waits for its time."),
        ],
        members: vec![],
    }
}

const fn offset_of_weaklist() -> usize {
    // The field after the object header.
    size_of::<ffi::PyObject>()
}

/// # Safety
/// `object` is a Handle: the type's own functions get nothing else.
unsafe fn of<'a>(object: *mut ffi::PyObject) -> &'a Handle {
    // SAFETY: promised.
    unsafe { &*object.cast() }
}

/// A new reference to an object, or to None.
unsafe fn or_none(py: Python<'_>, object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    if object.is_null() {
        return raw::none(py);
    }
    // SAFETY: a live object of the handle.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn cancel(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, with a Handle. `enter_hot`: no `Py` is dropped on the way but in the error.
    unsafe {
        raw::enter_hot(|py| {
            let handle = HandleRef::from_owned(Owned::borrow(object));
            object::cancel(py, &handle)?;
            Ok(raw::none(py))
        })
    }
}

function!(enter cancelled(py, object, handle = of(object)) Ok(raw::boolean(py, handle.is_cancelled())));
function!(enter get_context(py, object, handle = of(object)) Ok(or_none(py, handle.context)));
function!(enter when(py, object, handle = of(object)) Ok(handle.when.into_pyobject(py)?.into_any().into_ptr()));

unsafe extern "C" fn run(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, with a Handle. Called from a copy of the target: this thread may not own the loop.
    unsafe {
        raw::enter(|py| {
            raw::check_stack()?;
            let handle = HandleRef::from_owned(Owned::borrow(object));
            let Some(event_loop) = loop_of(py, handle.get()) else { return Ok(raw::none(py)) };
            let context = handle.get().context;
            let result = match handle.get().target(py)? {
                Some((callback, args)) if !context.is_null() => {
                    context::run(py, &Owned::borrow(context), || callback.call1(args)).map(drop)
                }
                _ => Err(PyTypeError::new_err("the handle was cancelled")),
            };
            if let Err(error) = result {
                report(&event_loop, &handle, error)?;
            }
            Ok(raw::none(py))
        })
    }
}

unsafe extern "C" fn get_class(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a Handle.
    unsafe {
        raw::enter(|py| {
            let class = if object::is_timer(object) {
                imports::asyncio_timer_handle(py)?
            } else {
                imports::asyncio_handle(py)?
            };
            Ok(class.clone().into_ptr())
        })
    }
}

getter!(get_callback(py, object, handle = of(object)) {
    Ok(handle.target(py)?.map_or_else(|| raw::none(py), |(callback, _)| callback.into_ptr()))
});
getter!(get_args(py, object, handle = of(object)) {
    Ok(handle.target(py)?.map_or_else(|| raw::none(py), |(_, args)| args.into_ptr()))
});
getter!(get_loop(py, object, handle = of(object)) Ok(or_none(py, handle.event_loop)));
getter!(get_context_attribute(py, object, handle = of(object)) Ok(or_none(py, handle.context)));
getter!(get_cancelled(py, object, handle = of(object)) Ok(raw::boolean(py, handle.is_cancelled())));
getter!(get_traceback(py, object, handle = of(object)) Ok(or_none(py, handle.source_traceback)));
getter!(get_when(py, object, handle = of(object)) Ok(handle.when.into_pyobject(py)?.into_any().into_ptr()));
getter!(get_scheduled(py, object, handle = of(object)) Ok(raw::boolean(py, handle.is_scheduled())));

/// A hash as a C function returns it.
#[derive(Clone, Copy)]
struct Hash(ffi::Py_hash_t);

impl raw::Returned for Hash {
    const FAILED: Self = Self(-1);
}

unsafe extern "C" fn hash(object: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: attached, with a Handle.
    unsafe {
        raw::enter(|py| {
            let hash = of(object).when.into_pyobject(py)?.hash()?;
            Ok(Hash(hash))
        })
        .0
    }
}

unsafe extern "C" fn compare(
    object: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    operation: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: attached; `object` is a TimerHandle, and `other` too if it has the same type (no subclasses exist).
    unsafe {
        raw::enter(|py| {
            let unsupported = || py.NotImplemented().into_ptr();
            if ffi::Py_TYPE(object) != ffi::Py_TYPE(other) {
                return Ok(unsupported());
            }
            let (left, right) = (of(object), of(other));
            let same = |py| -> PyResult<bool> {
                if std::ptr::eq(left, right) {
                    return Ok(true);
                }
                let key = |handle: &Handle| -> PyResult<Py<PyAny>> {
                    Ok((handle.target(py)?, handle.is_cancelled()).into_pyobject(py)?.into_any().unbind())
                };
                Ok(left.when == right.when && key(left)?.bind(py).eq(key(right)?.bind(py))?)
            };
            let answer = match CompareOp::from_raw(operation) {
                Some(CompareOp::Lt) => left.when < right.when,
                Some(CompareOp::Gt) => left.when > right.when,
                Some(CompareOp::Le) => left.when < right.when || same(py)?,
                Some(CompareOp::Ge) => left.when > right.when || same(py)?,
                Some(CompareOp::Eq) => same(py)?,
                Some(CompareOp::Ne) => !same(py)?,
                None => return Ok(unsupported()),
            };
            Ok(raw::boolean(py, answer))
        })
    }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, with a Handle.
    unsafe {
        raw::enter(|py| {
            raw::check_stack()?;
            let handle = of(object);
            let kind = Bound::from_borrowed_ptr(py, ffi::Py_TYPE(object).cast());
            let mut parts = vec![kind.getattr("__name__")?.extract::<String>()?];
            if handle.is_cancelled() {
                parts.push("cancelled".into());
            }
            if object::is_timer(object) {
                parts.push(format!("when={}", handle.when));
            }
            let foreign =
                loop_of(py, handle).is_some_and(|event_loop| event_loop.get().shared.claim().is_err());
            if foreign && handle.is_local() {
                parts.push("of a loop that runs in another thread".into());
            } else {
                parts.extend(describe_callback(py, handle)?);
            }
            if !handle.source_traceback.is_null() {
                let frames = Bound::from_borrowed_ptr(py, handle.source_traceback);
                let frame = frames.get_item(-1)?;
                parts.push(format!("created at {}:{}", frame.get_item(0)?, frame.get_item(1)?));
            }
            Ok(format!("<{}>", parts.join(" ")).into_pyobject(py)?.into_any().into_ptr())
        })
    }
}
