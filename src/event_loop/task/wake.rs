//! For those who make futures for coroutines of ours to wait for.

use pyo3::ffi;
use pyo3::prelude::*;

use super::{FutureKind, Kind, State, exact_future, future, types};
use crate::py::names::names;
use crate::py::{Owned, call};

/// Whether a native future was cancelled. Any thread; that it was not may be over the next moment.
pub fn is_cancelled(future: &Owned) -> bool {
    // SAFETY: alive.
    unsafe { exact_future(future.as_ptr()) }.is_some_and(|state| state.state() == State::Cancelled)
}

/// Ends a future with None; one that is done already (cancelled) stays so. On its loop's thread.
#[inline]
pub fn wake(py: Python<'_>, waiting: &Owned) -> PyResult<()> {
    let none = || Owned::from(py.None().into_bound(py));
    // SAFETY: alive; an exact native future.
    unsafe {
        if ffi::Py_TYPE(waiting.as_ptr()) == types().future
            && (FutureKind::future(waiting.as_ptr()).state() != State::Pending
                || future::set_result::<FutureKind>(py, waiting.as_ptr(), none())?.is_ok())
        {
            return Ok(());
        }
    }
    // A future of another type; or of ours, from another thread: its method says what is wrong with that.
    if call::method0(py, waiting, names().done)?.bind(py).is_truthy()? {
        return Ok(());
    }
    call::method1(py, waiting, names().set_result, &none().bind(py)).map(drop)
}
