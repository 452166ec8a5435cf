//! A call on its way to another thread's loop, in memory that both share.
//!
//! The memory is Python's: its allocator is made for what one thread allocates and another frees, which the C library's is not. No
//! more is allocated for the way: the mailbox strings records up by the link that each begins with.

use std::mem::{align_of, offset_of, size_of};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::call::RemoteCall;
use crate::sync::mailbox::Link;

/// What every post begins with while it is in a mailbox: its link, and whether it is a record or a letter.
#[repr(C)]
pub struct Tagged {
    link: Link,
    pub(super) is_call: bool,
}

impl Tagged {
    pub fn new(is_call: bool) -> Self {
        Self { link: Link::default(), is_call }
    }
}

#[repr(C)]
struct Inner {
    tagged: Tagged,
    references: AtomicUsize,
    call: RemoteCall,
}

// The mailbox's link stands for the whole, and Python's allocator aligns to this.
const _: () = assert!(offset_of!(Inner, tagged) == 0 && align_of::<Inner>() <= 16);

/// A counted reference to the record of a call; one that is not there is a null pointer. Dropped attached, as what the record holds must be.
#[repr(transparent)]
pub struct Record(NonNull<Inner>);

// SAFETY: the count is atomic, the link is touched by the holder of the record's place in a mailbox, and the call is `Sync`.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

impl Record {
    /// Two references to one record: for the queue, and for the caller's handle.
    pub fn pair(py: Python<'_>, call: RemoteCall) -> PyResult<(Self, Self)> {
        let inner = Self::allocate(py, call, 2)?;
        Ok((Self(inner), Self(inner)))
    }

    /// The only reference to a record.
    pub fn new(py: Python<'_>, call: RemoteCall) -> PyResult<Self> {
        Self::allocate(py, call, 1).map(Self)
    }

    fn allocate(_py: Python<'_>, call: RemoteCall, references: usize) -> PyResult<NonNull<Inner>> {
        // SAFETY: attached; the memory has the size and the alignment, and is filled before anybody sees it.
        unsafe {
            let Some(inner) = NonNull::new(ffi::PyMem_Malloc(size_of::<Inner>()).cast::<Inner>()) else {
                return Err(PyMemoryError::new_err(()));
            };
            let references = AtomicUsize::new(references);
            inner.as_ptr().write(Inner { tagged: Tagged::new(true), references, call });
            Ok(inner)
        }
    }

    /// Whether there are other references. The holder of the only one may rely on it: no other thread can make another.
    pub fn is_shared(&self) -> bool {
        // Acquire: pairs with the Release of those that are gone.
        self.inner().references.load(Ordering::Acquire) > 1
    }

    fn inner(&self) -> &Inner {
        // SAFETY: alive as long as a reference is.
        unsafe { self.0.as_ref() }
    }

    /// Gives the reference to a mailbox.
    pub fn into_tagged(self) -> NonNull<Tagged> {
        let inner = self.0;
        std::mem::forget(self);
        inner.cast()
    }

    /// # Safety
    /// A result of [`into_tagged`](Self::into_tagged), used once.
    pub unsafe fn from_tagged(tagged: NonNull<Tagged>) -> Self {
        Self(tagged.cast())
    }
}

impl Deref for Record {
    type Target = RemoteCall;

    #[inline]
    fn deref(&self) -> &RemoteCall {
        &self.inner().call
    }
}

impl Drop for Record {
    #[inline]
    fn drop(&mut self) {
        // Release: the thread that frees it has seen everything done through this reference.
        if self.inner().references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: this was the last reference; attached, see the type. Any thread may free Python's memory.
            unsafe {
                ptr::drop_in_place(self.0.as_ptr());
                ffi::PyMem_Free(self.0.as_ptr().cast());
            }
        }
    }
}
