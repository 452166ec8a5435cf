//! From a job that was taken to its end, or to a task that goes on, on the thread of the loop that took it.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::end::{self, Pledge};
use super::job::Work;
use super::job_type;
use super::worker;
use crate::event_loop::core::KeptKey;
use crate::event_loop::door::OnLoop;
use crate::event_loop::life::binding;
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::task::outside::{self, End};
use crate::event_loop::turn;
use crate::py::fatal::{Fatal, OrFatal};
use crate::py::{Attached, Owned, context, imports};
use crate::sys::clock::monotonic_ns;

/// The message of an error around a job that is not the job's end.
#[cold]
pub fn failed<'py>() -> Report<'py> {
    Report::new("Exception at the beginning or the end of a job")
}

/// Does a job, or begins it. An error of the work ends the job, and so does an error around it before that. On the loop's
/// thread, inside a run and outside of any task.
pub fn start(on: OnLoop<'_, '_>, pledge: Pledge) -> OrFatal {
    let py = on.py();
    let job = pledge.job(py);
    let inbox = &on.get().shared.inbox;
    // Dropped in this order, so that the object shown as being called is alive.
    let Some((work, _calling)) = job_type::state_of(&job).take_work(py, inbox) else { return Ok(()) };
    let since = on.get().shared.is_debug().then(monotonic_ns);
    // Given to the job's task, if there is one; otherwise dropped after the job's end.
    let mut pledge = Some(pledge);
    if let Err(error) = perform(on, &mut pledge, &job, &work) {
        fail(on, &job, error)?;
    }
    drop(pledge);
    let Some(since) = since else { return Ok(()) };
    turn::log_if_slow(on, since, || match &work {
        Work::Coroutine { coro, .. } => Ok(coro.clone_ref(py)),
        Work::Call(call) => {
            Ok(turn::handle_of(on.event_loop(), call, call.context(py)?)?.as_object().clone_ref(py))
        }
    })
}

/// An error around a job: its end, unless it has one.
#[cold]
fn fail(on: OnLoop<'_, '_>, job: &Bound<'_, PyAny>, error: PyErr) -> OrFatal {
    let py = on.py();
    let error = Fatal::split(py, error)?;
    let value = Owned::for_another_thread(error.value(py));
    match end::end(job, End::Error(value)).or_report(on.event_loop(), failed)? {
        // It had ended, so the error is reported here.
        Some(false) => on.report(failed().error(error)),
        _ => Ok(()),
    }
}

fn perform(
    on: OnLoop<'_, '_>,
    pledge: &mut Option<Pledge>,
    job: &Bound<'_, PyAny>,
    work: &Work,
) -> PyResult<()> {
    let py = on.py();
    match work {
        Work::Coroutine { coro, context } => run(on, pledge, job, &coro.bind(py), context.clone_ref(py)),
        Work::Call(call) => {
            let context = call.context(py)?;
            // SAFETY: attached, and alive.
            let result = unsafe { Owned::steal_or_err(py, call.run(context.as_ptr())) };
            match result {
                Ok(result) if is_coroutine(py, &result, &context)? => {
                    run(on, pledge, job, &result.into_bound(py), context)
                }
                Ok(result) => end::end(job, shared(py, End::Result(result))).map(drop),
                Err(error) => end::end(job, end_of_error(py, error)?).map(drop),
            }
        }
    }
}

fn end_of_error(py: Python<'_>, error: PyErr) -> PyResult<End> {
    if outside::is_cancellation(py, &error)? {
        return Ok(End::Cancelled);
    }
    Ok(End::Error(Owned::for_another_thread(error.value(py))))
}

#[inline]
fn is_coroutine(py: Python<'_>, result: &Owned, context: &Owned) -> PyResult<bool> {
    // SAFETY: alive; only its type is looked at.
    unsafe {
        if ffi::PyCoro_CheckExact(result.as_ptr()) != 0 {
            return Ok(true);
        }
        // Most results are of types that can't be awaited, which shows without a call of Python.
        let slots = (*ffi::Py_TYPE(result.as_ptr())).tp_as_async;
        if slots.as_ref().is_none_or(|slots| slots.am_await.is_none()) {
            return Ok(false);
        }
    }
    // The object itself may decide that.
    context::run(py, context, || imports::iscoroutine(py)?.call1((result.bind(py),))?.is_truthy())
}

/// Makes the coroutine's first step; if it is not done then, it becomes a task.
fn run(
    on: OnLoop<'_, '_>,
    pledge: &mut Option<Pledge>,
    job: &Bound<'_, PyAny>,
    coro: &Bound<'_, PyAny>,
    context: Owned,
) -> PyResult<()> {
    let py = on.py();
    let state = job_type::state_of(job);
    if !state.note_begin(py, &on.get().shared.inbox) {
        // Cancelled while the coroutine was made.
        return coro.call_method0("close").map(drop);
    }
    let (again, inside) = (context.clone_ref(py), context.clone_ref(py));
    let task = match outside::begin(on.event_loop(), coro, context) {
        Ok(task) => task,
        Err(error) => return end::end(job, end_of_error(py, error)?).map(drop),
    };
    if let Some(end) = outside::end_of(py, &task)? {
        return end::end(job, shared(py, end)).map(drop);
    }
    let kept = keep(on, job);
    let Some(pledge) = pledge.take() else { return Ok(()) };
    let ending = Bound::new(py, Ending(Attached::new(Some(Begun { pledge, kept }))))?;
    if let Err(error) = outside::when_ended(py, &task, ending.as_any(), again) {
        // The error's traceback may keep `ending`. Its content is dropped, but after the job's end, since the drop would end the job with an error.
        let begun = ending.get().0.lock(py).take();
        let failed = fail(on, job, error);
        drop(begun);
        return Ok(failed?);
    }
    if state.note_task(py, task.clone_ref(py)) {
        outside::cancel(on.event_loop(), &task, &inside)?;
    }
    Ok(())
}

/// The outcome of a job is released by another thread than this, most often.
fn shared(py: Python<'_>, end: End) -> End {
    let share = |object: Owned| Owned::for_another_thread(&object.bind(py));
    match end {
        End::Result(value) => End::Result(share(value)),
        End::Error(error) => End::Error(share(error)),
        End::Cancelled => End::Cancelled,
    }
}

/// Records that the job runs here: with the worker, or otherwise with the loop, whose end then ends the job.
fn keep(on: OnLoop<'_, '_>, job: &Bound<'_, PyAny>) -> Kept {
    if let Some(noted) = worker::note_running(job) {
        return Kept::ByWorker(noted);
    }
    let pledge = Box::new(Pledge::new(job.into()));
    Kept::ByLoop(on.core(|core| core.kept.insert(pledge)))
}

enum Kept {
    /// Until dropped.
    ByWorker(#[allow(dead_code)] worker::Noted),
    ByLoop(KeptKey),
}

struct Begun {
    pledge: Pledge,
    kept: Kept,
}

/// The callback at the end of a job's task; dropped with a task that never ends, it ends the job all the same. The content is taken
/// once, and the lock is never held across a call.
#[pyclass(frozen, module = "tokioloop._tokioloop")]
pub struct Ending(Attached<Option<Begun>>);

#[pymethods]
impl Ending {
    fn __call__(&self, task: Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        let begun = self.0.lock(py).take();
        let Some(Begun { pledge, kept }) = begun else { return Ok(()) };
        // Dropped when the job has ended.
        let _kept = match (kept, binding::running(py)) {
            (Kept::ByLoop(key), Some(event_loop)) => {
                event_loop.get().with(py, |core| core.kept.remove(key))?
            }
            (Kept::ByLoop(_), None) => None,
            (Kept::ByWorker(noted), _) => {
                drop(noted);
                None
            }
        };
        let job = pledge.job(py);
        match outside::end_of(py, &task.into()) {
            Ok(Some(end)) => end::end(&job, shared(py, end)).map(drop),
            Ok(None) => Ok(()),
            // A task of another type may raise from these methods.
            Err(error) => {
                let ended = end::end(&job, End::Error(Owned::for_another_thread(error.value(py))));
                let _ordinary = Fatal::split(py, error)?;
                ended.map(drop)
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.seen_by_collector().as_deref() {
            Some(Some(begun)) => visit.call(begun.pledge.as_object().as_py()),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        // SAFETY: called by Python, attached.
        let begun = self.0.lock(unsafe { Python::assume_attached() }).take();
        drop(begun);
    }
}
