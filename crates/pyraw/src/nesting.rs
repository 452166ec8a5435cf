//! How deep deallocations of native objects nest.

use std::cell::{Cell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::ptr;

use pyo3::ffi;

/// How deep deallocations may nest before the rest is put off. Small threads have stacks of 256 KiB, and between two of ours there
/// may be others.
const DEEPEST: u32 = 16;

/// Which deallocations a thread is in, and which it has put off. A long chain (each object the last to refer to the next) would
/// use up the stack, so that what is too deep waits for the outermost to be done. CPython does the same, later, and on 3.13 by
/// counting to 10,000 on any stack. Memory for the list is the one thing it needs; without it, it goes deeper.
struct Nesting {
    depth: Cell<u32>,
    /// Has no destructor, so that it can be used until the thread is gone; empty whenever nothing is deallocated.
    later: UnsafeCell<ManuallyDrop<Vec<PutOff>>>,
}

/// An object whose last reference is gone, and what goes on with it.
#[derive(Clone, Copy)]
struct PutOff {
    object: *mut ffi::PyObject,
    go: unsafe fn(*mut ffi::PyObject),
}

thread_local! {
    static NESTING: Nesting = const {
        Nesting { depth: Cell::new(0), later: UnsafeCell::new(ManuallyDrop::new(Vec::new())) }
    };
}

impl Nesting {
    /// False if there is no memory for it.
    #[cold]
    unsafe fn put_off(&self, put_off: PutOff) -> bool {
        // SAFETY: of this thread only, and nothing here calls out.
        let later = unsafe { &mut *self.later.get() };
        if later.try_reserve(1).is_err() {
            return false;
        }
        // On free-threaded builds an object whose finaliser was called looks alive to its own thread. It must look dead to
        // every holder of a weak reference to it meanwhile.
        #[cfg(Py_GIL_DISABLED)]
        // SAFETY: its count is zero and this thread is the one to free it; these are the marks of an object whose counts were
        // merged to nothing.
        unsafe {
            const MERGED: isize = 3;
            (*put_off.object).ob_tid = 0;
            (*put_off.object).ob_ref_shared.store(MERGED, std::sync::atomic::Ordering::Relaxed);
        }
        later.push(put_off);
        true
    }

    /// Goes on with what was put off.
    #[inline]
    unsafe fn catch_up(&self) {
        // SAFETY: of this thread only; the reference ends with the statement.
        if !unsafe { &*self.later.get() }.is_empty() {
            // SAFETY: as for this.
            unsafe { self.catch_up_slowly() };
        }
    }

    #[cold]
    unsafe fn catch_up_slowly(&self) {
        // SAFETY: as above; no reference lives while an object goes, which may put off others.
        unsafe {
            while let Some(PutOff { object, go }) = (*self.later.get()).pop() {
                go(object);
            }
            ManuallyDrop::drop(&mut *self.later.get());
            ptr::write(self.later.get(), ManuallyDrop::new(Vec::new()));
        }
    }
}

/// Has an object go: now, or when the outermost deallocation of this thread is done.
///
/// # Safety
/// Attached. `object` is untracked, its last reference is gone, and only `go` touches it again, which frees it.
#[inline]
pub unsafe fn bounded(object: *mut ffi::PyObject, go: unsafe fn(*mut ffi::PyObject)) {
    NESTING.with(|nesting| {
        let depth = nesting.depth.get();
        // SAFETY: promised.
        unsafe {
            if depth >= DEEPEST && nesting.put_off(PutOff { object, go }) {
                return;
            }
            nesting.depth.set(depth + 1);
            go(object);
            if depth == 0 {
                nesting.catch_up();
            }
        }
        nesting.depth.set(depth);
    });
}
