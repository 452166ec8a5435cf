//! The state of futures and tasks: what their objects keep behind the fields of asyncio's types, and how it is found. Nothing
//! here says when a field may be touched; `mod.rs` does.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};

use crate::event_loop::EventLoop;
use crate::py::Owned;
use crate::py::class::Class;

/// A future's lifecycle, as in asyncio.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Pending,
    Cancelled,
    Finished,
}

/// `value` is an exception.
pub(super) const FAILED: u8 = 1;
/// `_asyncio_future_blocking`: yielded by an `await`, not looked at yet.
pub(super) const BLOCKING: u8 = 2;
/// An exception that nobody has retrieved: told when the future goes.
pub(super) const LOG_TRACEBACK: u8 = 4;
/// The task is to be cancelled in its next step.
pub(super) const MUST_CANCEL: u8 = 8;
/// A pending task that goes is told of.
pub(super) const LOG_DESTROY: u8 = 16;
/// A task that stands in its loop's list.
pub(super) const LINKED: u8 = 32;
/// Its `__init__` was called.
pub(super) const BEGUN: u8 = 64;
/// Its last reference is gone: it is finalised for that, and not by the collector.
pub(super) const GOING: u8 = 128;

/// The state of a Future, behind the fields of asyncio's.
#[repr(C)]
pub(super) struct Future {
    /// The loop, a strong reference; null before `__init__` and once collected.
    pub(super) event_loop: Cell<*mut ffi::PyObject>,
    /// The first callback, or a task to wake (then without context).
    pub(super) callback: Cell<*mut ffi::PyObject>,
    pub(super) context: Cell<*mut ffi::PyObject>,
    /// The result or the exception.
    pub(super) value: Cell<*mut ffi::PyObject>,
    pub(super) rare: Cell<*mut Rare>,
    pub(super) state: AtomicU8,
    pub(super) flags: AtomicU8,
    /// How often a task was asked to cancel itself, less what was taken back.
    pub(super) cancels: AtomicU32,
}

/// What most futures never have.
#[derive(Default)]
pub(super) struct Rare {
    /// All callbacks but the first.
    pub(super) callbacks: Vec<Callback>,
    pub(super) exception_traceback: Option<Owned>,
    pub(super) source_traceback: Option<Owned>,
    pub(super) cancel_message: Option<Owned>,
    /// The error that a task ended with when it was cancelled.
    pub(super) cancelled_error: Option<Owned>,
    /// What the task's next step throws into the coroutine.
    pub(super) throw: Option<Owned>,
}

/// What is called when a future is done; without context: the task that waits for it.
pub(super) struct Callback {
    pub(super) callback: Owned,
    pub(super) context: Option<Owned>,
}

/// The state of a Task: a future's and its own.
#[repr(C)]
pub(super) struct Task {
    pub(super) future: Future,
    pub(super) coro: Cell<*mut ffi::PyObject>,
    pub(super) run_context: Cell<*mut ffi::PyObject>,
    /// The future that the task waits for.
    pub(super) waiter: Cell<*mut ffi::PyObject>,
    pub(super) name: Cell<Name>,
    pub(super) links: Links,
}

/// A task's name: a str, or a number that becomes `Task-N` when it is asked for.
#[derive(Clone, Copy)]
pub(super) union Name {
    pub(super) object: *mut ffi::PyObject,
    /// Odd: twice the number, and one.
    pub(super) tagged: usize,
}

pub(super) static FUTURE: Class<Future> = Class::new();
pub(super) static TASK: Class<Task> = Class::new();

/// Which of the two types a method belongs to: they share the state of a future, at different places.
pub(super) trait Kind: 'static {
    const IS_TASK: bool;

    /// # Safety
    /// `object` is an instance of the kind's type.
    unsafe fn future<'a>(object: *mut ffi::PyObject) -> &'a Future;
}

pub(super) struct FutureKind;
pub(super) struct TaskKind;

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
pub(super) unsafe fn task_of<'a>(object: *mut ffi::PyObject) -> &'a Task {
    // SAFETY: promised; the state stands at the offset, and lives as long as the object.
    unsafe { &*object.byte_add(TASK.offset()).cast() }
}

/// The state of exactly a native Future or Task; None for anything else, subclasses included: these may override what
/// a short cut would pass by.
///
/// # Safety
/// `object` is alive.
#[inline]
pub(super) unsafe fn exact_future<'a>(object: *mut ffi::PyObject) -> Option<&'a Future> {
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
    pub(super) fn state(&self) -> State {
        // Acquire: pairs with the Release in `set_state`; the value is there once the state says so.
        match self.state.load(Ordering::Acquire) {
            0 => State::Pending,
            1 => State::Cancelled,
            _ => State::Finished,
        }
    }

    #[inline]
    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether it is done with None, and nothing was ever asked of it but to be awaited. In the loop's thread.
    pub(super) fn is_blank(&self) -> bool {
        self.state() == State::Finished
            && !self.has(FAILED)
            // SAFETY: only compared.
            && self.value.get() == unsafe { ffi::Py_None() }
            && [&self.callback, &self.context].iter().all(|field| field.get().is_null())
            && self.rare.get().is_null()
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Sets or clears a flag: under the loop's claim, which makes this the only writer.
    #[inline]
    pub(super) fn set(&self, flag: u8, on: bool) {
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Ordering::Relaxed);
    }

    /// The loop; None before `__init__`. Valid as long as the future is not collected.
    #[inline]
    pub(super) fn event_loop(&self) -> Option<&EventLoop> {
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
    pub(super) fn alive(&self) -> PyResult<&EventLoop> {
        self.event_loop().ok_or_else(uninitialised)
    }

    pub(super) fn loop_object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, EventLoop>> {
        self.alive()?;
        // SAFETY: alive as just checked.
        Ok(unsafe { Bound::from_borrowed_ptr(py, self.event_loop.get()).cast_into_unchecked() })
    }

    /// The rare part, made if it is not there: for changes.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn rare_mut(&self) -> &mut Rare {
        if self.rare.get().is_null() {
            self.rare.set(Box::into_raw(Box::default()));
        }
        // SAFETY: just made, or made before and freed with the object only; the caller holds the lock, so this is the only
        // reference, and ends before the lock does.
        unsafe { &mut *self.rare.get() }
    }

    /// The rare part if there is one: for changes.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn rare(&self) -> Option<&mut Rare> {
        // SAFETY: as for `rare_mut`.
        unsafe { self.rare.get().as_mut() }
    }
}

#[cold]
pub(super) fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("Future object is not initialized.")
}

/// A second reference to what a field holds.
///
/// # Safety
/// Attached; the field can't be changed meanwhile.
#[inline]
pub(super) unsafe fn peek(field: &Cell<*mut ffi::PyObject>) -> Option<Owned> {
    let object = field.get();
    // SAFETY: a field holds a strong reference or null.
    (!object.is_null()).then(|| unsafe { Owned::borrow(object) })
}

/// What a field held, which is null afterwards.
///
/// # Safety
/// The caller may change the field.
#[inline]
pub(super) unsafe fn take(field: &Cell<*mut ffi::PyObject>) -> Option<Owned> {
    let object = field.replace(ptr::null_mut());
    // SAFETY: the reference moves out of the field.
    (!object.is_null()).then(|| unsafe { Owned::steal(object) })
}

/// A task's neighbours in its loop's list.
#[derive(Default)]
pub(super) struct Links {
    pub(super) next: Cell<*mut ffi::PyObject>,
    pub(super) previous: Cell<*mut ffi::PyObject>,
}

impl Name {
    pub(super) fn number(number: usize) -> Self {
        Self { tagged: number << 1 | 1 }
    }

    /// The number, if the name is one; objects stand at even addresses.
    pub(super) fn as_number(self) -> Option<usize> {
        // SAFETY: both fields are one word; any value is a valid number.
        let tagged = unsafe { self.tagged };
        (tagged & 1 == 1).then_some(tagged >> 1)
    }
}

impl Task {
    /// The name's object, which is left out afterwards. Under the lock, or with nobody else there.
    pub(super) fn take_name(&self) -> Option<Owned> {
        let former = self.name.replace(Name { tagged: 0 });
        if former.as_number().is_some() {
            return None;
        }
        // SAFETY: not a number, so a strong reference or null.
        unsafe { (!former.object.is_null()).then(|| Owned::steal(former.object)) }
    }

    /// Replaces the name; gives the former object back. Under the lock.
    pub(super) fn replace_name(&self, name: Owned) -> Option<Owned> {
        let former = self.take_name();
        self.name.set(Name { object: name.into_ptr() });
        former
    }
}

/// A name as a str.
pub(super) fn name_text(name: &Bound<'_, PyAny>) -> PyResult<Owned> {
    match name.cast_exact::<PyString>() {
        Ok(name) => Ok(name.as_any().into()),
        Err(_) => Ok(name.str()?.into_any().into()),
    }
}
