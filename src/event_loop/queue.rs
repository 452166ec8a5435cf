//! Onto the ready queue: callbacks as Handles, made here or elsewhere. What the loop's own methods, futures and transports have in common;
//! it knows neither of turns nor of tasks.

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::EventLoop;
use super::core::Ready;
use super::handle::{self, HandleRef};
use crate::py::names::names;
use crate::py::{Owned, raw};

/// # Safety
/// `object` is an EventLoop (a method of the type is called with nothing else) and outlives the result.
#[inline]
pub(super) unsafe fn loop_of<'a>(py: Python<'a>, object: *mut ffi::PyObject) -> Borrowed<'a, 'a, EventLoop> {
    // SAFETY: promised.
    unsafe { Borrowed::from_ptr(py, object).cast_unchecked() }
}

/// As [`soon_in`], by the loop's own `call_soon` where a derived class has one.
///
/// # Safety
/// As for [`soon_in`].
#[inline]
pub(super) unsafe fn soon_seen(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    callback: *mut ffi::PyObject,
    args: &[*mut ffi::PyObject],
    context: Owned,
) -> PyResult<Owned> {
    // SAFETY: promised.
    unsafe {
        if !loop_of(py, object).get().shared.is_call_soon_overridden() {
            return soon_in(py, object, callback, args, context);
        }
        raw::check_stack()?;
        let event_loop = Bound::<PyAny>::from_borrowed_ptr(py, object);
        let all = std::iter::once(&callback).chain(args);
        let all = PyTuple::new(
            py,
            all.map(|&item| Bound::<PyAny>::from_borrowed_ptr(py, item)).collect::<Vec<_>>(),
        )?;
        let options = PyDict::new(py);
        options.set_item(names().context.bind(py), context.bind(py))?;
        Ok(event_loop.call_method(names().call_soon.bind(py), all, Some(&options))?.into())
    }
}

/// Queues a callback to be run in a context; returns the Handle.
///
/// # Safety
/// `object` is an EventLoop; all are alive.
#[inline]
pub(super) unsafe fn soon_in(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    callback: *mut ffi::PyObject,
    args: &[*mut ffi::PyObject],
    context: Owned,
) -> PyResult<Owned> {
    // SAFETY: promised.
    let borrowed = unsafe { loop_of(py, object) };
    let event_loop = borrowed.get();
    event_loop.check_open()?;
    let mine = event_loop.shared.is_mine();
    // SAFETY: the loop's own thread; the borrow ends with the statement.
    let spare = if mine { unsafe { event_loop.core_mut().free.pop() } } else { None };
    // SAFETY: one of the loop's free handles.
    let reuse = unsafe { HandleRef::again(py, spare) };
    // SAFETY: all alive; `reuse` is this loop's.
    let handle = unsafe { HandleRef::make(py, reuse, object, callback, args, context)? };
    if event_loop.shared.is_debug() {
        handle.set_traceback(handle::source_traceback(py)?);
    }
    let result = handle.as_object().clone_ref(py);
    if mine {
        // SAFETY: as above.
        unsafe { event_loop.core_mut().ready.push_back(Ready::Handle(handle)) };
    } else {
        schedule(py, event_loop, handle)?;
    }
    Ok(result)
}

/// Schedules a handle made elsewhere; cancelled ones are left out.
pub(crate) fn schedule(py: Python<'_>, lp: &EventLoop, handle: HandleRef) -> PyResult<()> {
    if handle.is_cancelled() {
        return Ok(());
    }
    let pushed = lp.with(py, move |core| core.push(Ready::Handle(handle)))?;
    pushed.map_err(|_| lp.refusal())
}
