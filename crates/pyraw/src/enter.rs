//! Entering Rust from a C function that Python calls, and leaving it with a value or with an exception set.
//!
//! Slow paths enter by [`enter`], which tells pyo3 that the thread is attached: all of pyo3's types may be used and dropped inside. Hot
//! ones enter by [`enter_hot`], which does not.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;

use crate::panic;
use crate::result::Returned;

/// Tells pyo3 that the thread is attached, while `body` runs, which may then use and drop any of its types. For the few places
/// inside of [`enter_hot`] that need it.
///
/// # Safety
/// The thread is attached.
pub unsafe fn told<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    let mut body = Some(body);
    match Python::try_attach(|py| body.take().expect("called once")(py)) {
        Some(result) => result,
        // The interpreter is going down, and pyo3 attaches no thread any more. This thread is attached all the same, since Python
        // called us: a finaliser's report, or a repr in it, is as good as any.
        // SAFETY: attached, so that attaching again only counts.
        None => unsafe { Python::attach_unchecked(|py| body.take().expect("try_attach did not run it")(py)) },
    }
}

/// Runs the body of a C function: an error or a panic becomes a Python exception.
///
/// # Safety
/// The thread is attached. Informs pyo3, which makes every pyo3 type usable inside.
pub unsafe fn enter<R: Returned>(body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: promised.
    unsafe { told(|_| enter_hot(body)) }
}

/// As [`enter`], without telling pyo3: the body must not drop a `Py` or a `PyErr`.
///
/// # Safety
/// The thread is attached.
#[inline]
pub unsafe fn enter_hot<R: Returned>(body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: promised by the caller.
    let py = unsafe { Python::assume_attached() };
    rawthread::quiet::check_over();
    match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => fail(error),
        Err(payload) => panicked(payload),
    }
}

/// Raises what says where Rust panicked.
#[cold]
fn panicked<R: Returned>(payload: Box<dyn Any + Send>) -> R {
    fail(panic::error(&*payload))
}

/// Raises the error.
#[cold]
fn fail<R: Returned>(error: PyErr) -> R {
    // SAFETY: attached, since Python called us. Raising may drop pyo3's references.
    unsafe { told(|py| error.restore(py)) };
    R::FAILED
}

/// RecursionError where little of the thread's stack is left. For whatever may come back to itself by what it calls, without a
/// function in Python in between to be counted: or with one, in a thread whose stack does not hold as many as Python counts.
#[inline]
pub fn check_stack() -> PyResult<()> {
    if rawthread::is_stack_short() { Err(stack_is_short()) } else { Ok(()) }
}

#[cold]
fn stack_is_short() -> PyErr {
    PyRecursionError::new_err("maximum recursion depth exceeded: the thread's stack is nearly full")
}
