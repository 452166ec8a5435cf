//! Exceptions that were never retrieved, in garbage that the collector found.
//!
//! A finaliser that is yet to run may retrieve one, as that of asyncio's `StreamReaderProtocol` does. A free-threaded interpreter's
//! collector finalises garbage in the order of sizes and addresses, the other's in that in which it was made. So with the former a future
//! waits here, alive, until the collection is over, and is looked at again by a function in `gc.callbacks`.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyList, PyTuple};

use crate::py::{Attached, Owned};

/// Looks again at a future whose garbage was finalised.
pub(super) type Look = fn(&Bound<'_, PyAny>) -> PyResult<()>;

/// Futures of the collection that goes on; there is one at a time.
static WAITING: Attached<Vec<(Owned, Look)>> = Attached::new(Vec::new());
static AFTER: PyOnceLock<Py<PyCFunction>> = PyOnceLock::new();

/// Whether a finaliser may be yet to run, given that the collector runs this one.
pub(super) fn may_be_seen_yet() -> bool {
    // SAFETY: may be called at any time. The collections of an interpreter that ends call nothing afterwards.
    cfg!(Py_GIL_DISABLED) && unsafe { ffi::Py_IsFinalizing() } == 0
}

/// Has `look` called with the future when the collection is over.
pub(super) fn wait(future: &Bound<'_, PyAny>, look: Look) -> PyResult<()> {
    let py = future.py();
    let make = || PyCFunction::new_closure(py, None, None, after_collection).map(Bound::unbind);
    let after = AFTER.get_or_try_init(py, make)?.bind(py);
    // Entered when there is need, as others may empty the list.
    let callbacks = py.import("gc")?.getattr("callbacks")?.cast_into::<PyList>()?;
    if !callbacks.contains(after)? {
        callbacks.append(after)?;
    }
    let entry = (future.clone().into(), look);
    WAITING.lock(py).push(entry);
    Ok(())
}

fn after_collection(args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    if args.get_item(0)?.extract::<String>()? != "stop" {
        return Ok(());
    }
    let py = args.py();
    let waiting = std::mem::take(&mut *WAITING.lock(py));
    for (future, look) in waiting {
        let future = future.into_bound(py);
        if let Err(error) = look(&future) {
            error.write_unraisable(py, Some(&future));
        }
    }
    Ok(())
}
