//! Native `Future` and `Task`: subclasses of asyncio's, with state of their own behind the base's unused fields.
//!
//! | room          | what lives there                                                            |
//! |---------------|-----------------------------------------------------------------------------|
//! | `future`      | states, results, callbacks                                                  |
//! | `step`        | one step of a task's coroutine, and what to do with what it yields          |
//! | `cancel`      | cancellation of futures and tasks                                           |
//! | `registry`    | the tasks of a loop, and which one runs                                     |
//! | `create`      | `create_future`, `create_task` and the types' `__init__`                    |
//! | `outside`     | what starts coroutines for others: begin, be told of the end, ask how it ended |
//! | `life`        | life of the objects: allocation, collection, finalisers                     |
//! | `unseen`      | exceptions that nobody has retrieved, in garbage                            |
//! | `iter`        | what `await` sees                                                           |
//! | `future_type`, `task_type` | the Python faces                                               |
//! | `asyncio`     | asyncio's own `current_task` and `all_tasks` answer for our loops           |
//!
//! # Who may touch what
//!
//! A future belongs to its loop. Three kinds of access:
//!
//! - **Changing** one needs the loop's claim (`Shared::claim`: its thread while it runs) *and* the owner's side of the
//!   loop's [`BiasedLock`](crate::sync::biased::BiasedLock): [`EventLoop::with_tasks`]. Any other thread is refused, or its
//!   call goes through the inbox. Reading in the owning thread needs neither.
//! - **Looking** from another thread takes the visitor's side: [`EventLoop::look_at_tasks`]. It takes references under
//!   it, and uses them afterwards.
//! - `state` and `flags` are atomic: any thread may read them. The state is stored with Release after the value.
//!
//! Nothing under the lock calls Python or drops a reference. A name may be set by any thread, under either side.
//!
//! A task waits for a native future by standing in its list of callbacks, with no context: that reference moves to the
//! ready queue when the future is done, and from there back into a future or onto the queue. So a step costs no
//! reference counting and makes no object.

mod asyncio;
mod cancel;
mod create;
mod future;
mod future_type;
mod iter;
mod life;
pub mod outside;
pub mod registry;
pub(super) mod step;
mod task_type;
mod unseen;

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::EventLoop;
use super::core::Core;
use crate::py::class::Class;
use crate::py::{Owned, imports};
use crate::sync::ownership::Foreign;
use crate::sync::quiet::{Quiet, Under};
use crate::sys::thread;

pub use create::{add_methods, create_future};
pub use outside::{give_back, is_cancelled, is_done, renewed_future, wake};

/// A future's lifecycle, as in asyncio.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Pending,
    Cancelled,
    Finished,
}

/// `value` is an exception.
const FAILED: u8 = 1;
/// `_asyncio_future_blocking`: yielded by an `await`, not looked at yet.
const BLOCKING: u8 = 2;
/// An exception that nobody has retrieved: told when the future goes.
const LOG_TRACEBACK: u8 = 4;
/// The task is to be cancelled in its next step.
const MUST_CANCEL: u8 = 8;
/// A pending task that goes is told of.
const LOG_DESTROY: u8 = 16;
/// A task that stands in its loop's list.
const LINKED: u8 = 32;
/// Its `__init__` was called.
const BEGUN: u8 = 64;
/// Its last reference is gone: it is finalised for that, and not by the collector.
const GOING: u8 = 128;

/// The state of a Future, behind the fields of asyncio's.
#[repr(C)]
pub(super) struct Future {
    /// The loop, a strong reference; null before `__init__` and once collected.
    event_loop: Cell<*mut ffi::PyObject>,
    /// The first callback, or a task to wake (then without context).
    callback: Cell<*mut ffi::PyObject>,
    context: Cell<*mut ffi::PyObject>,
    /// The result or the exception.
    value: Cell<*mut ffi::PyObject>,
    rare: Cell<*mut Rare>,
    state: AtomicU8,
    flags: AtomicU8,
    /// How often a task was asked to cancel itself, less what was taken back.
    cancels: AtomicU32,
}

/// What most futures never have.
#[derive(Default)]
struct Rare {
    /// All callbacks but the first.
    callbacks: Vec<Callback>,
    exception_traceback: Option<Owned>,
    source_traceback: Option<Owned>,
    cancel_message: Option<Owned>,
    /// The error that a task ended with when it was cancelled.
    cancelled_error: Option<Owned>,
    /// What the task's next step throws into the coroutine.
    throw: Option<Owned>,
}

/// What is called when a future is done; without context: the task that waits for it.
struct Callback {
    callback: Owned,
    context: Option<Owned>,
}

/// The state of a Task: a future's and its own.
#[repr(C)]
pub(super) struct Task {
    future: Future,
    coro: Cell<*mut ffi::PyObject>,
    run_context: Cell<*mut ffi::PyObject>,
    /// The future that the task waits for.
    waiter: Cell<*mut ffi::PyObject>,
    name: Cell<Name>,
    links: registry::Links,
}

/// A task's name: a str, or a number that becomes `Task-N` when it is asked for.
#[derive(Clone, Copy)]
union Name {
    object: *mut ffi::PyObject,
    /// Odd: twice the number, and one.
    tagged: usize,
}

static FUTURE: Class<Future> = Class::new();
static TASK: Class<Task> = Class::new();

/// Which of the two types a method belongs to: they share the state of a future, at different places.
trait Kind: 'static {
    const IS_TASK: bool;

    /// # Safety
    /// `object` is an instance of the kind's type.
    unsafe fn future<'a>(object: *mut ffi::PyObject) -> &'a Future;
}

struct FutureKind;
struct TaskKind;

impl Kind for FutureKind {
    const IS_TASK: bool = false;

    #[inline]
    unsafe fn future<'a>(object: *mut ffi::PyObject) -> &'a Future {
        // SAFETY: promised; the state stands at the offset, and lives as long as the object.
        unsafe { &*object.byte_add(FUTURE.offset()).cast() }
    }
}

impl Kind for TaskKind {
    const IS_TASK: bool = true;

    #[inline]
    unsafe fn future<'a>(object: *mut ffi::PyObject) -> &'a Future {
        // SAFETY: promised; a task's state begins with a future's.
        unsafe { &task_of(object).future }
    }
}

/// # Safety
/// `object` is a native Task.
#[inline]
unsafe fn task_of<'a>(object: *mut ffi::PyObject) -> &'a Task {
    // SAFETY: promised; the state stands at the offset, and lives as long as the object.
    unsafe { &*object.byte_add(TASK.offset()).cast() }
}

/// The state of exactly a native Future or Task; None for anything else, subclasses included: these may override what
/// a short cut would pass by.
///
/// # Safety
/// `object` is alive.
#[inline]
unsafe fn exact_future<'a>(object: *mut ffi::PyObject) -> Option<&'a Future> {
    // SAFETY: promised; an exact instance has our layout.
    unsafe {
        if FUTURE.is_exact(object) {
            Some(FutureKind::future(object))
        } else if TASK.is_exact(object) {
            Some(TaskKind::future(object))
        } else {
            None
        }
    }
}

impl Future {
    #[inline]
    fn state(&self) -> State {
        // Acquire: pairs with the Release in `set_state`; the value is there once the state says so.
        match self.state.load(Ordering::Acquire) {
            0 => State::Pending,
            1 => State::Cancelled,
            _ => State::Finished,
        }
    }

    #[inline]
    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether it is done with None, and nothing was ever asked of it but to be awaited. In the loop's thread.
    fn is_blank(&self) -> bool {
        self.state() == State::Finished
            && !self.has(FAILED)
            // SAFETY: only compared.
            && self.value.get() == unsafe { ffi::Py_None() }
            && [&self.callback, &self.context].iter().all(|field| field.get().is_null())
            && self.rare.get().is_null()
    }

    #[inline]
    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Sets or clears a flag: under the loop's claim, which makes this the only writer.
    #[inline]
    fn set(&self, flag: u8, on: bool) {
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Ordering::Relaxed);
    }

    /// The loop; None before `__init__`. Valid as long as the future is not collected.
    #[inline]
    fn event_loop(&self) -> Option<&EventLoop> {
        let object = self.event_loop.get();
        if object.is_null() {
            return None;
        }
        // SAFETY: a strong reference to an EventLoop; `get` needs no more than a live object.
        unsafe {
            let py = Python::assume_attached();
            let event_loop = Borrowed::<PyAny>::from_ptr(py, object).cast_unchecked::<EventLoop>();
            Some(&*ptr::from_ref(event_loop.get()))
        }
    }

    /// The loop, or asyncio's error for a future without one.
    #[inline]
    fn alive(&self) -> PyResult<&EventLoop> {
        self.event_loop().ok_or_else(uninitialised)
    }

    fn loop_object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, EventLoop>> {
        self.alive()?;
        // SAFETY: alive as just checked.
        Ok(unsafe { Bound::from_borrowed_ptr(py, self.event_loop.get()).cast_into_unchecked() })
    }

    /// The rare part, made if it is not there: for changes.
    #[allow(clippy::mut_from_ref)]
    fn rare_mut(&self) -> &mut Rare {
        if self.rare.get().is_null() {
            self.rare.set(Box::into_raw(Box::default()));
        }
        // SAFETY: just made, or made before and freed with the object only; the caller holds the lock, so this is the only
        // reference, and ends before the lock does.
        unsafe { &mut *self.rare.get() }
    }

    /// The rare part if there is one: for changes.
    #[allow(clippy::mut_from_ref)]
    fn rare(&self) -> Option<&mut Rare> {
        // SAFETY: as for `rare_mut`.
        unsafe { self.rare.get().as_mut() }
    }
}

#[cold]
fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("Future object is not initialized.")
}

/// A second reference to what a field holds.
///
/// # Safety
/// Attached; the field can't be changed meanwhile.
#[inline]
unsafe fn peek(field: &Cell<*mut ffi::PyObject>) -> Option<Owned> {
    let object = field.get();
    // SAFETY: a field holds a strong reference or null.
    (!object.is_null()).then(|| unsafe { Owned::borrow(object) })
}

/// What a field held, which is null afterwards.
///
/// # Safety
/// The caller may change the field.
#[inline]
unsafe fn take(field: &Cell<*mut ffi::PyObject>) -> Option<Owned> {
    let object = field.replace(ptr::null_mut());
    // SAFETY: the reference moves out of the field.
    (!object.is_null()).then(|| unsafe { Owned::steal(object) })
}

impl EventLoop {
    /// Changes futures and tasks of the loop. `f` must not call into Python or drop a reference.
    #[inline]
    fn with_tasks<R>(&self, f: impl FnOnce(&mut Core) -> R) -> Result<R, Foreign> {
        self.with_claim(|core| {
            let _held = self.tasks.lock.owner();
            f(core)
        })
    }

    /// Looks at futures and tasks of the loop from any thread. As for [`with_tasks`](Self::with_tasks), `f` does not call
    /// into Python.
    fn look_at_tasks<R>(&self, f: impl FnOnce() -> R) -> R {
        match self.shared.claim() {
            Ok(_claim) => {
                let _held = self.tasks.lock.owner();
                let _quiet = Quiet::begin(Under::Claim);
                f()
            }
            Err(_) => {
                let _held = self.tasks.lock.visitor();
                let _quiet = Quiet::begin(Under::Claim);
                f()
            }
        }
    }

    /// The error of a call that may only be made in the loop's thread: it names the way that is safe.
    #[cold]
    fn wrong_thread_for(foreign: Foreign, what: &str) -> PyErr {
        crate::event_loop::door::wrong_thread(foreign, Some(what))
    }

    /// Whether the frames of the loop's coroutines can be looked at: it runs in this thread, or stands still and is bound to
    /// no other thread, which might run it meanwhile.
    fn has_still_frames(&self) -> bool {
        let bound = self.shared.bound_thread.load(Ordering::Relaxed);
        self.shared.is_mine() || !self.shared.is_running() && (bound == 0 || bound == thread::current_id())
    }
}

/// Makes the types and adds them to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    FUTURE.init_and_add(module, future_type::spec(), Some(imports::asyncio_future(module.py())?))?;
    TASK.init_and_add(module, task_type::spec(), Some(imports::asyncio_task(module.py())?))?;
    // Looked up now. Hot paths, which pyo3 does not know to be attached, must not come to drop what another thread was first to
    // keep; and what reports need must be there when the interpreter ends and imports no more.
    for look_up in [
        imports::invalid_state_error,
        imports::cancelled_error,
        imports::iscoroutine,
        imports::future_repr,
        imports::task_repr,
    ] {
        look_up(module.py())?;
    }
    iter::init(module)?;
    step::init(module.py())?;
    asyncio::init(module)
}
