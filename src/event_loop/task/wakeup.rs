//! A task's wake-up: its step onto the queue, and the same as a Python callable. What wakes tasks is below the steps, which say
//! at the start which function makes one. In the loop's thread, or while the loop does not run.

use std::ffi::c_void;
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::fields::task_of;
use crate::event_loop::core::Ready;
use crate::event_loop::{EventLoop, queue};
use crate::py::Owned;

/// Puts a task's step onto the queue. As a Handle in debug mode, which shows each step as one,
/// and where `call_soon` is overridden.
///
/// `event_loop` is the task's loop, alive.
pub(super) fn push(py: Python<'_>, event_loop: *mut ffi::PyObject, task: Owned) -> PyResult<()> {
    // SAFETY: an EventLoop, alive.
    let borrowed = unsafe { Bound::from_borrowed_ptr(py, event_loop).cast_into_unchecked::<EventLoop>() };
    let lp = borrowed.get();
    if lp.shared.steps_by_handle() {
        let (wakeup, context) = with_context(py, task)?;
        // SAFETY: all alive.
        return unsafe { queue::soon_seen(py, event_loop, wakeup.as_ptr(), &[], context.into()) }.map(drop);
    }
    let pushed = lp
        .with_claim(move |core| core.push(Ready::Task(task)))
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    pushed.map_err(|_| lp.refusal())
}

/// `task_wakeup`, bound to a task: what futures of other kinds call, and what handles in debug mode run.
static WAKEUP: OnceLock<Definition> = OnceLock::new();

struct Definition(*mut ffi::PyMethodDef);
// SAFETY: never freed, immutable.
unsafe impl Send for Definition {}
// SAFETY: as above.
unsafe impl Sync for Definition {}

/// Says which function runs a step.
pub(super) fn init(wakeup: ffi::PyCFunctionFast) {
    let definition = ffi::PyMethodDef {
        ml_name: c"task_wakeup".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: wakeup },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: std::ptr::null(),
    };
    WAKEUP.get_or_init(|| Definition(Box::into_raw(Box::new(definition))));
}

/// The wake-up of a task as a callable, and the context to call it in.
pub(super) fn with_context(py: Python<'_>, task: Owned) -> PyResult<(Bound<'_, PyAny>, Bound<'_, PyAny>)> {
    let definition = WAKEUP.get().expect("made by the module's init").0;
    // SAFETY: the definition is never freed; a task's context is set before another thread can have the task, and stays until the task
    // is garbage.
    unsafe {
        let function = ffi::PyCFunction_NewEx(definition, task.as_ptr(), std::ptr::null_mut());
        let function = Owned::steal_or_err(py, function)?;
        let context = task_of(task.as_ptr()).run_context.pointer();
        let context = Bound::from_borrowed_ptr_or_opt(py, context);
        let context = context.ok_or_else(|| PyRuntimeError::new_err("uninitialized Task object"))?;
        Ok((function.into_bound(py), context))
    }
}

/// Whether a callable is the wake-up of a task.
pub(super) fn is_of(callable: &Bound<'_, PyAny>, task: &Owned) -> bool {
    let definition = WAKEUP.get().expect("made by the module's init").0;
    // SAFETY: the layout is checked first; only read.
    unsafe {
        ffi::PyCFunction_CheckExact(callable.as_ptr()) != 0 && {
            let function = callable.as_ptr().cast::<ffi::PyCFunctionObject>();
            (*function).m_ml.cast::<c_void>() == definition.cast() && (*function).m_self == task.as_ptr()
        }
    }
}
