//! Proofs that a [`BiasedLock`] is held, or that it does not have to be. State that the lock guards asks for one of them.
//!
//! | proof    | what it says                                                                     | made by |
//! |----------|----------------------------------------------------------------------------------|---------|
//! | `Change` | the owner's side is held: the owner changes the state, and no other thread sees it | [`Owner::change`] |
//! | `Look`   | one of the two sides is held, perhaps a visitor's                                 | [`Owner::look`], [`Visitor::look`] |
//! | `Mine`   | this thread is the owner and does not hold the lock: only this thread changes the state, so it may read it | `unsafe` |
//! | `Sole`   | no other thread reaches the state: it is not shared yet, or not any more          | `unsafe` |
//!
//! A proof is a value without size, which lives as long as the guard. In debug builds it knows its lock, so that what it opens can check
//! that it is the right one.

use std::marker::PhantomData;

use super::biased::{BiasedLock, Owner, Visitor};

/// The lock that a proof is about, for debug builds. The pointer keeps the proof in its thread.
#[derive(Clone, Copy)]
struct Of<'a> {
    #[cfg(debug_assertions)]
    lock: &'a BiasedLock,
    _guard: PhantomData<(&'a BiasedLock, *const ())>,
}

impl<'a> Of<'a> {
    #[inline]
    fn new(lock: &'a BiasedLock) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = lock;
        Self {
            #[cfg(debug_assertions)]
            lock,
            _guard: PhantomData,
        }
    }

    #[inline]
    fn is_of(self, lock: &BiasedLock) -> bool {
        #[cfg(debug_assertions)]
        return std::ptr::eq(self.lock, lock);
        #[cfg(not(debug_assertions))]
        {
            let _ = lock;
            true
        }
    }
}

/// The owner's side is held.
#[derive(Clone, Copy)]
pub struct Change<'a>(Of<'a>);

/// One side is held.
#[derive(Clone, Copy)]
pub struct Look<'a>(Of<'a>);

/// The calling thread is the owner.
#[derive(Clone, Copy)]
pub struct Mine<'a>(Of<'a>);

/// No other thread reaches the state.
#[derive(Clone, Copy)]
pub struct Sole<'a>(PhantomData<(&'a (), *const ())>);

impl<'a> Mine<'a> {
    /// # Safety
    /// As long as the proof lives, the calling thread is the lock's owner, and it changes nothing that it has read by this proof and
    /// still uses.
    #[inline]
    pub unsafe fn new(lock: &'a BiasedLock) -> Self {
        Self(Of::new(lock))
    }
}

impl Sole<'_> {
    /// # Safety
    /// As long as the proof lives, no other thread reads or changes the state that it is used for.
    #[inline]
    pub unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

impl Owner<'_> {
    #[inline]
    pub fn change(&self) -> Change<'_> {
        Change(Of::new(self.lock()))
    }

    #[inline]
    pub fn look(&self) -> Look<'_> {
        Look(Of::new(self.lock()))
    }
}

impl Visitor<'_> {
    #[inline]
    pub fn look(&self) -> Look<'_> {
        Look(Of::new(self.lock()))
    }
}

/// Enough to read: no other thread changes the state.
pub trait Reads: Copy {
    /// Whether the proof is about this lock. Always true in release builds, and of a `Sole`.
    fn is_of(self, lock: &BiasedLock) -> bool;
}

/// Enough to take something out: no other thread even reads the state.
pub trait Exclusive: Reads {}

/// The lock itself is held, by either side: enough for what all objects of one owner share.
pub trait Held: Exclusive {}

/// Enough for every change: `Change`, or `Sole`.
pub trait Changes: Exclusive {}

macro_rules! reads {
    ($($proof:ident),*) => {$(
        impl Reads for $proof<'_> {
            #[inline]
            fn is_of(self, lock: &BiasedLock) -> bool {
                self.0.is_of(lock)
            }
        }
    )*};
}

reads!(Change, Look, Mine);

impl Reads for Sole<'_> {
    #[inline]
    fn is_of(self, _: &BiasedLock) -> bool {
        true
    }
}

impl Exclusive for Change<'_> {}
impl Exclusive for Look<'_> {}
impl Exclusive for Sole<'_> {}
impl Held for Change<'_> {}
impl Held for Look<'_> {}
impl Changes for Change<'_> {}
impl Changes for Sole<'_> {}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_proof_has_no_size_in_release_builds() {
        let size = if cfg!(debug_assertions) { size_of::<usize>() } else { 0 };
        assert_eq!([size_of::<Change<'_>>(), size_of::<Look<'_>>(), size_of::<Mine<'_>>()], [size; 3]);
        assert_eq!(size_of::<Sole<'_>>(), 0);
    }

    #[test]
    fn a_proof_knows_its_lock_in_debug_builds() {
        let (one, other) = (BiasedLock::new(), BiasedLock::new());
        let held = one.owner();
        assert!(held.change().is_of(&one) && held.look().is_of(&one));
        assert_eq!(held.change().is_of(&other), !cfg!(debug_assertions));
        drop(held);
        let held = one.visitor();
        assert!(held.look().is_of(&one));
        assert_eq!(held.look().is_of(&other), !cfg!(debug_assertions));
    }
}
