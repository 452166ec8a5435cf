//! A loop's lock over its futures, and its tasks: those that are pending, in a list threaded through the tasks themselves, and the one that
//! runs. The way to the lock is [`EventLoop::with_tasks`] in the loop's thread, and [`EventLoop::look_at_tasks`] in any.
//!
//! The list holds no references. A task is in it from its creation to its end, or to its deallocation if that comes first;
//! a thread that finds one there while another thread deallocates it can't get a reference to it, and passes over it.

use std::cell::Cell;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PySet;

use super::fields::{Kind, TaskKind, task_of};
use crate::event_loop::EventLoop;
use crate::event_loop::core::Core;
use crate::py::{Owned, raw};
use crate::sync::biased::BiasedLock;
use crate::sync::held::{Change, Held, Look, Mine, Reads};
use crate::sync::ownership::Foreign;
use crate::sync::quiet::{Quiet, Under};

/// What a loop keeps of its tasks. Everything except the lock is touched under the lock only.
pub struct Tasks {
    /// Orders every change of a future or task of the loop, see the module `task`.
    lock: BiasedLock,
    /// The newest pending task.
    head: Cell<*mut ffi::PyObject>,
    /// The task that runs; its step keeps it alive.
    current: Cell<*mut ffi::PyObject>,
}

impl Tasks {
    pub fn new() -> Self {
        Self {
            lock: BiasedLock::new(),
            head: Cell::new(ptr::null_mut()),
            current: Cell::new(ptr::null_mut()),
        }
    }

    /// Whether a proof is about this loop's lock; always true in release builds.
    #[inline]
    pub(super) fn is_proved(&self, proof: impl Reads) -> bool {
        proof.is_of(&self.lock)
    }

    /// The running task; null when there is none.
    #[inline]
    pub(super) fn current(&self, proof: impl Reads) -> *mut ffi::PyObject {
        debug_assert!(self.is_proved(proof));
        self.current.get()
    }

    /// Sets the running task; returns the one before.
    #[inline]
    pub(super) fn set_current(&self, task: *mut ffi::PyObject, change: Change<'_>) -> *mut ffi::PyObject {
        debug_assert!(self.is_proved(change));
        self.current.replace(task)
    }

    /// Enters a task into the list.
    ///
    /// # Safety
    /// `object` is a native Task of this loop that is not in the list.
    #[inline]
    pub(super) unsafe fn link(&self, object: *mut ffi::PyObject, held: impl Held) {
        debug_assert!(self.is_proved(held));
        // SAFETY: promised; what is in the list is alive, or waits for the lock in its deallocation.
        unsafe {
            let task = task_of(object);
            let head = self.head.replace(object);
            task.links.next.set(head);
            task.links.previous.set(ptr::null_mut());
            if !head.is_null() {
                task_of(head).links.previous.set(object);
            }
            task.future.life.link(held);
        }
    }

    /// Takes a task out of the list, if it is there.
    ///
    /// # Safety
    /// `object` is a native Task of this loop.
    #[inline]
    pub(super) unsafe fn unlink(&self, object: *mut ffi::PyObject, held: impl Held) {
        debug_assert!(self.is_proved(held));
        // SAFETY: as for `link`.
        unsafe {
            let task = task_of(object);
            if !task.future.life.unlink(held) {
                return;
            }
            let next = task.links.next.replace(ptr::null_mut());
            let previous = task.links.previous.replace(ptr::null_mut());
            if previous.is_null() {
                self.head.set(next);
            } else {
                task_of(previous).links.next.set(next);
            }
            if !next.is_null() {
                task_of(next).links.previous.set(previous);
            }
        }
    }

    /// References to all tasks in the list, but those that are going: the collector, which knows of no reference to them, may
    /// be closing their coroutines, and nothing else may step these.
    fn snapshot(&self, _: impl Held) -> Vec<Owned> {
        let mut found = Vec::new();
        let mut object = self.head.get();
        while !object.is_null() {
            // SAFETY: what is in the list is not freed before it has left it, for which the lock is needed.
            unsafe {
                if !raw::is_garbage(object) && raw::try_incref(object) {
                    found.push(Owned::steal(object));
                }
                object = task_of(object).links.next.get();
            }
        }
        found
    }
}

impl EventLoop {
    /// Changes futures and tasks of the loop. `f` must not call into Python or drop a reference.
    #[inline]
    pub(super) fn with_tasks<R>(&self, f: impl FnOnce(&mut Core, Change<'_>) -> R) -> Result<R, Foreign> {
        self.with_claim(|core| {
            let held = self.tasks.lock.owner();
            f(core, held.change())
        })
    }

    /// Looks at futures and tasks of the loop from any thread. As for [`with_tasks`](Self::with_tasks), `f` does not call
    /// into Python.
    pub(super) fn look_at_tasks<R>(&self, f: impl FnOnce(Look<'_>) -> R) -> R {
        match self.shared.claim() {
            Ok(_claim) => {
                let held = self.tasks.lock.owner();
                let _quiet = Quiet::begin(Under::Claim);
                f(held.look())
            }
            Err(_) => {
                let held = self.tasks.lock.visitor();
                let _quiet = Quiet::begin(Under::Claim);
                f(held.look())
            }
        }
    }

    /// Reads futures and tasks of the loop without the lock, in the thread that runs it; None in any other. `f` does not call into Python.
    #[inline]
    pub(super) fn read_mine<R>(&self, f: impl FnOnce(Mine<'_>) -> R) -> Option<R> {
        // SAFETY: the loop is this thread's, and stays so while `f` runs, which the proof can't leave: no other thread changes its futures.
        self.shared.is_mine().then(|| f(unsafe { Mine::new(&self.tasks.lock) }))
    }
}

/// The native tasks of a loop that are not done. Any thread: a consistent snapshot that delays the loop's thread by
/// the microseconds that copying the list takes only.
pub fn pending<'py>(py: Python<'py>, event_loop: &EventLoop) -> PyResult<Bound<'py, PySet>> {
    let tasks = event_loop.look_at_tasks(|look| event_loop.tasks.snapshot(look));
    let pending = PySet::empty(py)?;
    for task in tasks {
        // SAFETY: a native Task.
        if unsafe { TaskKind::future(task.as_ptr()) }.life.is_pending() {
            pending.add(task.bind(py))?;
        }
    }
    Ok(pending)
}

/// The native task that a loop is running now. Any thread.
pub fn current(_py: Python<'_>, event_loop: &EventLoop) -> Option<Owned> {
    // SAFETY: alive: it is taken from the slot, by the loop's thread and under the lock, before its step releases it.
    let found = |task: *mut ffi::PyObject| (!task.is_null()).then(|| unsafe { Owned::borrow(task) });
    let mine = event_loop.read_mine(|mine| found(event_loop.tasks.current(mine)));
    mine.unwrap_or_else(|| event_loop.look_at_tasks(|look| found(event_loop.tasks.current(look))))
}
