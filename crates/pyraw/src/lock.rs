//! A lock for Python references that more than one thread may touch and that the garbage collector visits.
//!
//! On free-threaded builds the collector stops the threads that are attached to the interpreter; a detached one goes on. So a
//! detached thread must not take a reference out of anything that a `tp_traverse` shows: the collector might count it in one pass
//! and miss it in the next, and take a live object for garbage. [`Attached`] makes that a matter of types: its guard is made of
//! the token that proves a thread attached, and holds it, so that no closure given to `Python::detach` can have it.
//!
//! While it has a guard, a thread calls no Python, drops no reference, and neither blocks nor detaches: all of these are safe points,
//! where the collector may stop it. A reference that is taken out is dropped when the guard is gone. Debug builds check that. So a
//! thread holds the lock for a few instructions, and to wait for it while attached is to wait for a running thread.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};
use pyo3::Python;
use rawthread::quiet::{Quiet, Under};

#[derive(Default)]
pub struct Attached<T>(Mutex<T>);

/// Access to the content of an [`Attached`], until dropped.
#[must_use]
pub struct Guard<'a, 'py, T> {
    content: MutexGuard<'a, T>,
    _quiet: Quiet,
    _attached: PhantomData<Python<'py>>,
}

impl<T> Attached<T> {
    pub const fn new(content: T) -> Self {
        Self(Mutex::new(content))
    }

    #[inline]
    pub fn lock<'py>(&self, _py: Python<'py>) -> Guard<'_, 'py, T> {
        Guard { content: self.0.lock(), _quiet: Quiet::begin(Under::Lock), _attached: PhantomData }
    }

    /// The content, for a `tp_traverse`. No thread is ever stopped with a guard, so the collector finds the lock free. Otherwise
    /// it would be shown nothing, which makes it keep everything.
    #[inline]
    pub fn seen_by_collector(&self) -> Option<impl Deref<Target = T>> {
        let content = self.0.try_lock();
        debug_assert!(content.is_some(), "a thread was stopped with a guard of `Attached`");
        content
    }
}

impl<T> Deref for Guard<'_, '_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T> DerefMut for Guard<'_, '_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.content
    }
}
