//! The object of Handle and TimerHandle: one C struct for both types.
//!
//! It is made and run on the loop's thread; one made by `call_soon_threadsafe` stays with its
//! caller, and a record without Python object of its own goes to the loop (see `remote`). Its fields may be touched by the holder of the claim on the
//! loop; other threads see only `state` (atomic) and the context (set once, never replaced while another thread holds
//! the handle). When the only reference left is the loop's own, the object is used again for the next callback.

use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi};

use crate::event_loop::EventLoop;
use crate::event_loop::remote::Record;
use crate::event_loop::reuse::Spare;
use crate::py::class::{Class, Object, Visit};
use crate::py::{Owned, context, panic, raw};
use crate::sync::quiet;

/// Set when cancelled.
const CANCELLED: u8 = 1;
/// Set while its callback runs: cancelling then must leave the callback and its arguments alone.
const RUNNING: u8 = 2;
/// Set while a timer is in the deadline queue.
const SCHEDULED: u8 = 4;

/// Takes the `RUNNING` mark away when dropped.
struct Running<'a>(&'a AtomicU8);

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_and(!RUNNING, Ordering::Relaxed);
    }
}

/// How many arguments are kept in the object itself; more go into a tuple.
const INLINE_ARGS: usize = 2;
/// `nargs` of a handle whose arguments are a tuple in `args[0]`.
const IN_TUPLE: u8 = u8::MAX;

#[repr(C)]
pub struct Handle {
    header: ffi::PyObject,
    weaklist: *mut ffi::PyObject,
    /// The loop; a strong reference that stays when the handle is used again.
    pub(super) event_loop: *mut ffi::PyObject,
    pub(super) callback: *mut ffi::PyObject,
    args: [*mut ffi::PyObject; INLINE_ARGS],
    pub(super) context: *mut ffi::PyObject,
    /// Where it was made, in debug mode.
    pub(super) source_traceback: *mut ffi::PyObject,
    /// A timer's deadline in seconds of the loop's clock.
    pub(super) when: f64,
    /// For a call sent to a loop that runs in another thread: what was sent. It takes the place of `callback` and
    /// `args`, is set before anybody sees the handle, and stays.
    remote: Option<Record>,
    state: AtomicU8,
    nargs: u8,
}

/// A strong reference to a Handle or TimerHandle.
pub struct HandleRef(Owned);

/// What a cancelled handle referred to; releases it when dropped, which may run any code: not under a claim.
#[must_use]
pub struct Released([*mut ffi::PyObject; 1 + INLINE_ARGS]);

impl Released {
    const NOTHING: Self = Self([ptr::null_mut(); 1 + INLINE_ARGS]);

    /// With one reference, or null.
    fn one(object: *mut ffi::PyObject) -> Self {
        let mut objects = [ptr::null_mut(); 1 + INLINE_ARGS];
        objects[0] = object;
        Self(objects)
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        for object in self.0 {
            if !object.is_null() {
                quiet::check_over();
                // SAFETY: an owned reference; `cancel` is called attached.
                unsafe { ffi::Py_DECREF(object) };
            }
        }
    }
}

pub(super) static HANDLE: Class<Handle> = Class::new();
pub(super) static TIMER: Class<Handle> = Class::new();

// SAFETY: the struct begins with the header.
unsafe impl Object for Handle {
    fn class() -> &'static Class<Self> {
        &HANDLE
    }

    fn visit(&self, see: &mut Visit) {
        let fields =
            [self.event_loop, self.callback, self.args[0], self.args[1], self.context, self.source_traceback];
        // SAFETY: the handle's own references, or null.
        fields.into_iter().for_each(|field| unsafe { see.pointer(field) });
        // What was sent to another thread, once that thread is done with it: until then the record is the queue's to show, and
        // each reference may be shown once only.
        if let Some(record) = self.remote.as_ref().filter(|record| !record.is_shared()) {
            let _ = record.visit(&mut see.see());
        }
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        let handle = object.cast::<Handle>();
        // SAFETY: no other thread has it.
        unsafe {
            (take_fields(handle), Released::one(ptr::replace(&raw mut (*handle).event_loop, ptr::null_mut())))
        }
    }

    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: as above.
        unsafe { Self::take(object) }
    }
}

/// Whether a Handle is a timer.
pub fn is_timer(object: *mut ffi::PyObject) -> bool {
    // SAFETY: alive in the caller's hands.
    unsafe { TIMER.is_exact(object) }
}

impl Handle {
    /// The handle behind `object`, if it is one.
    pub fn from_object<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a Handle> {
        // SAFETY: an exact or derived instance of our type has our layout.
        unsafe { HANDLE.is_instance(object.as_ptr()).then(|| &*object.as_ptr().cast::<Handle>()) }
    }

    #[inline]
    pub fn is_cancelled(&self) -> bool {
        if let Some(remote) = &self.remote {
            return remote.is_cancelled();
        }
        self.state.load(Ordering::Relaxed) & CANCELLED != 0
    }

    pub fn is_scheduled(&self) -> bool {
        self.state.load(Ordering::Relaxed) & SCHEDULED != 0
    }

    /// Whether its callback is its own, to be looked at under the loop's claim only.
    pub fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// What it calls and with what, or None once cancelled. References are taken under the loop's claim, so that a
    /// cancellation in another thread can't release them under us. RuntimeError while another thread runs the loop.
    pub fn target<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>> {
        if let Some(remote) = &self.remote {
            if self.is_cancelled() {
                return Ok(None);
            }
            return Ok(Some((remote.callback.bind(py).to_owned(), remote.args_tuple(py)?)));
        }
        let object = self.event_loop;
        if object.is_null() {
            return Ok(None); // Being collected.
        }
        // SAFETY: the handle holds the loop; the references are taken under its claim.
        let taken = unsafe {
            let event_loop = Borrowed::from_ptr(py, object).cast_unchecked::<EventLoop>();
            event_loop.get().with(py, |_| {
                let own = |object: *mut ffi::PyObject| (!object.is_null()).then(|| Owned::borrow(object));
                (own(self.callback), self.args.map(own), self.nargs)
            })?
        };
        let (Some(callback), args, nargs) = taken else { return Ok(None) };
        let [first, second] = args.map(|argument| argument.map(|argument| argument.into_bound(py)));
        let args = match (nargs, first) {
            (IN_TUPLE, Some(tuple)) => tuple.cast_into()?,
            (_, first) => PyTuple::new(py, first.into_iter().chain(second).collect::<Vec<_>>())?,
        };
        Ok(Some((callback.into_bound(py), args)))
    }
}

/// The references of a handle, except the loop; released when dropped.
struct Fields {
    objects: [*mut ffi::PyObject; 3 + INLINE_ARGS],
    _remote: Option<Record>,
}

/// Empties a handle's fields.
///
/// # Safety
/// Attached, and no other thread touches the handle's fields now.
#[inline]
unsafe fn take_fields(handle: *mut Handle) -> Fields {
    // SAFETY: promised; each pointer is an owned reference or null and is taken exactly once.
    unsafe {
        let take = |place: *mut *mut ffi::PyObject| ptr::replace(place, ptr::null_mut());
        let args = ptr::replace(&mut (*handle).args, [ptr::null_mut(); INLINE_ARGS]);
        (*handle).nargs = 0;
        Fields {
            objects: [
                take(&mut (*handle).callback),
                take(&mut (*handle).context),
                take(&mut (*handle).source_traceback),
                args[0],
                args[1],
            ],
            _remote: (*handle).remote.take(),
        }
    }
}

impl Drop for Fields {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: owned references or null, taken from a handle by an attached thread, which this still is.
        unsafe {
            for object in self.objects {
                ffi::Py_XDECREF(object);
            }
        }
    }
}

impl HandleRef {
    /// # Safety
    /// `object` is a Handle.
    pub unsafe fn from_owned(object: Owned) -> Self {
        Self(object)
    }

    #[inline]
    pub fn as_object(&self) -> &Owned {
        &self.0
    }

    #[inline]
    fn raw(&self) -> *mut Handle {
        self.0.as_ptr().cast()
    }

    #[inline]
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: alive; the state is atomic.
        unsafe { (*self.raw()).is_cancelled() }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    pub fn into_object(self) -> Owned {
        self.0
    }

    /// A new handle, or `reuse` filled again. `args` and `callback` are borrowed; `context` is given.
    ///
    /// # Safety
    /// Attached; all objects are alive; `reuse` came from the free list of the same loop.
    pub unsafe fn make(
        py: Python<'_>,
        reuse: Option<HandleRef>,
        event_loop: *mut ffi::PyObject,
        callback: *mut ffi::PyObject,
        args: &[*mut ffi::PyObject],
        context: Owned,
    ) -> PyResult<Self> {
        let handle = match reuse {
            Some(handle) => handle,
            // SAFETY: the caller's promise.
            None => unsafe { Self::allocate(py, &HANDLE, event_loop)? },
        };
        // SAFETY: the handle is ours alone until it is returned.
        unsafe { handle.fill(py, callback, args, context)? };
        Ok(handle)
    }

    /// As [`make`](Self::make), for a timer due at `when`.
    ///
    /// # Safety
    /// As for [`make`](Self::make).
    pub unsafe fn make_timer(
        py: Python<'_>,
        reuse: Option<HandleRef>,
        when: f64,
        event_loop: *mut ffi::PyObject,
        callback: *mut ffi::PyObject,
        args: &[*mut ffi::PyObject],
        context: Owned,
    ) -> PyResult<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let handle = match reuse {
                Some(handle) => handle,
                None => Self::allocate(py, &TIMER, event_loop)?,
            };
            handle.fill(py, callback, args, context)?;
            (*handle.raw()).when = when;
            (*handle.raw()).state.store(SCHEDULED, Ordering::Relaxed);
            Ok(handle)
        }
    }

    unsafe fn allocate(
        py: Python<'_>,
        class: &Class<Handle>,
        event_loop: *mut ffi::PyObject,
    ) -> PyResult<Self> {
        // SAFETY: alive; zeroed fields are empty ones.
        unsafe {
            let object = class.allocate(py)?;
            ffi::Py_INCREF(event_loop);
            (*object.as_ptr().cast::<Handle>()).event_loop = event_loop;
            Ok(Self(object))
        }
    }

    #[inline]
    unsafe fn fill(
        &self,
        py: Python<'_>,
        callback: *mut ffi::PyObject,
        args: &[*mut ffi::PyObject],
        context: Owned,
    ) -> PyResult<()> {
        let handle = self.raw();
        // SAFETY: the handle is not shared yet and its fields are empty; every object is alive.
        unsafe {
            ffi::Py_INCREF(callback);
            (*handle).callback = callback;
            (*handle).context = context.into_ptr();
            (*handle).state.store(0, Ordering::Relaxed);
            if args.len() <= INLINE_ARGS {
                (*handle).nargs = args.len() as u8;
                for (slot, &arg) in (*handle).args.iter_mut().zip(args) {
                    ffi::Py_INCREF(arg);
                    *slot = arg;
                }
            } else {
                let tuple = ffi::PyTuple_New(args.len() as isize);
                if tuple.is_null() {
                    return Err(PyErr::fetch(py));
                }
                for (index, &arg) in args.iter().enumerate() {
                    ffi::Py_INCREF(arg);
                    ffi::PyTuple_SetItem(tuple, index as isize, arg);
                }
                (*handle).args[0] = tuple;
                (*handle).nargs = IN_TUPLE;
            }
        }
        Ok(())
    }

    /// A handle for the caller of a call that is sent to another thread.
    ///
    /// # Safety
    /// Attached; the loop is alive.
    pub unsafe fn make_remote(
        py: Python<'_>,
        event_loop: *mut ffi::PyObject,
        remote: Record,
        context: Owned,
    ) -> PyResult<Self> {
        // SAFETY: promised; the handle is ours alone until it is returned.
        unsafe {
            let handle = Self::allocate(py, &HANDLE, event_loop)?;
            (*handle.raw()).context = context.into_ptr();
            (*handle.raw()).remote = Some(remote);
            Ok(handle)
        }
    }

    /// Notes where the handle was made: `depth` frames up from the caller.
    pub fn set_traceback(&self, traceback: Owned) {
        // SAFETY: called while the handle is not shared yet.
        unsafe { (*self.raw()).source_traceback = traceback.into_ptr() };
    }

    /// Runs the callback in its context. A null result means that it raised, as in C.
    ///
    /// # Safety
    /// Attached, on the loop's thread, with the claim.
    #[inline]
    pub unsafe fn call(&self) -> *mut ffi::PyObject {
        let handle = self.raw();
        // SAFETY: alive; an exception may be set.
        unsafe {
            if (*handle).callback.is_null() {
                ffi::PyErr_SetString(ffi::PyExc_RuntimeError, c"the handle was cancelled".as_ptr());
                return ptr::null_mut();
            }
        }
        // SAFETY: the RUNNING mark keeps `cancel` from releasing the callback and arguments under us, and our
        // reference keeps the handle; see the module.
        unsafe {
            let state = (*handle).state.load(Ordering::Relaxed);
            (*handle).state.store(state | RUNNING, Ordering::Relaxed);
            let _running = (state & RUNNING == 0).then(|| Running(&(*handle).state));
            context::run_raw((*handle).context, || {
                panic::point("call");
                if (*handle).nargs == IN_TUPLE {
                    ffi::PyObject_Call((*handle).callback, (*handle).args[0], ptr::null_mut())
                } else {
                    let args = [ptr::null_mut(), (*handle).args[0], (*handle).args[1]];
                    ffi::PyObject_Vectorcall(
                        (*handle).callback,
                        args.as_ptr().add(1),
                        (*handle).nargs as usize | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                        ptr::null_mut(),
                    )
                }
            })
        }
    }

    /// Marks cancelled; true if it was not yet. What it refers to is returned for the caller to drop
    /// once the claim is over, unless it is running.
    ///
    /// # Safety
    /// With the claim.
    pub unsafe fn cancel(&self) -> (bool, Released) {
        let handle = self.raw();
        // SAFETY: claimed.
        unsafe {
            let state = (*handle).state.fetch_or(CANCELLED, Ordering::Relaxed);
            if state & CANCELLED != 0 {
                return (false, Released::NOTHING);
            }
            if state & RUNNING != 0 {
                return (true, Released::NOTHING);
            }
            let callback = ptr::replace(&mut (*handle).callback, ptr::null_mut());
            let args = ptr::replace(&mut (*handle).args, [ptr::null_mut(); INLINE_ARGS]);
            (*handle).nargs = 0;
            (true, Released([callback, args[0], args[1]]))
        }
    }

    pub fn set_unscheduled(&self) {
        // SAFETY: alive; atomic.
        unsafe { (*self.raw()).state.fetch_and(!SCHEDULED, Ordering::Relaxed) };
    }

    /// Empties the handle for another use, if the loop's is the only reference.
    #[inline]
    pub fn recycle(self, _py: Python<'_>) -> Option<Spare> {
        // SAFETY: alive; no other thread can touch the fields while they are taken out.
        unsafe {
            if !raw::is_nobody_elses(self.0.as_ptr()) {
                return None;
            }
            // Runs foreign code, which may find the handle.
            drop(take_fields(self.raw()));
        }
        Some(Spare::new(self.0))
    }

    /// A handle for reuse, if there is one without another reference.
    ///
    /// # Safety
    /// `spare` is a handle that was recycled.
    #[inline]
    pub unsafe fn again(py: Python<'_>, spare: Option<Spare>) -> Option<Self> {
        spare?.again(py).map(Self)
    }

    #[inline]
    pub fn get(&self) -> &Handle {
        // SAFETY: alive as long as `self`.
        unsafe { &*self.raw() }
    }
}

/// Cancels a handle for its owner: `handle.cancel()`.
pub fn cancel(py: Python<'_>, handle: &HandleRef) -> PyResult<()> {
    let object = handle.get().event_loop;
    if object.is_null() {
        return Ok(()); // Being collected.
    }
    if let Some(remote) = &handle.get().remote {
        // Sent to another thread: nothing of the loop is touched, so any thread may.
        remote.cancel();
        return Ok(());
    }
    // SAFETY: the handle holds the loop.
    let event_loop = unsafe { Borrowed::from_ptr(py, object).cast_unchecked::<EventLoop>() };
    let released = event_loop.get().with(py, |core| {
        // SAFETY: `with` holds the claim.
        let (fresh, released) = unsafe { handle.cancel() };
        let mut dead = Vec::new();
        if fresh && handle.get().is_scheduled() && core.timers.note_cancelled() {
            dead = core.timers.take_cancelled(HandleRef::is_cancelled);
            dead.iter().for_each(HandleRef::set_unscheduled);
        }
        (released, dead)
    })?;
    let (released, dead) = released;
    drop(released);
    for timer in dead {
        if let Some(timer) = timer.recycle(py) {
            drop(event_loop.get().with(py, |core| core.keep(timer))?);
        }
    }
    Ok(())
}
