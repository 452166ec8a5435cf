//! Errors that leave a loop's run: KeyboardInterrupt, SystemExit, and errors without which the loop can't continue. They have a type of
//! their own, so that a `?` never takes an ordinary error along with them: code inside a turn returns [`OrFatal`], and a function
//! that has a `PyErr` there must decide its fate: report it to the exception handler, or [split](Fatal::split) it.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;

use crate::Owned;

/// An exception that leaves the run. One word, so that a turn's results are returned in a register. There is no `From<PyErr>`.
#[must_use]
pub struct Fatal(Owned);

/// What runs inside a turn returns.
pub type OrFatal<T = ()> = Result<T, Fatal>;

const _: () = assert!(size_of::<OrFatal>() == size_of::<usize>());

impl Fatal {
    /// Whether an error must leave the run instead of being reported.
    pub fn is(py: Python<'_>, error: &PyErr) -> bool {
        error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
    }

    /// An ordinary error to be dealt with here, or one that must leave.
    pub fn split(py: Python<'_>, error: PyErr) -> OrFatal<PyErr> {
        if Self::is(py, &error) { Err(Self::of_loop(py, error)) } else { Ok(error) }
    }

    /// Any error, of what the loop can't go on without: the driver, or the program's own exception handler. A handler of
    /// `signal.signal()` too, which may raise anything to end the run.
    #[cold]
    pub fn of_loop(py: Python<'_>, error: PyErr) -> Self {
        Self(error.into_value(py).into_bound(py).into_any().into())
    }
}

/// Of two things that were both done: the first error leaves the run; a second one, which would be lost otherwise, goes to
/// `sys.unraisablehook`.
pub fn both(py: Python<'_>, first: OrFatal, second: OrFatal) -> OrFatal {
    match (first, second) {
        (Err(first), Err(second)) => {
            PyErr::from(second).write_unraisable(py, None);
            Err(first)
        }
        (first, second) => first.and(second),
    }
}

impl From<Fatal> for PyErr {
    fn from(Fatal(error): Fatal) -> Self {
        // SAFETY: a thread that has an `Owned` is attached.
        PyErr::from_value(error.into_bound(unsafe { Python::assume_attached() }))
    }
}
