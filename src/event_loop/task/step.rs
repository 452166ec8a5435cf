//! One step of a task: resume the coroutine, and wait for what it yields.

use std::ffi::c_void;
use std::sync::OnceLock;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::future::{self, exception_outcome};
use super::{
    BLOCKING, Callback, Future, Kind, LINKED, MUST_CANCEL, State, TaskKind, cancel, exact_future, peek, take,
    task_of,
};
use crate::event_loop::core::Ready;
use crate::event_loop::report::Report;
use crate::event_loop::{EventLoop, queue};
use crate::py::context::{self, Entered};
use crate::py::fatal::{Fatal, OrFatal};
use crate::py::names::names;
use crate::py::{Owned, call, imports, panic, raw};

/// What a coroutine did with its turn.
enum Turn {
    Yielded(Owned),
    Returned(Owned),
    Raised(Owned),
}

/// Runs one step, in the task's context. What is not the task's is reported.
#[inline]
pub(in crate::event_loop) fn run(event_loop: &Bound<'_, EventLoop>, task: Owned) -> OrFatal {
    let py = event_loop.py();
    // SAFETY: only native tasks stand on the queue as themselves. Their context is set before and stays.
    let context = unsafe { task_of(task.as_ptr()) }.run_context.get();
    // SAFETY: attached, and alive with the task.
    let entered = unsafe { Entered::enter(context) };
    let result = match &entered {
        Some(_) => step(event_loop, task),
        None => Err((PyErr::fetch(py), task)),
    };
    if let Some(entered) = entered {
        // No error is set on the thread: one is in `result`.
        entered.leave();
    }
    match result {
        Ok(_kept) => Ok(()),
        Err((error, kept)) => report(event_loop, &kept, error),
    }
}

/// What keeps a task alive until the context is left.
enum Kept {
    /// The queue or a future has the reference now, and the loop's thread has not gone on yet.
    Elsewhere,
    Here(#[allow(dead_code)] Owned),
}

/// Tells the exception handler what a step itself raised, which is not the coroutine's.
#[cold]
fn report(event_loop: &Bound<'_, EventLoop>, task: &Owned, error: PyErr) -> OrFatal {
    Report::new("Exception in callback Task.task_step()")
        .error(error)
        .with("task", task.bind(event_loop.py()).to_owned())
        .send(event_loop)
}

/// Runs one step. The context is entered.
#[inline]
fn step(event_loop: &Bound<'_, EventLoop>, task: Owned) -> Result<Kept, (PyErr, Owned)> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let object = task.as_ptr();
    // SAFETY: a native task.
    let state = unsafe { task_of(object) };
    let begun = lp.with_tasks(|_| {
        let current = lp.tasks.current();
        if !current.is_null() || state.future.state() != State::Pending {
            return Err(current);
        }
        lp.tasks.set_current(object);
        let throw = state.future.rare().and_then(|rare| rare.throw.take());
        // SAFETY: under the lock.
        Ok((unsafe { take(&state.waiter) }, throw))
    });
    let (waiter, throw) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(current)) => return Err((cannot_enter(py, &task, current), task)),
        Err(foreign) => return Err((lp.wrong_thread(py, foreign), task)),
    };
    let current = Current(lp);
    panic::point("step");
    #[cfg(Py_3_14)]
    if let Some(waiter) = &waiter
        // SAFETY: alive.
        && unsafe { exact_future(waiter.as_ptr()) }.is_none()
        && let Err(error) = imports::discard_from_awaited_by(py)
            .and_then(|discard| discard.call1((waiter.bind(py), task.bind(py))))
    {
        drop(current);
        return Err((error, task));
    }
    match resume(py, state, waiter, throw) {
        Ok(Turn::Yielded(yielded)) => match wait_for_native(lp, task, yielded) {
            Ok(()) => {
                current.was_left();
                Ok(Kept::Elsewhere)
            }
            Err((task, yielded)) => {
                let waited = match wait_for(event_loop, &task, yielded) {
                    Err(error) if state.waiter.get().is_null() => give_back(event_loop, &task, error),
                    waited => waited,
                };
                drop(current);
                waited.map_err(|error| (error, task.clone_ref(py))).map(|()| Kept::Here(task))
            }
        },
        Ok(turn) => {
            let ended = conclude(py, &task, turn);
            drop(current);
            ended.map_err(|error| (error, task.clone_ref(py))).map(|()| Kept::Here(task))
        }
        Err(error) => {
            drop(current);
            Err((error, task))
        }
    }
}

/// The loop's current task, until this is dropped.
struct Current<'a>(&'a EventLoop);

impl Current<'_> {
    /// It gave way together with another change.
    #[inline]
    fn was_left(self) {
        std::mem::forget(self);
    }
}

impl Drop for Current<'_> {
    #[inline]
    fn drop(&mut self) {
        // The claim is this thread's as long as the loop runs.
        let _ = self.0.with_tasks(|_| self.0.tasks.set_current(std::ptr::null_mut()));
    }
}

/// Resumes the coroutine with what came of the future that the task waited for.
#[inline]
fn resume(py: Python<'_>, task: &super::Task, waiter: Option<Owned>, throw: Option<Owned>) -> PyResult<Turn> {
    let mut error = match throw {
        Some(error) => Some(error),
        None => waiter.as_ref().map_or(Ok(None), |waiter| failure_of(py, waiter))?,
    };
    if task.future.has(MUST_CANCEL) {
        let cancelled = match &error {
            Some(error) => error.bind(py).is_instance(imports::cancelled_error(py)?)?,
            None => false,
        };
        if !cancelled {
            error = Some(future::cancelled_error(py, &task.future)?);
        }
        let _ = task.future.alive()?.with_tasks(|_| task.future.set(MUST_CANCEL, false));
    }
    drop(waiter);
    let coro = task.coro.get();
    if coro.is_null() {
        return Err(PyRuntimeError::new_err("uninitialized Task object"));
    }
    match error {
        None => {
            let mut result = std::ptr::null_mut();
            // SAFETY: attached; the task holds its coroutine.
            let status = unsafe { ffi::PyIter_Send(coro, ffi::Py_None(), &mut result) };
            // SAFETY: a new reference for the first two, an exception for the last.
            Ok(unsafe {
                match status {
                    ffi::PySendResult::PYGEN_NEXT => Turn::Yielded(Owned::steal(result)),
                    ffi::PySendResult::PYGEN_RETURN => Turn::Returned(Owned::steal(result)),
                    ffi::PySendResult::PYGEN_ERROR => raised(py),
                }
            })
        }
        Some(error) => {
            // SAFETY: attached; all alive. A null result comes with an exception.
            unsafe {
                let result = call::method1_raw(coro, names().throw, error.as_ptr());
                if !result.is_null() {
                    return Ok(Turn::Yielded(Owned::steal(result)));
                }
                Ok(raised(py))
            }
        }
    }
}

/// The exception that is set on the thread: that of a coroutine that returned is its value.
unsafe fn raised(py: Python<'_>) -> Turn {
    // SAFETY: an exception is set, or (a generator in C that just ends) none.
    unsafe {
        let error = ffi::PyErr_GetRaisedException();
        if error.is_null() {
            return Turn::Returned(Owned::steal(raw::none(py)));
        }
        let error = Owned::steal(error);
        if error.bind(py).is_instance_of::<PyStopIteration>() {
            return match error.bind(py).getattr(names().value.bind(py)) {
                Ok(value) => Turn::Returned(value.into()),
                Err(error) => Turn::Raised(error.into_value(py).into_bound(py).into_any().into()),
            };
        }
        Turn::Raised(error)
    }
}

/// What a done future makes its waiting task raise, if anything.
#[inline]
fn failure_of(py: Python<'_>, waiter: &Owned) -> PyResult<Option<Owned>> {
    // SAFETY: alive.
    if let Some(future) = unsafe { exact_future(waiter.as_ptr()) } {
        return match future::failure(py, future) {
            Ok(failure) => Ok(failure),
            Err(error) => Ok(Some(error.into_value(py).into_bound(py).into_any().into())),
        };
    }
    match call::method0(py, waiter, names().result) {
        Ok(_) => Ok(None),
        Err(error) => Ok(Some(error.into_value(py).into_bound(py).into_any().into())),
    }
}

/// The common cases of a yield: None, and a pending native future of this loop. The task's reference moves to where it waits;
/// it is given back where there is more to do.
#[inline]
fn wait_for_native(lp: &EventLoop, task: Owned, yielded: Owned) -> Result<(), (Owned, Owned)> {
    // SAFETY: a native task.
    let state = unsafe { task_of(task.as_ptr()) };
    if lp.shared.steps_by_handle() {
        return Err((task, yielded));
    }
    // SAFETY: only compared.
    if yielded.as_ptr() == unsafe { ffi::Py_None() } {
        let mut task = Some(task);
        let _ = lp.with_tasks(|core| {
            lp.tasks.set_current(std::ptr::null_mut());
            core.push(Ready::Task(task.take().expect("moved once"))).map_err(|back| task = back.into_task())
        });
        return task.map_or(Ok(()), |task| Err((task, yielded)));
    }
    // SAFETY: alive.
    let Some(future) = (unsafe { exact_future(yielded.as_ptr()) }) else { return Err((task, yielded)) };
    let simple = future.event_loop.get() == state.future.event_loop.get()
        && future.has(BLOCKING)
        && future.state() == State::Pending
        && !state.future.has(MUST_CANCEL)
        && yielded.as_ptr() != task.as_ptr();
    if !simple {
        return Err((task, yielded));
    }
    let _ = lp.with_tasks(|_| {
        future.set(BLOCKING, false);
        state.waiter.set(yielded.into_ptr());
        future.add_waiting(&mut Some(Callback { callback: task, context: None }));
        lp.tasks.set_current(std::ptr::null_mut());
    });
    Ok(())
}

/// Waits for anything that a coroutine may yield, or has the next step complain about it.
#[cold]
fn wait_for(event_loop: &Bound<'_, EventLoop>, task: &Owned, yielded: Owned) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let object = task.as_ptr();
    let shown = || -> PyResult<(String, String)> {
        Ok((task.bind(py).repr()?.to_string(), yielded.bind(py).repr()?.to_string()))
    };
    if yielded.bind(py).is_none() {
        return push(py, event_loop.as_ptr(), task.clone_ref(py));
    }
    if yielded.as_ptr() == object {
        return fail_soon(event_loop, task, format!("Task cannot await on itself: {}", shown()?.0));
    }
    // SAFETY: alive.
    let native = unsafe { exact_future(yielded.as_ptr()) };
    let blocking = match native {
        Some(future) => Some(future.has(BLOCKING)),
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
        Some(future) => future.event_loop.get(),
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
        Some(future) => wait_in_turn(event_loop, task, future)?,
        None => {
            yielded.bind(py).setattr(names()._asyncio_future_blocking.bind(py), false)?;
            let (wakeup, context) = wakeup_with_context(py, task.clone_ref(py))?;
            let options = PyDict::new(py);
            options.set_item(names().context.bind(py), context)?;
            let name = names().add_done_callback.bind(py);
            yielded.bind(py).call_method(name, (wakeup,), Some(&options))?;
            // asyncio keeps account of who waits for its futures; native ones know it from their callbacks.
            #[cfg(Py_3_14)]
            imports::add_to_awaited_by(py)?.call1((yielded.bind(py), task.bind(py)))?;
        }
    }
    // SAFETY: a native task.
    let state = unsafe { task_of(object) };
    let waiter = yielded.clone_ref(py);
    let (must_cancel, message) = lp
        .with_tasks(|_| {
            state.waiter.set(waiter.into_ptr());
            let message = state.future.rare().and_then(|rare| rare.cancel_message.as_ref());
            (state.future.has(MUST_CANCEL), message.map(|message| message.clone_ref(py)))
        })
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    if must_cancel && cancel::cancel_any(py, &yielded, message.as_ref())? {
        let _ = lp.with_tasks(|_| state.future.set(MUST_CANCEL, false));
    }
    Ok(())
}

/// Has a native future wake the task, at once if it is done.
fn wait_in_turn(event_loop: &Bound<'_, EventLoop>, task: &Owned, future: &Future) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let mut callback = Some(Callback { callback: task.clone_ref(py), context: None });
    lp.with_tasks(|_| {
        future.set(BLOCKING, false);
        future.add_waiting(&mut callback);
    })
    .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    match callback {
        Some(done) => push(py, event_loop.as_ptr(), done.callback),
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
fn give_back(event_loop: &Bound<'_, EventLoop>, task: &Owned, error: PyErr) -> PyResult<()> {
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
        .with_tasks(|_| state.future.rare_mut().throw.replace(error))
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    drop(former);
    push(py, event_loop.as_ptr(), task.clone_ref(py))
}

/// Ends the task as its coroutine ended. KeyboardInterrupt and SystemExit are the task's and leave the loop as well.
#[inline]
fn conclude(py: Python<'_>, task: &Owned, turn: Turn) -> PyResult<()> {
    let object = task.as_ptr();
    // SAFETY: a native task.
    let state = unsafe { task_of(object) };
    let ended = match turn {
        Turn::Returned(value) if !state.future.has(MUST_CANCEL) => {
            // SAFETY: alive, a task.
            unsafe { future::set_result::<TaskKind>(py, object, value)? }
        }
        Turn::Returned(_) => {
            // Cancelled right before the coroutine ended.
            let event_loop = state.future.alive()?;
            let message = event_loop.with_tasks(|_| {
                state.future.set(MUST_CANCEL, false);
                let message = state.future.rare().and_then(|rare| rare.cancel_message.as_ref());
                message.map(|message| message.clone_ref(py))
            });
            let message = message.map_err(|foreign| event_loop.wrong_thread(py, foreign))?;
            // SAFETY: as above.
            unsafe { cancel::cancel_future::<TaskKind>(py, object, message, None)?.map(drop) }
        }
        Turn::Raised(error) if error.bind(py).is_instance(imports::cancelled_error(py)?)? => {
            // SAFETY: as above.
            unsafe { cancel::cancel_future::<TaskKind>(py, object, None, Some(error))?.map(drop) }
        }
        Turn::Raised(error) => {
            let outcome = exception_outcome(py, &error.bind(py))?;
            // SAFETY: as above.
            let ended = unsafe { future::end::<TaskKind>(py, object, outcome)? };
            let error = PyErr::from_value(error.into_bound(py));
            let _ordinary = Fatal::split(py, error)?;
            ended
        }
        Turn::Yielded(_) => unreachable!("dealt with by the caller"),
    };
    ended.map_err(|foreign| match state.future.alive() {
        Ok(event_loop) => event_loop.wrong_thread(py, foreign),
        Err(error) => error,
    })
}

#[cold]
fn cannot_enter(py: Python<'_>, task: &Owned, current: *mut ffi::PyObject) -> PyErr {
    let text = |object: &Bound<'_, PyAny>| Ok(object.repr()?.to_string());
    let mine: String = match text(&task.bind(py)) {
        Ok(mine) => mine,
        // As C code that formats a message, which raises what its part raised.
        Err(error) => return error,
    };
    if current.is_null() {
        return future::invalid_state(py, &format!("_step(): already done: {mine} None"));
    }
    // SAFETY: the running task is alive.
    let other = match text(&unsafe { Bound::from_borrowed_ptr(py, current) }) {
        Ok(other) => other,
        Err(error) => return error,
    };
    PyRuntimeError::new_err(format!(
        "Cannot enter into task {mine} while another task {other} is being executed."
    ))
}

/// Puts a task's step onto the queue. As a Handle in debug mode, so that all that it tells
/// of handles holds, and where `call_soon` is overridden.
///
/// # Safety
/// `event_loop` is the task's loop, alive.
pub(super) fn push(py: Python<'_>, event_loop: *mut ffi::PyObject, task: Owned) -> PyResult<()> {
    // SAFETY: an EventLoop, alive.
    let borrowed = unsafe { Bound::from_borrowed_ptr(py, event_loop).cast_into_unchecked::<EventLoop>() };
    let lp = borrowed.get();
    if lp.shared.steps_by_handle() {
        let (wakeup, context) = wakeup_with_context(py, task)?;
        // SAFETY: all alive.
        return unsafe { queue::soon_seen(py, event_loop, wakeup.as_ptr(), &[], context.into()) }.map(drop);
    }
    let pushed = lp
        .with_claim(move |core| core.push(Ready::Task(task)))
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    pushed.map_err(|_| lp.refusal())
}

/// Runs a new task's first step now, inside whatever runs. The loop runs in this thread.
pub(super) fn start_eagerly(event_loop: &Bound<'_, EventLoop>, task: &Owned) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    raw::check_stack()?;
    // SAFETY: a native task.
    let state = unsafe { task_of(task.as_ptr()) };
    // A running task of asyncio's own type gives way for the time, so that asking for the current one finds ours. It may run
    // inside of one of ours.
    let theirs = match super::asyncio::may_run(py) {
        true => Some(super::asyncio::swap_current(event_loop, None)?),
        false => None,
    };
    let mut aside = Aside { event_loop, before: std::ptr::null_mut(), theirs };
    aside.before = lp
        .with_tasks(|_| {
            // SAFETY: new, and not in the list yet.
            unsafe { lp.tasks.link(task.as_ptr()) };
            lp.tasks.set_current(std::ptr::null_mut())
        })
        .map_err(|foreign| lp.wrong_thread(py, foreign))?;
    // SAFETY: set before, and stays.
    let context = unsafe { Owned::borrow(state.run_context.get()) };
    let result = context::run(py, &context, || match step(event_loop, task.clone_ref(py)) {
        Ok(_) => Ok(()),
        Err((error, _)) => Err(error),
    });
    let back = aside.put_back();
    if state.future.state() != State::Pending {
        // SAFETY: under the lock. Nobody steps a task that is done.
        let coro = lp.with_tasks(|_| unsafe { take(&state.coro) });
        drop(coro);
    }
    debug_assert!(state.future.state() == State::Pending || !state.future.has(LINKED));
    result.and(back)
}

/// The tasks that gave way for an eager step: ours, and one of asyncio's own type. Dropped, it puts them back.
struct Aside<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
    before: *mut ffi::PyObject,
    theirs: Option<Owned>,
}

impl Aside<'_, '_> {
    fn put_back(&mut self) -> PyResult<()> {
        let (lp, before) = (self.event_loop.get(), std::mem::replace(&mut self.before, std::ptr::null_mut()));
        if !before.is_null() {
            // The claim is this thread's as long as the loop runs.
            let _ = lp.with_tasks(|_| lp.tasks.set_current(before));
        }
        match self.theirs.take() {
            Some(theirs) if !theirs.bind(self.event_loop.py()).is_none() => {
                super::asyncio::swap_current(self.event_loop, Some(&theirs)).map(drop)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Aside<'_, '_> {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            error.write_unraisable(self.event_loop.py(), Some(self.event_loop));
        }
    }
}

// ---- the wake-up as a Python callable -----------------------------------------------------------------

/// `task_wakeup`, bound to a task: what futures of other kinds call, and what handles in debug mode run.
static WAKEUP: OnceLock<Definition> = OnceLock::new();

struct Definition(*mut ffi::PyMethodDef);
// SAFETY: never freed, immutable.
unsafe impl Send for Definition {}
// SAFETY: as above.
unsafe impl Sync for Definition {}

pub(super) fn init(_py: Python<'_>) -> PyResult<()> {
    let definition = ffi::PyMethodDef {
        ml_name: c"task_wakeup".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: wakeup },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: std::ptr::null(),
    };
    WAKEUP.get_or_init(|| Definition(Box::into_raw(Box::new(definition))));
    Ok(())
}

/// Runs a step now: called by a handle, in the task's context. The future that is done, if given, is the one waited for.
unsafe extern "C" fn wakeup(
    object: *mut ffi::PyObject,
    _args: *mut *mut ffi::PyObject,
    _nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, bound to a native task.
    unsafe {
        raw::enter(|py| {
            let task = Owned::borrow(object);
            let event_loop = TaskKind::future(object).loop_object(py)?;
            let lp = event_loop.get();
            lp.check_thread(py)?;
            if !lp.shared.is_mine() {
                // Without a run nothing would keep other threads out until the step is over.
                return Err(PyRuntimeError::new_err("the task's loop does not run"));
            }
            step(&event_loop, task).map_err(|(error, _)| error)?;
            Ok(raw::none(py))
        })
    }
}

/// The wake-up of a task as a callable, and the context to call it in.
pub(super) fn wakeup_with_context(
    py: Python<'_>,
    task: Owned,
) -> PyResult<(Bound<'_, PyAny>, Bound<'_, PyAny>)> {
    let definition = WAKEUP.get().expect("made by the module's init").0;
    // SAFETY: the definition lives for ever; a task's context is set before anybody sees it.
    unsafe {
        let function = ffi::PyCFunction_NewEx(definition, task.as_ptr(), std::ptr::null_mut());
        let function = Owned::steal_or_err(py, function)?;
        let context = peek(&task_of(task.as_ptr()).run_context);
        let context = context.ok_or_else(|| PyRuntimeError::new_err("uninitialized Task object"))?;
        Ok((function.into_bound(py), context.into_bound(py)))
    }
}

/// Whether a callable is the wake-up of a task.
pub(super) fn is_wakeup_of(callable: &Bound<'_, PyAny>, task: &Owned) -> bool {
    let definition = WAKEUP.get().expect("made by the module's init").0;
    // SAFETY: the layout is checked first; only read.
    unsafe {
        ffi::PyCFunction_CheckExact(callable.as_ptr()) != 0 && {
            let function = callable.as_ptr().cast::<ffi::PyCFunctionObject>();
            (*function).m_ml.cast::<c_void>() == definition.cast() && (*function).m_self == task.as_ptr()
        }
    }
}
