//! Reference counts, as CPython keeps them: whether an object has other references, and how to take a reference to one that may be about to be freed.

#[cfg(all(Py_GIL_DISABLED, Py_3_14))]
use std::ffi::c_int;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::weak::has_weak_references;

/// Takes a type's reference count out of the allocation path. Every instance holds a reference to its heap type;
/// with several threads that count is the one cache line they all fight for. On free-threaded 3.13 there is no
/// API for it, so the type is made immortal, as CPython itself does with its static types; 3.14 has a call.
///
/// # Safety
/// `object` is alive and not yet shared with another thread. It is never freed afterwards.
pub unsafe fn share_cheaply(object: *mut ffi::PyObject) {
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    // SAFETY: no other thread sees the object yet; the two stores are what CPython's own immortalisation does.
    unsafe {
        use std::sync::atomic::Ordering;
        (*object).ob_ref_local.store(u32::MAX, Ordering::Relaxed);
        (*object).ob_ref_shared.store(0, Ordering::Relaxed);
    }
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: a live object; the call returns 0 where it does not apply.
    unsafe {
        unsafe extern "C" {
            fn PyUnstable_Object_EnableDeferredRefcount(object: *mut ffi::PyObject) -> c_int;
        }
        PyUnstable_Object_EnableDeferredRefcount(object);
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}

/// Whether the caller holds the only reference, and on free-threaded builds no weak reference was made.
///
/// # Safety
/// `object` is alive; the caller holds a reference.
#[inline]
unsafe fn is_unique(object: *mut ffi::PyObject) -> bool {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: alive. Owned by this thread, counted once here and nowhere else: there is no other reference.
    unsafe {
        use std::sync::atomic::Ordering;
        (*object).ob_tid == thread_tag()
            && (*object).ob_ref_local.load(Ordering::Relaxed) == 1
            && (*object).ob_ref_shared.load(Ordering::Relaxed) == 0
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: alive; the GIL orders the count.
    unsafe {
        ffi::Py_REFCNT(object) == 1
    }
}

/// Whether the caller holds the only reference, and no code can get one except through the collector.
///
/// # Safety
/// `object` is alive, and the caller holds a reference. Attached.
#[inline]
pub unsafe fn is_nobody_elses(object: *mut ffi::PyObject) -> bool {
    // SAFETY: promised. On free-threaded builds a weak reference has left a mark in the counts.
    unsafe { is_unique(object) && (cfg!(Py_GIL_DISABLED) || !has_weak_references(object)) }
}

/// What CPython stores in `ob_tid` of this thread's objects: the thread pointer, which is at a fixed distance from
/// pthread_self() (0 on x86-64).
#[cfg(Py_GIL_DISABLED)]
#[inline]
fn thread_tag() -> usize {
    rawthread::current_id().wrapping_add(TAG_DISTANCE.load(std::sync::atomic::Ordering::Relaxed))
}

#[cfg(Py_GIL_DISABLED)]
static TAG_DISTANCE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Measures the distance on an object just made; called once by the module's init.
pub fn init(py: Python<'_>) {
    #[cfg(Py_GIL_DISABLED)]
    {
        let object = pyo3::types::PyList::empty(py);
        // SAFETY: alive, and this thread's own.
        let tag = unsafe { (*object.as_ptr()).ob_tid };
        let distance = tag.wrapping_sub(rawthread::current_id());
        TAG_DISTANCE.store(distance, std::sync::atomic::Ordering::Relaxed);
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = py;
}

/// Whether the collector has found that nothing refers to the object, and is about to finalise and take it apart. It decides
/// that with every thread stopped, and takes it back so for those that a finaliser saves.
///
/// # Safety
/// Attached; the memory is still the object's, which is of a type that the collector knows.
#[inline]
pub unsafe fn is_garbage(object: *mut ffi::PyObject) -> bool {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: promised; other threads change other bits of the byte by atomic operations.
    unsafe {
        const UNREACHABLE: u8 = 4;
        let bits = std::sync::atomic::AtomicU8::from_ptr(&raw mut (*object).ob_gc_bits);
        bits.load(std::sync::atomic::Ordering::Relaxed) & UNREACHABLE != 0
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: promised; a tracked object has two words for the collector before it, the second of which marks what is being
    // collected. With the GIL held the mark is seen by the collection's own finalisers only.
    unsafe {
        const COLLECTING: usize = 2;
        *object.cast::<usize>().sub(1) & COLLECTING != 0
    }
}

/// Prepares an object just made for [`try_incref`] by other threads than its own.
///
/// # Safety
/// `object` is alive.
#[inline]
pub unsafe fn enable_try_incref(object: *mut ffi::PyObject) {
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    // SAFETY: promised. The lowest bit says that the object may be reached without a reference, as weakly referenced
    // ones are: its last reference is then given up by a compare-exchange.
    unsafe {
        use std::sync::atomic::Ordering;
        const FLAGS: isize = 3;
        let count = &(*object).ob_ref_shared;
        // Any flag serves. Two of them together mean a third thing, so none is added to another.
        let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |shared| {
            (shared & FLAGS == 0).then_some(shared | 1)
        });
    }
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: promised.
    unsafe {
        unsafe extern "C" {
            fn PyUnstable_EnableTryIncRef(object: *mut ffi::PyObject);
        }
        PyUnstable_EnableTryIncRef(object);
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}

/// Takes a reference to an object that may be about to go; false if it is. As for weak references, in CPython's own way.
///
/// # Safety
/// Attached; the memory is still the object's, which the caller ensures, and [`enable_try_incref`] was called when it
/// was made.
#[inline]
pub unsafe fn try_incref(object: *mut ffi::PyObject) -> bool {
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    // SAFETY: promised; the counts are atomic.
    unsafe {
        use std::sync::atomic::Ordering;
        const MERGED: isize = 3;
        let local = (*object).ob_ref_local.load(Ordering::Relaxed);
        if local == u32::MAX {
            return true; // Immortal.
        }
        // A finaliser that did not save the object leaves it to its thread with no references: that one is going.
        if local != 0 && (*object).ob_tid == thread_tag() {
            (*object).ob_ref_local.store(local + 1, Ordering::Relaxed);
            return true;
        }
        let mut shared = (*object).ob_ref_shared.load(Ordering::Relaxed);
        loop {
            if shared == 0 || shared == MERGED {
                return false;
            }
            // AcqRel: pairs with the drop of the last reference.
            let next = shared + 4;
            match (*object).ob_ref_shared.compare_exchange_weak(
                shared,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => shared = now,
            }
        }
    }
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: promised.
    unsafe {
        use std::sync::atomic::Ordering;
        unsafe extern "C" {
            fn PyUnstable_TryIncRef(object: *mut ffi::PyObject) -> c_int;
        }
        // A finaliser that did not save the object leaves it to its thread with no references, which the call takes for alive.
        let left = (*object).ob_ref_local.load(Ordering::Relaxed) == 0 && (*object).ob_tid == thread_tag();
        !left && PyUnstable_TryIncRef(object) != 0
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: promised; the GIL orders the count.
    unsafe {
        if ffi::Py_REFCNT(object) == 0 {
            return false;
        }
        ffi::Py_INCREF(object);
        true
    }
}
