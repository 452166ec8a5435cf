//! Reports to a loop's exception handler: the only path for errors that no code awaits.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::EventLoop;
use crate::py::fatal::{Fatal, OrFatal};
use crate::py::names::names;
use crate::py::{Owned, context, imports};

/// The context of one call of the exception handler. Keys are asyncio's.
#[must_use]
pub struct Report<'py> {
    message: Cow<'static, str>,
    error: Option<PyErr>,
    others: Vec<(&'static str, Bound<'py, PyAny>)>,
    context: Option<Owned>,
}

impl<'py> Report<'py> {
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), error: None, others: Vec::new(), context: None }
    }

    pub fn error(self, error: PyErr) -> Self {
        Self { error: Some(error), ..self }
    }

    /// Has the handler called in a context, for what no program called.
    pub fn inside(self, context: Owned) -> Self {
        Self { context: Some(context), ..self }
    }

    pub fn transport(self, transport: &Bound<'py, PyAny>) -> Self {
        self.with("transport", transport.clone())
    }

    pub fn protocol(self, protocol: Bound<'py, PyAny>) -> Self {
        self.with("protocol", protocol)
    }

    pub fn with(mut self, key: &'static str, value: Bound<'py, PyAny>) -> Self {
        self.others.push((key, value));
        self
    }

    /// Calls the exception handler, unless the error must leave the run. So does what escapes from the handler: the loop's own lets
    /// nothing out but KeyboardInterrupt and SystemExit, and a program that overrides `call_exception_handler` means what it raises.
    #[cold]
    pub fn send(self, on: &Bound<'py, EventLoop>) -> OrFatal {
        let py = on.py();
        let Self { message, error, others, context: inside } = self;
        let error = error.map(|error| Fatal::split(py, error)).transpose()?;
        tracing::debug!(id = on.get().shared.id, %message, "error reported");
        let call = || -> PyResult<()> {
            let context = PyDict::new(py);
            context.set_item("message", message)?;
            if let Some(error) = &error {
                context.set_item("exception", error.value(py))?;
            }
            for (key, value) in others {
                context.set_item(key, value)?;
            }
            on.call_method1(names().call_exception_handler.bind(py), (context,)).map(drop)
        };
        let called = match &inside {
            Some(inside) => context::run_if_outside(py, inside, call),
            None => call(),
        };
        called.map_err(|error| Fatal::of_loop(py, error))
    }
}

/// In debug mode, logs an OSError that only a transport's protocol gets.
pub fn log<'py>(
    on: &Bound<'py, EventLoop>,
    transport: &Bound<'py, PyAny>,
    message: &str,
    error: &Bound<'py, PyAny>,
) -> PyResult<()> {
    if !on.get().shared.is_debug() {
        return Ok(());
    }
    let py = on.py();
    let options = PyDict::new(py);
    options.set_item("exc_info", error)?;
    imports::logger(py)?.call_method("debug", ("%r: %s", transport, message), Some(&options)).map(drop)
}

/// For results that come up inside a turn.
pub trait OrReport<T> {
    /// The value, or None once the error was reported.
    fn or_report<'py>(
        self,
        on: &Bound<'py, EventLoop>,
        report: impl FnOnce() -> Report<'py>,
    ) -> OrFatal<Option<T>>;
}

impl<T> OrReport<T> for PyResult<T> {
    #[inline]
    fn or_report<'py>(
        self,
        on: &Bound<'py, EventLoop>,
        report: impl FnOnce() -> Report<'py>,
    ) -> OrFatal<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            // A callback forked, and this is the child: the loop refuses everything, which is not an error of the program and ends the run.
            Err(error) if on.get().shared.is_forked() => Err(Fatal::of_loop(on.py(), error)),
            Err(error) => report().error(error).send(on).map(|()| None),
        }
    }
}
