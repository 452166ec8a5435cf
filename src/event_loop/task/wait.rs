//! What a step does with what its coroutine yields: the task waits for that, or its next step complains about it.
//!
//! In the loop's thread, inside a step.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::fields::{Callback, Future, exact_future, task_of};
use super::{cancel, wakeup};
use crate::event_loop::EventLoop;
use crate::event_loop::core::Ready;
use crate::py::fatal::Fatal;
use crate::py::names::names;
use crate::py::{Owned, imports};

/// The common cases of a yield: None, and a pending native future of this loop. The task's reference moves to where it waits;
/// it is given back where there is more to do.
#[inline]
pub(super) fn native(lp: &EventLoop, task: Owned, yielded: Owned) -> Result<(), (Owned, Owned)> {
    // SAFETY: a native task.
    let state = unsafe { task_of(task.as_ptr()) };
    if lp.shared.steps_by_handle() {
        return Err((task, yielded));
    }
    // SAFETY: only compared.
    if yielded.as_ptr() == unsafe { ffi::Py_None() } {
        let mut task = Some(task);
        let _ = lp.with_tasks(|core, change| {
            lp.tasks.set_current(std::ptr::null_mut(), change);
            core.push(Ready::Task(task.take().expect("moved once"))).map_err(|back| task = back.into_task())
        });
        return task.map_or(Ok(()), |task| Err((task, yielded)));
    }
    // SAFETY: alive.
    let Some(future) = (unsafe { exact_future(yielded.as_ptr()) }) else { return Err((task, yielded)) };
    let simple = future.loop_pointer() == state.future.loop_pointer()
        && future.life.is_blocking()
        && future.life.is_pending()
        && !state.future.life.must_cancel()
        && yielded.as_ptr() != task.as_ptr();
    if !simple {
        return Err((task, yielded));
    }
    let _ = lp.with_tasks(|_, change| {
        future.life.wait(change);
        state.waiter.put(yielded, change);
        future.add_waiting(&mut Some(Callback { callback: task, context: None }), change);
        lp.tasks.set_current(std::ptr::null_mut(), change);
    });
    Ok(())
}

/// Waits for anything that a coroutine may yield, or has the next step complain about it.
#[cold]
pub(super) fn any(event_loop: &Bound<'_, EventLoop>, task: &Owned, yielded: Owned) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let object = task.as_ptr();
    let shown = || -> PyResult<(String, String)> {
        Ok((task.bind(py).repr()?.to_string(), yielded.bind(py).repr()?.to_string()))
    };
    if yielded.bind(py).is_none() {
        return wakeup::push(py, event_loop.as_ptr(), task.clone_ref(py));
    }
    if yielded.as_ptr() == object {
        return fail_soon(event_loop, task, format!("Task cannot await on itself: {}", shown()?.0));
    }
    // SAFETY: alive.
    let native = unsafe { exact_future(yielded.as_ptr()) };
    let blocking = match native {
        Some(future) => Some(future.life.is_blocking()),
        None => match yielded.bind(py).getattr_opt(names()._asyncio_future_blocking.bind(py))? {
            Some(flag) if !flag.is_none() => Some(flag.is_truthy()?),
            _ => None,
        },
    };
    let Some(blocking) = blocking else {
        let generator = yielded.bind(py).is_instance(imports::generator_type(py)?)?;
        let (task_text, yielded_text) = shown()?;
        return fail_soon(
            event_loop,
            task,
            if generator {
                format!(
                    "yield was used instead of yield from for generator in task {task_text} with {yielded_text}"
                )
            } else {
                format!("Task got bad yield: {yielded_text}")
            },
        );
    };
    let its_loop = match native {
        Some(future) => future.loop_pointer(),
        None => imports::get_future_loop(py)?.call1((yielded.bind(py),))?.as_ptr(),
    };
    if its_loop != event_loop.as_ptr() {
        let (task_text, yielded_text) = shown()?;
        let text = format!("Task {task_text} got Future {yielded_text} attached to a different loop");
        return fail_soon(event_loop, task, text);
    }
    if !blocking {
        let (task_text, yielded_text) = shown()?;
        let text = format!("yield was used instead of yield from in task {task_text} with {yielded_text}");
        return fail_soon(event_loop, task, text);
    }
    match native {
        Some(future) => in_turn(event_loop, task, future)?,
        None => {
            yielded.bind(py).setattr(names()._asyncio_future_blocking.bind(py), false)?;
            let (wakeup, context) = wakeup::with_context(py, task.clone_ref(py))?;
            let options = PyDict::new(py);
            options.set_item(names().context.bind(py), context)?;
            let name = names().add_done_callback.bind(py);
            yielded.bind(py).call_method(name, (wakeup,), Some(&options))?;
            // asyncio keeps a set of what awaits its futures; native ones have their callbacks.
            #[cfg(Py_3_14)]
            imports::add_to_awaited_by(py)?.call1((yielded.bind(py), task.bind(py)))?;
        }
    }
    // SAFETY: a native task.
    let state = unsafe { task_of(object) };
    let waiter = yielded.clone_ref(py);
    let (must_cancel, message) = lp
        .with_tasks(|_, change| {
            state.waiter.put(waiter, change);
            let message = state.future.rare(change).and_then(|rare| rare.cancel_message.as_ref());
            (state.future.life.must_cancel(), message.map(|message| message.clone_ref(py)))
        })
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    if must_cancel && cancel::cancel_any(py, &yielded, message.as_ref())? {
        let _ = lp.with_tasks(|_, change| state.future.life.take_cancel(change));
    }
    Ok(())
}

/// Has a native future wake the task, at once if it is done.
fn in_turn(event_loop: &Bound<'_, EventLoop>, task: &Owned, future: &Future) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let mut callback = Some(Callback { callback: task.clone_ref(py), context: None });
    lp.with_tasks(|_, change| {
        future.life.wait(change);
        future.add_waiting(&mut callback, change);
    })
    .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    match callback {
        Some(done) => wakeup::push(py, event_loop.as_ptr(), done.callback),
        None => Ok(()),
    }
}

/// Has the next step throw RuntimeError into the coroutine.
fn fail_soon(event_loop: &Bound<'_, EventLoop>, task: &Owned, text: String) -> PyResult<()> {
    throw_soon(event_loop, task, PyRuntimeError::new_err(text))
}

/// What was yielded could not be waited for, by an error of its own: the coroutine gets that, else nothing would ever step it
/// again.
#[cold]
pub(super) fn give_back(event_loop: &Bound<'_, EventLoop>, task: &Owned, error: PyErr) -> PyResult<()> {
    let error = Fatal::split(event_loop.py(), error)?;
    throw_soon(event_loop, task, error)
}

/// Has the next step throw an exception into the coroutine.
fn throw_soon(event_loop: &Bound<'_, EventLoop>, task: &Owned, error: PyErr) -> PyResult<()> {
    let py = event_loop.py();
    let error = Owned::from(error.into_value(py).into_bound(py).into_any());
    let lp = event_loop.get();
    // SAFETY: a native task.
    let state = unsafe { task_of(task.as_ptr()) };
    let former = lp
        .with_tasks(|_, change| state.future.rare_mut(change).throw.replace(error))
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    drop(former);
    wakeup::push(py, event_loop.as_ptr(), task.clone_ref(py))
}
