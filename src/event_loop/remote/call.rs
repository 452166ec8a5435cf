//! A call that another thread asks a loop for.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::{ffi, types::PyTuple};

use crate::py::{Owned, context};

/// A `call_soon_threadsafe` of another thread.
///
/// No object made for the call crosses over: the Handle that the caller got stays with it and shares this record. What does
/// cross, the callback and its arguments, is counted so that either thread may be the last to release it. Nothing but
/// `cancelled` changes after the record is made, so both threads may read it at any time.
pub struct RemoteCall {
    pub callback: Owned,
    args: Args,
    /// None for an empty copy that only this call would see: the loop makes one itself.
    context: Option<Owned>,
    cancelled: AtomicBool,
    /// Where the call was made, in debug mode.
    pub source_traceback: Option<Owned>,
}

// SAFETY: immutable except the atomic; references are only taken from it and released attached (see `Owned`).
unsafe impl Sync for RemoteCall {}

enum Args {
    Inline([Option<Owned>; 2]),
    Tuple(Owned),
}

impl RemoteCall {
    /// `given` says that the caller named the context, so that it must be that very one.
    ///
    /// # Safety
    /// Attached; all objects are alive.
    pub unsafe fn new(
        py: Python<'_>,
        callback: *mut ffi::PyObject,
        args: &[*mut ffi::PyObject],
        context: &Owned,
        given: bool,
        source_traceback: Option<Owned>,
    ) -> PyResult<Self> {
        // SAFETY: promised.
        let send = |object: *mut ffi::PyObject| unsafe { Owned::borrow_for_another_thread(object) };
        let arguments = match *args {
            [] => Args::Inline([None, None]),
            [one] => Args::Inline([Some(send(one)), None]),
            [one, two] => Args::Inline([Some(send(one)), Some(send(two))]),
            _ => {
                // SAFETY: alive (the caller's promise).
                let items = args.iter().map(|&item| unsafe { Bound::from_borrowed_ptr(py, item) });
                Args::Tuple(send(PyTuple::new(py, items)?.as_ptr()))
            }
        };
        let fresh = !given && context::is_empty(py, context)?;
        let context = (!fresh).then(|| send(context.as_ptr()));
        let cancelled = AtomicBool::new(false);
        Ok(Self { callback: send(callback), args: arguments, context, cancelled, source_traceback })
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn context(&self, py: Python<'_>) -> PyResult<Owned> {
        match &self.context {
            Some(context) => Ok(context.clone_ref(py)),
            None => context::new(py),
        }
    }

    /// Makes the call in `context`: a new reference, or null with an exception set.
    ///
    /// # Safety
    /// Attached; `context` is alive.
    #[inline]
    pub unsafe fn run(&self, context: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: promised; everything else is alive in `self`.
        self.with_args(|args| unsafe {
            context::run_raw(context, || {
                ffi::PyObject_Vectorcall(
                    self.callback.as_ptr(),
                    args.as_ptr(),
                    args.len(),
                    std::ptr::null_mut(),
                )
            })
        })
    }

    /// Shows every Python object that the record holds to the garbage collector. The caller must be the only one.
    pub fn visit<E>(&self, visit: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        visit(&self.callback)?;
        match &self.args {
            Args::Inline(args) => args.iter().flatten().try_for_each(&mut *visit)?,
            Args::Tuple(tuple) => visit(tuple)?,
        }
        self.context.iter().chain(&self.source_traceback).try_for_each(visit)
    }

    pub fn args_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.with_args(|args| {
            // SAFETY: alive in `self`.
            let items = args.iter().map(|&item| unsafe { Bound::from_borrowed_ptr(py, item) });
            PyTuple::new(py, items)
        })
    }

    /// Hands the arguments out as a slice of pointers, borrowed for the call.
    pub fn with_args<R>(&self, f: impl FnOnce(&[*mut ffi::PyObject]) -> R) -> R {
        match &self.args {
            Args::Inline([one, two]) => {
                let pointer =
                    |argument: &Option<Owned>| argument.as_ref().map_or(std::ptr::null_mut(), Owned::as_ptr);
                let count = one.is_some() as usize + two.is_some() as usize;
                f(&[pointer(one), pointer(two)][..count])
            }
            // SAFETY: a tuple of ours, alive as long as `self`; its items are consecutive.
            Args::Tuple(tuple) => unsafe {
                let count = ffi::PyTuple_GET_SIZE(tuple.as_ptr());
                let items: Vec<_> =
                    (0..count).map(|index| ffi::PyTuple_GET_ITEM(tuple.as_ptr(), index)).collect();
                f(&items)
            },
        }
    }
}
