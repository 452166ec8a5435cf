//! How messages show a handle, and the report of what its callback raised.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::object::{Handle, HandleRef};
use crate::event_loop::EventLoop;
use crate::event_loop::report::Report;
use crate::py::fatal::{Fatal, OrFatal};
use crate::py::{Owned, imports};

/// The handle's loop; None while the handle is being collected.
pub(super) fn loop_of<'py>(py: Python<'py>, handle: &Handle) -> Option<Bound<'py, EventLoop>> {
    let object = handle.event_loop;
    // SAFETY: the handle holds a reference to a loop, or null.
    (!object.is_null())
        .then(|| unsafe { Bound::from_borrowed_ptr(py, object).cast_into_unchecked::<EventLoop>() })
}

/// The callback as asyncio's messages name it; arguments are shown in debug mode only. None once cancelled.
pub(super) fn describe_callback(py: Python<'_>, handle: &Handle) -> PyResult<Option<String>> {
    let Some((callback, args)) = handle.target(py)? else { return Ok(None) };
    let debug = loop_of(py, handle).is_some_and(|event_loop| event_loop.get().shared.is_debug());
    let format = imports::format_callback_source(py)?;
    let keywords = PyDict::new(py);
    keywords.set_item("debug", debug)?;
    let arguments = PyTuple::new(py, [callback, args.into_any()])?;
    let text = format
        .call(&arguments, Some(&keywords))
        // Early 3.13 releases know no `debug`.
        .or_else(|_| format.call1(&arguments))?;
    text.extract().map(Some)
}

/// Reports a callback's error to the loop's exception handler.
#[cold]
pub fn report(event_loop: &Bound<'_, EventLoop>, handle: &HandleRef, error: PyErr) -> OrFatal {
    let py = event_loop.py();
    let error = Fatal::split(py, error)?;
    let what = match describe_callback(py, handle.get()) {
        Ok(what) => what.unwrap_or_else(|| "<cancelled>".into()),
        // The callback's error is the one to report; an error of its repr is dropped, unless it must leave the run.
        Err(failed) => Fatal::split(py, failed).map(|_| "<callback that cannot be shown>".into())?,
    };
    let mut report = Report::new(format!("Exception in callback {what}"))
        .error(error)
        .with("handle", handle.as_object().bind(py).to_owned());
    let traceback = handle.get().source_traceback;
    if !traceback.is_null() {
        // SAFETY: alive with the handle.
        report = report.with("source_traceback", unsafe { Bound::from_borrowed_ptr(py, traceback) });
    }
    report.send(event_loop)
}

/// The stack of the Python code that is making a handle, without asyncio's and our own frames.
pub fn source_traceback(py: Python<'_>) -> PyResult<Owned> {
    let frame = imports::getframe(py)?.call1((0,))?;
    Ok(imports::extract_stack(py)?.call1((frame,))?.into())
}
