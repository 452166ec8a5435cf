//! `Pool`: the native half of `tokioloop.WorkerPool`, which makes the threads and their loops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyIndexError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{Borrowed, ffi};

use super::end::{self, Pledge};
use super::job::Work;
use super::queues::Queues;
use super::{job_type, worker};
use crate::event_loop::EventLoop;
use crate::event_loop::remote::RemoteCall;
use crate::event_loop::task::outside::End;
use crate::py::pyclass::{self, BaseClass, Functions};
use crate::py::{Owned, context, imports, raw};

/// The most workers of a pool: as many threads as Linux lets a process have by default, more or less.
const MOST_WORKERS: usize = 32_767;

#[pyclass(frozen, subclass, module = "tokioloop._tokioloop")]
#[derive(Default)]
pub struct Pool {
    /// Made by the `__init__` of the derived class.
    queues: OnceLock<Arc<Queues>>,
}

impl BaseClass for Pool {
    fn functions() -> &'static Functions {
        static FUNCTIONS: Functions = Functions::new();
        &FUNCTIONS
    }
}

impl Pool {
    #[inline]
    fn queues(&self) -> PyResult<&Arc<Queues>> {
        self.queues.get().ok_or_else(|| PyRuntimeError::new_err("WorkerPool.__init__() was not called"))
    }
}

#[pymethods]
impl Pool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    /// Makes the queues of that many workers, and an object for them. ValueError for a number below 1, RuntimeError the second time.
    fn _begin(&self, threads: i64) -> PyResult<Self> {
        let threads = match usize::try_from(threads) {
            Ok(threads @ 1..=MOST_WORKERS) => threads,
            Ok(1..) => {
                let text = format!("threads must be at most {MOST_WORKERS}, not {threads}");
                return Err(PyValueError::new_err(text));
            }
            _ => return Err(PyValueError::new_err("threads must be at least 1")),
        };
        let made = Arc::new(Queues::new(threads));
        match self.queues.set(made.clone()) {
            Ok(()) => Ok(Self { queues: made.into() }),
            Err(_) => Err(PyRuntimeError::new_err("the pool is initialised already")),
        }
    }

    /// Make the calling thread's loop a worker. Once for each index.
    fn _enter(&self, event_loop: &Bound<'_, EventLoop>, index: usize) -> PyResult<()> {
        if index >= self.queues()?.workers() {
            return Err(PyIndexError::new_err("no such worker"));
        }
        match worker::enter(event_loop, self.queues()?, index)? {
            true => Ok(()),
            false => Err(PyRuntimeError::new_err("this worker was there before")),
        }
    }

    /// How many workers there are.
    fn _workers(&self) -> PyResult<usize> {
        Ok(self.queues()?.workers())
    }

    /// The index of the worker that the calling thread is, or None.
    fn _index(&self) -> PyResult<Option<usize>> {
        Ok(worker::index_in(self.queues()?))
    }

    /// Refuse new jobs. A worker's run ends once it finds no job and those that it began have ended. Any thread.
    fn _close(&self) {
        if let Some(queues) = self.queues.get() {
            queues.close();
        }
    }

    fn _is_forked(&self) -> PyResult<bool> {
        Ok(self.queues()?.is_forked())
    }

    fn _is_closing(&self) -> PyResult<bool> {
        Ok(self.queues()?.is_closing())
    }

    /// Cancel the jobs that have not begun, or end them with an error; returns how many. Any thread.
    #[pyo3(signature = (error=None))]
    fn _end_waiting(&self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        if error.is_none() {
            self.queues()?.drop_waiting();
        }
        let mut count = 0;
        while let Some(waiting) = self.queues()?.take_waiting() {
            let how = error.map_or(End::Cancelled, |error| End::Error(Owned::for_another_thread(error)));
            count += usize::from(end::end(&waiting.job(py), how)?);
        }
        Ok(count)
    }

    /// Cancel the futures of jobs that have begun and not ended; their work continues. Any thread.
    fn _end_begun(&self, py: Python<'_>) -> PyResult<()> {
        for begun in &self.queues()?.begun {
            let jobs: Vec<_> = {
                let begun = begun.lock(py);
                begun.doing.iter().chain(begun.running.values()).map(|job| job.clone_ref(py)).collect()
            };
            for job in jobs {
                end::end(&job.bind(py), End::Cancelled)?;
            }
        }
        Ok(())
    }

    /// No worker is left. Jobs that are still submitted are cancelled.
    fn _finish(&self, py: Python<'_>) -> PyResult<()> {
        self.queues()?.finish();
        self._end_waiting(py, None).map(drop)
    }

    /// Jobs that have not begun, and for each worker how many it began, stole and has running. Any thread.
    fn _figures(&self, py: Python<'_>) -> PyResult<(usize, Vec<WorkerFigures>)> {
        let queues = self.queues()?;
        let read = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        let figures = queues.figures.iter().zip(&queues.begun).map(|(figures, begun)| {
            (read(&figures.begun), read(&figures.stolen), begun.lock(py).running.len())
        });
        Ok((queues.len(), figures.collect()))
    }
}

/// Jobs that a worker began, stole, and has running.
type WorkerFigures = (usize, usize, usize);

/// `submit(fn, /, *args, worker=None, **kwargs)`.
unsafe extern "C" fn submit(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let object = Borrowed::<PyAny>::from_ptr(py, object);
            let pool = object.cast_unchecked::<Pool>();
            let args = raw::arguments::slice_of(args, nargs as usize + keyword_count(keywords));
            let (given, values) = args.split_at(nargs as usize);
            let Some((&function, rest)) = given.split_first() else {
                return Err(PyTypeError::new_err("submit() missing 1 required positional argument: 'fn'"));
            };
            let mut whole = None;
            let mut target = None;
            if !values.is_empty() {
                let function = Bound::from_borrowed_ptr(py, function);
                (whole, target) = with_keywords(&function, keywords, values)?;
            }
            let function = whole.as_ref().map_or(function, |whole: &Bound<'_, PyAny>| whole.as_ptr());
            put(&pool, function, rest, target)
        })
    }
}

unsafe fn keyword_count(keywords: *mut ffi::PyObject) -> usize {
    // SAFETY: null or a tuple, as in every fast call.
    if keywords.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(keywords) as usize } }
}

/// The function with its keyword arguments bound, if there are any, and the worker that is asked for.
#[cold]
unsafe fn with_keywords<'py>(
    function: &Bound<'py, PyAny>,
    keywords: *mut ffi::PyObject,
    values: &[*mut ffi::PyObject],
) -> PyResult<(Option<Bound<'py, PyAny>>, Option<i64>)> {
    let py = function.py();
    let options = PyDict::new(py);
    let mut target = None;
    // SAFETY: the names and values of a fast call.
    let names = unsafe { Bound::from_borrowed_ptr(py, keywords).cast_into_unchecked::<PyTuple>() };
    for (name, &value) in names.iter().zip(values) {
        // SAFETY: alive.
        let value = unsafe { Bound::from_borrowed_ptr(py, value) };
        if name.extract::<&str>()? == "worker" {
            target = value.extract()?;
        } else {
            options.set_item(name, value)?;
        }
    }
    let whole = match options.is_empty() {
        true => None,
        false => Some(imports::partial(py)?.call((function,), Some(&options))?),
    };
    Ok((whole, target))
}

/// Makes a job and puts it where a worker finds it.
unsafe fn put(
    pool: &Bound<'_, Pool>,
    function: *mut ffi::PyObject,
    args: &[*mut ffi::PyObject],
    target: Option<i64>,
) -> PyResult<*mut ffi::PyObject> {
    let py = pool.py();
    let queues = pool.get().queues()?;
    if queues.is_forked() {
        let text = "the pool belongs to the process that forked this one: make a new one here";
        return Err(PyRuntimeError::new_err(text));
    }
    if queues.is_closing() {
        return Err(PyErr::from_value(pool.call_method0("_refusal")?));
    }
    let target = match target.map(usize::try_from) {
        None => None,
        Some(Ok(worker)) if worker < queues.workers() => Some(worker),
        Some(_) => {
            let text = format!("worker must be from 0 to {}", queues.workers() - 1);
            return Err(PyIndexError::new_err(text));
        }
    };
    let context = context::copy_current(py)?;
    // SAFETY: attached; all alive in the caller's hands.
    let call = unsafe { RemoteCall::new(py, function, args, &context, false, None)? };
    let job = job_type::create(py, Work::Call(call))?.into_bound(py);
    let pledge = Pledge::new(Owned::for_another_thread(&job));
    let left = match target {
        Some(worker) => queues.push_to(worker, pledge),
        None => match worker::push_own(queues, pledge) {
            Ok(()) => false,
            Err(pledge) => queues.push(pledge),
        },
    };
    if left {
        pool.get()._end_waiting(py, None)?;
    }
    Ok(Owned::from(job).into_ptr())
}

/// Adds the class to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    pyclass::complete::<Pool>(module.py());
    let class = module.py().get_type::<Pool>();
    let doc = c"submit($self, fn, /, *args, worker=None, **kwargs)\n--\n\nHave a worker call `fn(*args, **kwargs)`, and run the coroutine if that gives one. Any thread.\n\nReturns a concurrent.futures.Future. It travels with a copy of the caller's context. With `worker`, an index, that worker\ndoes it and no other. RuntimeError after shutdown() began; IndexError for a worker that is none.";
    raw::add_method(class.as_any(), raw::fast_keywords(c"submit", submit, doc))?;
    // SAFETY: the class is not yet known to any other thread.
    unsafe { raw::share_cheaply(class.as_ptr()) };
    module.add("Pool", class)
}
