//! The Python face of a job: with `tokioloop`'s `JobFuture`, a class over it and `concurrent.futures.Future`, all that
//! users of futures know. Blocking calls are in Python (`tokioloop/_pool/job.py`).

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use super::end;
use super::job::{Condition, Job, State, Watcher, Work};
use crate::event_loop::task::outside::End;
use crate::py::class::{Class, InPlace, Object, Visit};
use crate::py::method::{IntoResult, arguments, getter, method};
use crate::py::{Owned, imports, raw};

#[repr(C)]
struct JobObject {
    header: ffi::PyObject,
    /// Filled in by [`create`] before other code sees the object.
    job: MaybeUninit<Job>,
}

/// `Job`, over which the package makes `tokioloop._pool.job.JobFuture`.
static CLASS: Class<JobObject> = Class::new();

// SAFETY: the struct begins with the header.
unsafe impl Object for JobObject {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn visit(&self, see: &mut Visit) {
        // SAFETY: filled in.
        let _ = unsafe { self.job.assume_init_ref() }.visit(see.see());
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: filled in; attached.
        unsafe { Self::of(object).job.assume_init_ref().take_all(Python::assume_attached()) }
    }

    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: filled in, and dropped once, when the object goes.
        unsafe { InPlace::new((&raw mut (*object.cast::<Self>()).job).cast::<Job>()) }
    }
}

/// Names the class of all jobs from now on: the one over this module's `Job`. Called once, by the package.
#[pyfunction]
pub fn _set_job_class(class: &Bound<'_, pyo3::types::PyType>) {
    CLASS.set_derived(class);
}

/// Makes a job.
pub fn create(py: Python<'_>, work: Work) -> PyResult<Owned> {
    let mut class = CLASS.derived();
    if class.is_null() {
        // The first job: its module names the class.
        imports::job_future(py)?;
        class = CLASS.derived();
    }
    if class.is_null() {
        return Err(PyTypeError::new_err("the package names the class of jobs"));
    }
    // SAFETY: a class over our own type; the object is complete before any other Python code runs.
    unsafe {
        let object = Owned::steal_or_err(py, ffi::PyType_GenericAlloc(class, 0))?;
        (*object.as_ptr().cast::<JobObject>()).job.write(Job::new(work));
        Ok(object)
    }
}

/// The state of a job object. Any thread.
#[inline]
pub fn state_of<'a>(job: &Bound<'_, PyAny>) -> &'a Job {
    // SAFETY: jobs are made by `create` only, which fills it in; it lives as long as the object.
    unsafe { (*job.as_ptr().cast::<JobObject>()).job.assume_init_ref() }
}

/// The same, of an object that may be anything. TypeError if it is not a job.
pub fn checked_state_of<'a>(object: &Bound<'_, PyAny>) -> PyResult<&'a Job> {
    if object.get_type().as_type_ptr() != CLASS.derived() {
        return Err(PyTypeError::new_err("a job is required"));
    }
    Ok(state_of(object))
}

/// A job as its methods see it.
struct This<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
    job: &'a Job,
}

impl<'a, 'py> This<'a, 'py> {
    fn new(object: &'a Bound<'py, PyAny>) -> Self {
        Self { object, job: state_of(object) }
    }

    /// The end, waited for if need be.
    fn wait(&self, timeout: Option<Bound<'py, PyAny>>) -> PyResult<End> {
        let py = self.object.py();
        if let Some(end) = self.job.end_of(py) {
            return Ok(end);
        }
        imports::wait_for_job(py)?.call1((self.object, timeout))?;
        Ok(self.job.end_of(py).expect("the wait is over when it has ended"))
    }

    fn condition(&self) -> PyResult<Condition> {
        let py = self.object.py();
        self.job.condition(py, || {
            let condition = imports::condition(py)?.call0()?.into();
            Ok(Condition { condition, waiters: PyList::empty(py).into_any().into() })
        })
    }

    fn add_done_callback(&self, callback: Bound<'py, PyAny>) -> PyResult<()> {
        match self.job.watch(callback.py(), Watcher::Callback(callback.into())) {
            Ok(()) => Ok(()),
            Err(watcher) => end::tell(self.object, watcher),
        }
    }

    fn state_name(&self) -> &'static str {
        match self.job.state() {
            State::Pending => "PENDING",
            State::Running => "RUNNING",
            State::Cancelled => "CANCELLED_AND_NOTIFIED",
            State::Finished => "FINISHED",
        }
    }

    fn repr(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.object.py();
        let end = match self.job.end_of(py) {
            Some(End::Result(value)) => format!("finished returned {}", value.bind(py).get_type().name()?),
            Some(End::Error(error)) => format!("finished raised {}", error.bind(py).get_type().name()?),
            Some(End::Cancelled) => "cancelled".into(),
            None => self.state_name().to_lowercase(),
        };
        let kind = self.object.get_type().name()?;
        let text = format!("<{kind} at {:#x} state={end}>", self.object.as_ptr() as usize);
        Ok(PyString::new(py, &text).into_any())
    }
}

fn cancelled(py: Python<'_>) -> PyErr {
    match imports::concurrent_cancelled_error(py).and_then(|class| class.call0()) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

method!(cancel(this: This) end::cancel(this.object));
method!(ask_to_cancel(this: This) end::ask_to_cancel(this.object));
method!(is_cancelled(this: This) Ok::<_, PyErr>(this.job.state() == State::Cancelled));
method!(is_running(this: This) Ok::<_, PyErr>(this.job.state() == State::Running));
method!(is_done(this: This) Ok::<_, PyErr>(this.job.state().is_done()));
method!(add_done_callback(this: This, callback) this.add_done_callback(callback));

/// `result(timeout=None)` and `exception(timeout=None)`.
unsafe fn outcome(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
    name: &str,
    answer: impl FnOnce(Python<'_>, End) -> PyResult<Owned>,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords, with a job.
    unsafe {
        raw::enter(|py| {
            let [timeout] = arguments(py, name, ["timeout"], args, nargs, keywords)?;
            let object = Bound::from_borrowed_ptr(py, object);
            let end = This::new(&object).wait(timeout)?;
            Ok(answer(py, end)?.into_ptr())
        })
    }
}

unsafe extern "C" fn result(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        outcome(object, args, nargs, keywords, "result", |py, end| match end {
            End::Result(value) => Ok(value),
            End::Error(error) => Err(PyErr::from_value(error.into_bound(py))),
            End::Cancelled => Err(cancelled(py)),
        })
    }
}

unsafe extern "C" fn exception(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        outcome(object, args, nargs, keywords, "exception", |py, end| match end {
            End::Result(_) => Ok(Owned::steal(raw::none(py))),
            End::Error(error) => Ok(error),
            End::Cancelled => Err(cancelled(py)),
        })
    }
}

getter!(get_state(py, object, object = Bound::from_borrowed_ptr(py, object)) Ok(PyString::intern(py, This::new(&object).state_name()).into_ptr()));
getter!(get_condition(py, object, object = Bound::from_borrowed_ptr(py, object)) Ok(This::new(&object).condition()?.condition.into_ptr()));
getter!(get_waiters(py, object, object = Bound::from_borrowed_ptr(py, object)) Ok(This::new(&object).condition()?.waiters.into_ptr()));

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a job.
    unsafe {
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            Ok(This::new(&object).repr()?.into_result(py))
        })
    }
}

unsafe extern "C" fn new(
    _: *mut ffi::PyTypeObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached.
    unsafe { raw::enter(|_| Err(PyTypeError::new_err("jobs are made by submit()"))) }
}

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let spec = raw::TypeSpec {
        name: c"tokioloop._tokioloop.Job",
        basicsize: size_of::<JobObject>() as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_BASETYPE,
        slots: vec![
            (ffi::Py_tp_new, new as *mut c_void),
            (ffi::Py_tp_repr, repr as *mut c_void),
            (ffi::Py_tp_doc, c"The native half of a job.".as_ptr() as *mut c_void),
        ],
        methods: vec![
            raw::no_args(c"cancel", cancel, c"Cancel the job unless a function runs or it has ended; whether it is cancelled. Any thread."),
            raw::no_args(c"_ask_to_cancel", ask_to_cancel, c"Ask a running coroutine to cancel itself; whether there is one. Any thread."),
            raw::no_args(c"cancelled", is_cancelled, c"Whether it was cancelled. Any thread."),
            raw::no_args(c"running", is_running, c"Whether it runs. Any thread."),
            raw::no_args(c"done", is_done, c"Whether it has ended. Any thread."),
            raw::fast_keywords(c"result", result, c"result($self, timeout=None)\n--\n\nThe result, waited for up to `timeout` seconds. Raises what the job raised, CancelledError, or TimeoutError. Any thread; blocks it."),
            raw::fast_keywords(c"exception", exception, c"exception($self, timeout=None)\n--\n\nWhat the job raised, or None. Any thread; blocks it."),
            raw::one_arg(c"add_done_callback", add_done_callback, c"add_done_callback($self, fn)\n--\n\nCall `fn(job)` when it has ended, in the thread where it does; at once if it has. Any thread."),
        ],
        getset: vec![
            raw::getter(c"_state", get_state, c"As concurrent.futures names it."),
            raw::getter(c"_condition", get_condition, c"Made when first asked for."),
            raw::getter(c"_waiters", get_waiters, c"Those of concurrent.futures."),
        ],
        members: Vec::new(),
    };
    CLASS.init_and_add(module, spec, None)
}
