//! The state of futures and tasks: what their objects keep behind the fields of asyncio's types, and how it is found.
//!
//! What touches a field shows a proof of [`sync::held`](crate::sync::held), which is that of the future's own loop: debug builds check it.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};

use crate::event_loop::EventLoop;
use crate::proto::task::Life;
pub(super) use crate::proto::task::State;
use crate::py::Owned;
use crate::py::class::Class;
use crate::sync::held::{Change, Changes, Exclusive, Reads, Sole};

/// A field that holds a strong reference, or null. To put something in, to take it out or to make a second reference needs a proof that the
/// lock of the future's own loop is held, or that it does not have to be.
#[repr(transparent)]
pub(super) struct Slot(Cell<*mut ffi::PyObject>);

impl Slot {
    /// The object, to be compared. It is alive where the caller knows that it stays.
    #[inline]
    pub(super) fn pointer(&self) -> *mut ffi::PyObject {
        self.0.get()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }

    /// A second reference to the object.
    #[inline]
    pub(super) fn peek(&self, _: impl Reads) -> Option<Owned> {
        let object = self.0.get();
        // SAFETY: a strong reference or null, which no other thread changes meanwhile, as the proof says. Attached, as is every thread that
        // has a future.
        (!object.is_null()).then(|| unsafe { Owned::borrow(object) })
    }

    /// Takes the object out.
    #[inline]
    pub(super) fn take(&self, _: impl Exclusive) -> Option<Owned> {
        let object = self.0.replace(ptr::null_mut());
        // SAFETY: the reference moves out of the field.
        (!object.is_null()).then(|| unsafe { Owned::steal(object) })
    }

    /// Puts an object where none is.
    #[inline]
    pub(super) fn put(&self, object: Owned, _: impl Changes) {
        debug_assert!(self.is_empty());
        self.0.set(object.into_ptr());
    }
}

/// The state of a Future, behind the fields of asyncio's.
#[repr(C)]
pub(super) struct Future {
    /// The loop, a strong reference; null before `__init__`. Set once, as the last field of a new object, and stays until it is freed.
    event_loop: AtomicPtr<ffi::PyObject>,
    /// The first callback, or a task to wake (then without context).
    pub(super) callback: Slot,
    pub(super) context: Slot,
    /// The result or the exception.
    pub(super) value: Slot,
    rare: Cell<*mut Rare>,
    pub(super) life: Life,
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
    pub(super) coro: Slot,
    pub(super) run_context: Slot,
    /// The future that the task waits for.
    pub(super) waiter: Slot,
    name: Cell<Name>,
    pub(super) links: Links,
}

/// A task's name: a str, or a number that becomes `Task-N` when it is asked for.
#[derive(Clone, Copy)]
union Name {
    object: *mut ffi::PyObject,
    /// Odd: twice the number, and one.
    tagged: usize,
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
        // SAFETY: promised; the state is at the offset, and lives as long as the object.
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
    // SAFETY: promised; the state is at the offset, and lives as long as the object.
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
    /// Whether it is done with None, and nothing was ever asked of it but to be awaited. In the loop's thread.
    pub(super) fn is_blank(&self) -> bool {
        self.life.state() == State::Finished
            && !self.life.has_failed()
            // SAFETY: only compared.
            && self.value.pointer() == unsafe { ffi::Py_None() }
            && self.callback.is_empty()
            && self.context.is_empty()
            && self.rare.get().is_null()
    }

    /// The loop; None before `__init__`. Valid as long as the future is not freed.
    #[inline]
    pub(super) fn event_loop(&self) -> Option<&EventLoop> {
        // Acquire: pairs with the Release in `set_loop`. A thread that finds the loop finds a whole object.
        let object = self.event_loop.load(Ordering::Acquire);
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

    /// The loop as an object; null before `__init__`. It stays as long as the future.
    #[inline]
    pub(super) fn loop_pointer(&self) -> *mut ffi::PyObject {
        self.event_loop.load(Ordering::Relaxed)
    }

    /// Gives a new future its loop: the last step that makes it, since other threads may change it from here on.
    #[inline]
    pub(super) fn set_loop(&self, event_loop: Owned, _: Sole<'_>) {
        debug_assert!(self.loop_pointer().is_null());
        self.event_loop.store(event_loop.into_ptr(), Ordering::Release);
    }

    /// Takes the loop out of a future that is freed.
    #[inline]
    pub(super) fn take_loop(&self, _: Sole<'_>) -> Option<Owned> {
        let object = self.loop_pointer();
        self.event_loop.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the reference moves out of the field.
        (!object.is_null()).then(|| unsafe { Owned::steal(object) })
    }

    /// The loop, or asyncio's error for a future without one.
    #[inline]
    pub(super) fn alive(&self) -> PyResult<&EventLoop> {
        self.event_loop().ok_or_else(uninitialised)
    }

    pub(super) fn loop_object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, EventLoop>> {
        self.alive()?;
        // SAFETY: alive as just checked.
        Ok(unsafe { Bound::from_borrowed_ptr(py, self.loop_pointer()).cast_into_unchecked() })
    }

    /// Checks, in debug builds, that a proof is about the lock of this future's loop.
    #[inline]
    pub(super) fn check(&self, proof: impl Reads) {
        debug_assert!(
            self.event_loop().is_none_or(|event_loop| event_loop.tasks.is_proved(proof)),
            "the lock of another loop is held"
        );
    }

    /// The rare part, made if it is not there.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn rare_mut<'a>(&'a self, proof: impl Changes + 'a) -> &'a mut Rare {
        self.check(proof);
        if self.rare.get().is_null() {
            self.rare.set(Box::into_raw(Box::default()));
        }
        // SAFETY: just made, or made before and freed with the object only. No other thread has a reference, as the proof says, and none of
        // this thread's outlives the statement that takes it.
        unsafe { &mut *self.rare.get() }
    }

    /// The rare part if there is one.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn rare<'a>(&'a self, proof: impl Exclusive + 'a) -> Option<&'a mut Rare> {
        self.check(proof);
        // SAFETY: as for `rare_mut`.
        unsafe { self.rare.get().as_mut() }
    }

    /// Takes the rare part out, of a future that is garbage.
    pub(super) fn take_rare(&self, proof: impl Exclusive) -> Option<Box<Rare>> {
        self.check(proof);
        let rare = self.rare.replace(ptr::null_mut());
        // SAFETY: made from a box, and no longer the future's.
        (!rare.is_null()).then(|| unsafe { Box::from_raw(rare) })
    }
}

#[cold]
pub(super) fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("Future object is not initialized.")
}

/// A task's neighbours in its loop's list.
#[derive(Default)]
pub(super) struct Links {
    pub(super) next: Cell<*mut ffi::PyObject>,
    pub(super) previous: Cell<*mut ffi::PyObject>,
}

impl Name {
    /// The number, if the name is one; objects are at even addresses.
    fn as_number(self) -> Option<usize> {
        // SAFETY: both fields are one word; any value is a valid number.
        let tagged = unsafe { self.tagged };
        (tagged & 1 == 1).then_some(tagged >> 1)
    }
}

impl Task {
    /// Takes out the name's object.
    pub(super) fn take_name(&self, _: impl Exclusive) -> Option<Owned> {
        let former = self.name.replace(Name { tagged: 0 });
        if former.as_number().is_some() {
            return None;
        }
        // SAFETY: not a number, so a strong reference or null.
        unsafe { (!former.object.is_null()).then(|| Owned::steal(former.object)) }
    }

    /// Replaces the name; returns the former object. Any thread may do so, under either side of the lock.
    pub(super) fn replace_name(&self, name: Owned, proof: impl Exclusive) -> Option<Owned> {
        let former = self.take_name(proof);
        self.name.set(Name { object: name.into_ptr() });
        former
    }

    /// The name: a number, or an object.
    pub(super) fn peek_name(&self, _: impl Exclusive) -> Result<usize, Option<Owned>> {
        let name = self.name.get();
        match name.as_number() {
            Some(number) => Ok(number),
            // SAFETY: not a number, so a strong reference or null, which no other thread changes meanwhile, as the proof says.
            None => Err(unsafe { (!name.object.is_null()).then(|| Owned::borrow(name.object)) }),
        }
    }

    /// Gives a task without a name a number that is made when it is needed.
    #[inline]
    pub(super) fn number(&self, _: Change<'_>, next: impl FnOnce() -> usize) {
        // SAFETY: both fields are one word.
        if unsafe { self.name.get().tagged } == 0 {
            self.name.set(Name { tagged: next() << 1 | 1 });
        }
    }
}

/// A name as a str.
pub(super) fn name_text(name: &Bound<'_, PyAny>) -> PyResult<Owned> {
    match name.cast_exact::<PyString>() {
        Ok(name) => Ok(name.as_any().into()),
        Err(_) => Ok(name.str()?.into_any().into()),
    }
}
