//! Calls that may block, and the proof that no other thread waits meanwhile.
//!
//! A collection, and anything else that stops every Python thread, waits for the threads that are attached to the interpreter. One that
//! is in a system call meanwhile makes the whole process wait. So each function of `sys` either never blocks, whatever its
//! descriptor is set to, or takes a [`Detached`], which is made for the time in which the thread is detached. A test has the list.
//!
//! This layer does not know Python: the layer above sets the function that detaches. Threads that were never attached just continue.
//!
//! Where other threads may wait for this one *attached* (for a claim of a loop that does not run), it must not detach: it could not attach again
//! during a collection, and the waiting threads would never let that begin. It marks this with [`stay`].

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Proof that the calling thread is not attached to an interpreter.
pub struct Detached(PhantomData<*mut ()>);

impl Detached {
    /// # Safety
    /// The calling thread is not attached for as long as this lives.
    pub unsafe fn promised() -> Self {
        Self(PhantomData)
    }
}

/// Runs its argument with the calling thread detached; attached again afterwards if it was before, also when that panics.
type Hook = fn(&mut dyn FnMut());

static HOOK: OnceLock<Hook> = OnceLock::new();

thread_local! {
    static STAYS: Cell<u32> = const { Cell::new(0) };
}

/// Sets the function that detaches; called by the module's init.
pub fn set_hook(hook: Hook) {
    let _ = HOOK.set(hook);
}

/// Forbids the calling thread to detach until [`go`].
pub fn stay() {
    STAYS.set(STAYS.get() + 1);
}

pub fn go() {
    STAYS.set(STAYS.get() - 1);
}

/// Whether the calling thread may detach.
pub fn may_detach() -> bool {
    STAYS.get() == 0
}

/// Makes a call that may block. The closure gets nothing of an attached thread's, since that is not `Send`. The caller
/// [may detach](may_detach).
pub fn detached<R: Send>(call: impl FnOnce(&Detached) -> R + Send) -> R {
    debug_assert!(may_detach(), "a call that may block under a claim");
    // SAFETY: the hook detaches; without one nothing is attached yet.
    let token = unsafe { Detached::promised() };
    let Some(hook) = HOOK.get() else { return call(&token) };
    let (mut call, mut result) = (Some(call), None);
    hook(&mut || result = call.take().map(|call| call(&token)));
    result.expect("the hook runs its argument once")
}
