//! The loop's Python methods that are not on the hot path; the raw ones are in `schedule` and `task`.

use pyo3::PyTraverseError;
use pyo3::PyVisit;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::handle::{self, Handle, HandleRef};
use super::life::{binding, registry, run};
use super::remote::Post;
use super::{EventLoop, door, task, turn};
use crate::py::names::names;
use crate::py::{Owned, context, raw};
use crate::sys::thread;

#[pymethods]
impl EventLoop {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        py: Python<'_>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::create(py)
    }

    /// Enters the loop into the process's registry and binds it to this thread if that has none.
    ///
    /// `tasks`: "native" or "asyncio"; None asks the environment variable TOKIOLOOP_TASKS. `cross_thread`: "raise" or "route".
    #[pyo3(signature = (*unknown, tasks=None, cross_thread=None, **others))]
    fn __init__(
        slf: &Bound<'_, Self>,
        unknown: &Bound<'_, PyTuple>,
        tasks: Option<&str>,
        cross_thread: Option<&str>,
        others: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let known = || match (unknown.len(), others.and_then(|others| others.keys().into_iter().next())) {
            (0, None) => Ok(()),
            (0, Some(name)) => {
                Err(PyTypeError::new_err(format!("TokioLoop() got an unexpected keyword argument '{name}'")))
            }
            _ => Err(PyTypeError::new_err("TokioLoop() takes no positional arguments")),
        };
        let from_environment = std::env::var("TOKIOLOOP_TASKS").ok().filter(|value| !value.is_empty());
        let chosen = known()
            .and_then(|()| choice("tasks", tasks.or(from_environment.as_deref()), ["native", "asyncio"]))
            .and_then(|native| Ok((native, choice("cross_thread", cross_thread, ["raise", "route"])?)));
        // A loop that never came to be is not one that was left open.
        let (native, raises) = chosen.inspect_err(|_| {
            slf.get().shared.set_closed();
        })?;
        let call_soon = names().call_soon.bind(slf.py());
        let own = slf.py().get_type::<Self>().getattr(call_soon)?;
        let overridden = !raw::is_same_method(&slf.get_type().getattr(call_soon)?, &own);
        slf.get().shared.choose(native, !raises, overridden);
        registry::add(slf)?;
        if binding::bound(slf.py())?.is_none() {
            binding::bind(slf.py(), Some(slf))?;
        }
        tracing::debug!(id = slf.get().shared.id, thread = thread::current_id(), "loop made");
        Ok(())
    }

    // ---- running ------------------------------------------------------------------------------------

    /// Run until stop() is called.
    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        run::run_forever(slf)
    }

    /// Stop the run at the end of its current turn; before a run: let it make one turn only. Any thread.
    fn stop(&self) {
        if self.with_claim(|core| core.stopping = true).is_err() {
            // Another thread runs it. A loop that was closed meanwhile is stopped already.
            let _ = self.shared.inbox.post(Post::Stop);
        }
    }

    /// Close the native core: drop what is queued and registered. RuntimeError while running.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let lp = slf.get();
        let running = || PyRuntimeError::new_err("Cannot close a running event loop");
        if lp.shared.is_running() {
            return Err(running());
        }
        // Another thread may begin to run it right now.
        let remains =
            lp.with_claim(|core| lp.shared.set_closed().then(|| core.take_all())).map_err(|_| running())?;
        let Some(remains) = remains else { return Ok(()) };
        tracing::debug!(id = lp.shared.id, "loop closed");
        registry::remove(&lp.shared);
        drop(remains);
        Ok(())
    }

    /// Whether the loop runs. Any thread.
    fn is_running(&self) -> bool {
        let running = self.shared.is_running();
        if running && self.shared.is_mine() {
            // So asks a task of asyncio's own type that starts eagerly, and hardly anybody else here.
            self.shared.note_asyncio_task();
        }
        running
    }

    /// Whether the loop belongs to a process that forked this one. Any thread.
    fn _is_forked(&self) -> bool {
        self.shared.is_forked()
    }

    /// Whether the loop was closed. Any thread.
    fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Seconds on the loop's monotonic clock. Any thread.
    #[pyo3(name = "time")]
    fn time_(&self) -> f64 {
        super::time()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let shared = &slf.get().shared;
        let truth = |value| if value { "True" } else { "False" };
        Ok(format!(
            "<{}{} running={} closed={} debug={}>",
            slf.get_type().name()?,
            if shared.is_forked() { " forked" } else { "" },
            truth(shared.is_running()),
            truth(shared.is_closed()),
            truth(shared.is_debug()),
        ))
    }

    /// RuntimeError when the loop is closed.
    fn _check_closed(&self) -> PyResult<()> {
        self.check_open()
    }

    /// RuntimeError when this loop, or another in this thread, is running.
    fn _check_running(slf: &Bound<'_, Self>) -> PyResult<()> {
        run::check_not_running(slf)
    }

    /// RuntimeError when another thread runs the loop.
    fn _check_thread(&self, py: Python<'_>) -> PyResult<()> {
        self.check_thread(py)
    }

    // ---- futures, tasks, handles ---------------------------------------------------------------------

    /// A pending Future of this loop.
    fn create_future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Ok(task::create_future(slf)?.into_bound(slf.py()))
    }

    /// The task factory, or None.
    fn get_task_factory<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let factory =
            self.with(py, |core| core.task_factory.as_ref().map(|factory| factory.clone_ref(py)))?;
        Ok(factory.map(|factory| factory.into_bound(py)))
    }

    /// Make tasks by `factory(loop, coro, **kwargs)`; None restores asyncio.Task.
    fn set_task_factory(&self, py: Python<'_>, factory: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if factory.as_ref().is_some_and(|factory| !factory.is_callable()) {
            return Err(PyTypeError::new_err("task factory must be a callable or None"));
        }
        let former =
            self.with(py, |core| std::mem::replace(&mut core.task_factory, factory.map(Owned::from)))?;
        drop(former);
        Ok(())
    }

    /// A Handle that is not scheduled yet: see _schedule().
    #[pyo3(signature = (callback, args, context=None))]
    fn _make_handle<'py>(
        slf: &Bound<'py, Self>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        context: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(slf.get().make_handle(slf, callback, args, context)?.into_object().into_bound(slf.py()))
    }

    /// Put a Handle on the ready queue; a cancelled one is left out. The same one may be put there again.
    fn _schedule(&self, py: Python<'_>, handle: &Bound<'_, PyAny>) -> PyResult<()> {
        if Handle::from_object(handle).is_none() {
            return Err(PyTypeError::new_err("a Handle is required"));
        }
        // SAFETY: just checked.
        turn::schedule(py, self, unsafe { HandleRef::from_owned(handle.into()) })
    }

    /// The Handle being run, in debug mode.
    #[getter]
    fn _current_handle<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let handle = self.with(py, |core| core.current_handle.as_ref().map(|handle| handle.clone_ref(py)))?;
        Ok(handle.map(|handle| handle.into_object().into_bound(py)))
    }

    // ---- debug mode -----------------------------------------------------------------------------------

    /// Whether futures and tasks are of our own types (see the class). Any thread.
    fn _makes_native_futures(&self) -> bool {
        self.shared.has_native_tasks()
    }

    /// Whether debug mode is on. Any thread.
    fn get_debug(&self) -> bool {
        self.shared.is_debug()
    }

    /// Switch debug mode. On a running loop the tracking of coroutine origins follows in its next turn.
    fn set_debug(slf: &Bound<'_, Self>, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        let enabled = enabled.is_truthy()?;
        slf.get().shared.set_debug(enabled);
        if slf.get().shared.is_running() {
            slf.call_method1(
                "call_soon_threadsafe",
                (slf.getattr("_set_coroutine_origin_tracking")?, enabled),
            )?;
        }
        Ok(())
    }

    fn _set_coroutine_origin_tracking(slf: &Bound<'_, Self>, enabled: bool) -> PyResult<()> {
        run::set_origin_tracking(door::enter(slf)?.on(), enabled)
    }

    /// Callbacks that run this many seconds or longer are logged, in debug mode.
    #[getter]
    fn get_slow_callback_duration(&self, py: Python<'_>) -> PyResult<f64> {
        self.with(py, |core| core.slow_callback_duration)
    }

    #[setter]
    fn set_slow_callback_duration(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        self.with(py, |core| core.slow_callback_duration = seconds)
    }

    /// Counters of what the loop did: turns, polls, parks, accepts.
    fn _metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.with(py, |core| core.counters)?;
        let answer = PyDict::new(py);
        answer.set_item("turns", counters.turns)?;
        answer.set_item("polls", counters.polls)?;
        answer.set_item("parks", counters.parks)?;
        answer.set_item("accepts", counters.accepts)?;
        Ok(answer)
    }

    // ---- garbage collection -----------------------------------------------------------------------------

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: the collector has stopped every attached thread at a safe point, and no change of the core spans one (it calls no
        // Python and detaches nowhere). A thread that waits detached touches no more of the core than the driver's buffer for
        // events, which is not looked at here.
        let core = unsafe { &*self.core.get() };
        core.visit(|object| visit.call(object.as_py()))
    }

    fn __clear__(&self) {
        // SAFETY: the collector found the loop unreachable: there is no other reference, and so no claim.
        let remains = unsafe { &mut *self.core.get() }.take_all();
        if self.shared.is_forked() {
            // As when it is dropped.
            std::mem::forget(remains);
        }
    }
}

/// Whether an option has the first of its two values, which is the default. ValueError for a third.
fn choice(option: &str, value: Option<&str>, [default, other]: [&str; 2]) -> PyResult<bool> {
    match value {
        None => Ok(true),
        Some(value) if value == default => Ok(true),
        Some(value) if value == other => Ok(false),
        Some(value) => {
            Err(PyValueError::new_err(format!("{option} must be '{default}' or '{other}', not '{value}'")))
        }
    }
}

impl EventLoop {
    /// A handle for callbacks that others schedule: readers, signal handlers.
    pub(crate) fn make_handle(
        &self,
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<HandleRef> {
        let py = slf.py();
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context.into(),
            None => context::copy_current(py)?,
        };
        let args: Vec<_> = args.iter().collect();
        let pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
        // SAFETY: all alive for the call.
        let handle =
            unsafe { HandleRef::make(py, None, slf.as_ptr(), callback.as_ptr(), &pointers, context)? };
        if self.shared.is_debug() {
            handle.set_traceback(handle::source_traceback(py)?);
        }
        Ok(handle)
    }
}
