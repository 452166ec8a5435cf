//! Awaitables made per call: raw objects that to Python are coroutines, with `send`, `throw`, `close` and `am_send`.
//!
//! What one does is said by an [`Awaitable`]; here is what all kinds have in common as Python objects. Nothing happens before the
//! first step. A result is returned, not raised, wherever the caller takes it so. One that is over refuses to be awaited again.
//!
//! One thread at a time may step one, as a coroutine: the holder of its [`Turn`]. Others are refused. A thread that only [reads](Type::look)
//! it does not keep others from stepping it: the read is short, and a step waits for its end.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering};
use std::{mem, ptr};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::class::{Class, InPlace, Object, Visit};
use super::errors::{end_with, raise_the_end, thrown};
use super::{Owned, raw};

/// A kind of awaitable. The value itself is what never changes in one, so that any thread may read it.
pub trait Awaitable: Sized + 'static {
    /// What changes from step to step. The default is the state of one that is over: returned, raised or closed.
    type State: Default;

    /// From where it stopped to where it has to wait, or to its end.
    fn step(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<Step>;

    /// Ends it: it waits no more and releases all its references.
    fn close(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<()>;

    /// Raises an exception where it waits. That ends it, unless it awaits what may catch it.
    fn throw(turn: &mut Turn<'_, Self>, py: Python<'_>, error: PyErr) -> PyResult<Step> {
        Self::close(turn, py)?;
        Err(error)
    }

    /// Whether stepping it keeps the rule of [`raw::enter_hot`].
    #[inline]
    fn is_hot(&self) -> bool {
        true
    }

    /// Whether one that is dropped in this state has to be ended first.
    fn is_unfinished(state: &Self::State) -> bool;

    /// The type of the kind.
    fn type_of() -> &'static Type<Self>;

    /// Ends one without references.
    fn abandon(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<()>;

    /// Shows every Python object to the collector, which has stopped all threads.
    fn visit(&self, state: &Self::State, see: &mut dyn FnMut(*mut ffi::PyObject));
}

/// How a step ended that raised nothing.
pub enum Step {
    Yield(Owned),
    Return(Owned),
}

impl Step {
    /// As `tp_iternext` has it.
    #[inline]
    fn into_next(self, py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
        match self {
            Step::Yield(value) => Ok(value.into_ptr()),
            Step::Return(value) => end_with(py, value),
        }
    }
}

/// What awaiting one raises that is over.
#[cold]
pub fn already_awaited() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

/// It is not in use.
const FREE: u8 = 0;
const STEPPED: u8 = 1;
/// For a few instructions, none of which calls Python.
const LOOKED_AT: u8 = 2;

#[repr(C)]
pub struct Native<T: Awaitable> {
    header: ffi::PyObject,
    used: AtomicU8,
    fixed: T,
    /// The thread that changed `used` from `FREE` is the only one to touch it; the collector reads it with all threads stopped.
    state: UnsafeCell<T::State>,
}

/// The right to step an awaitable, as long as it lives.
pub struct Turn<'a, T: Awaitable>(&'a Native<T>);

impl<'a, T: Awaitable> Turn<'a, T> {
    /// # Safety
    /// `object` is an awaitable of the kind, alive longer than the result.
    #[inline]
    unsafe fn take(object: *mut ffi::PyObject) -> PyResult<Self> {
        // SAFETY: promised.
        let object = unsafe { &*object.cast::<Native<T>>() };
        loop {
            // Acquire: pairs with the Release of its previous user.
            match object.used.compare_exchange(FREE, STEPPED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Self(object)),
                Err(LOOKED_AT) => std::hint::spin_loop(),
                Err(_) => return Err(PyValueError::new_err("coroutine already executing")),
            }
        }
    }

    /// What never changes.
    #[inline]
    pub fn fixed(&self) -> &'a T {
        &self.0.fixed
    }

    /// What changes. The reference must end before Python is called, a decref included: the collector looks at it.
    #[inline]
    pub fn state(&mut self) -> &mut T::State {
        // SAFETY: the holder of the turn is the only one to use it, and the borrow of the turn allows one reference at a time.
        unsafe { &mut *self.0.state.get() }
    }

    /// Takes the state out, and leaves the one of an awaitable that is over.
    #[inline]
    pub fn take_state(&mut self) -> T::State {
        mem::take(self.state())
    }
}

impl<T: Awaitable> Drop for Turn<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: its next user sees what this one did.
        self.0.used.store(FREE, Ordering::Release);
    }
}

/// The Python type of a kind: made once by the module's init, never freed.
pub struct Type<T: Awaitable>(Class<Native<T>>);

// SAFETY: the struct begins with the header.
unsafe impl<T: Awaitable> Object for Native<T> {
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &T::type_of().0
    }

    fn visit(&self, see: &mut Visit) {
        // SAFETY: the collector has stopped all threads, and no reference to the state lives while Python is called. A kind shows
        // what it holds.
        unsafe { self.fixed.visit(&*self.state.get(), &mut |reference| see.pointer(reference)) };
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: there is no other reference, so no thread steps it.
        mem::take(unsafe { &mut *Self::of(object).state.get() })
    }

    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: dropped once, when the object goes.
        unsafe {
            let whole = object.cast::<Self>();
            (InPlace::new(&raw mut (*whole).state), InPlace::new(&raw mut (*whole).fixed))
        }
    }

    fn is_unfinished(&self) -> bool {
        // SAFETY: there is no other reference.
        T::is_unfinished(unsafe { &*self.state.get() })
    }

    unsafe fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
        // SAFETY: an awaitable of the kind, which the caller holds.
        T::abandon(&mut unsafe { Turn::take(object.as_ptr()) }?, object.py())
    }
}

impl<T: Awaitable> Type<T> {
    pub const fn new() -> Self {
        Self(Class::new())
    }

    /// Makes the type. `slots`, `getset`: what it has beyond others.
    pub fn init(
        &self,
        module: &Bound<'_, PyModule>,
        name: &'static CStr,
        slots: Vec<(c_int, *mut c_void)>,
        getset: Vec<ffi::PyGetSetDef>,
    ) -> PyResult<()> {
        let common = [
            (ffi::Py_am_await, ffi::PyObject_SelfIter as *mut c_void),
            (raw::AM_SEND, am_send::<T> as *mut c_void),
        ];
        let spec = raw::TypeSpec {
            name,
            basicsize: size_of::<Native<T>>() as c_int,
            flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
            slots: common.into_iter().chain(slots).collect(),
            methods: vec![
                raw::one_arg(c"send", send::<T>, c"Step it; what is sent does not matter."),
                raw::method(
                    c"throw",
                    ffi::PyMethodDefPointer { PyCFunctionFast: throw::<T> },
                    ffi::METH_FASTCALL,
                    c"Raise an exception where it waits.",
                ),
                raw::no_args(c"close", close::<T>, c"End it."),
            ],
            getset,
            members: Vec::new(),
        };
        self.0.init(module, spec, None)?;
        // SAFETY: our own type, not shared yet. `await` wants an iterator; filled in now, `__next__` is not an attribute of it.
        unsafe { (*self.0.native()).tp_iternext = Some(next::<T>) };
        Ok(())
    }

    /// A new awaitable.
    #[inline]
    pub fn make(&self, py: Python<'_>, fixed: T, state: T::State) -> PyResult<Owned> {
        // SAFETY: our own type; the object is complete before other code sees it, the collector included.
        unsafe {
            let object = self.0.allocate(py)?;
            let whole = object.as_ptr().cast::<Native<T>>();
            ptr::write(&raw mut (*whole).used, AtomicU8::new(FREE));
            ptr::write(&raw mut (*whole).fixed, fixed);
            ptr::write(&raw mut (*whole).state, UnsafeCell::new(state));
            Ok(object)
        }
    }

    /// What never changes in one.
    ///
    /// # Safety
    /// `object` is an awaitable of the type, and alive longer than the result is used.
    #[inline]
    pub unsafe fn fixed<'a>(&self, object: *mut ffi::PyObject) -> &'a T {
        // SAFETY: promised.
        unsafe { &(*object.cast::<Native<T>>()).fixed }
    }

    /// Reads the state between two steps, without calling Python; None while it is in use.
    ///
    /// # Safety
    /// `object` is an awaitable of the type, and alive.
    pub unsafe fn look<R>(&self, object: *mut ffi::PyObject, look: impl FnOnce(&T::State) -> R) -> Option<R> {
        // SAFETY: promised.
        let object = unsafe { &*object.cast::<Native<T>>() };
        object.used.compare_exchange(FREE, LOOKED_AT, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: it is kept from being stepped until the store below, which pairs with the Acquire of the next step.
        let seen = look(unsafe { &*object.state.get() });
        object.used.store(FREE, Ordering::Release);
        Some(seen)
    }

    /// Whether it is being stepped now.
    ///
    /// # Safety
    /// `object` is an awaitable of the type, and alive.
    pub unsafe fn is_stepped(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: promised.
        unsafe { (*object.cast::<Native<T>>()).used.load(Ordering::Relaxed) == STEPPED }
    }
}

/// Makes a step.
///
/// # Safety
/// Attached; `object` is an awaitable of the kind, and alive.
#[inline]
unsafe fn step<T: Awaitable>(object: *mut ffi::PyObject, py: Python<'_>) -> PyResult<Step> {
    // SAFETY: promised.
    T::step(&mut unsafe { Turn::take(object) }?, py)
}

/// Enters Rust for a step, in the way that the awaitable allows.
///
/// # Safety
/// As for [`step`].
#[inline]
unsafe fn enter<T: Awaitable>(
    object: *mut ffi::PyObject,
    body: impl FnOnce(Python<'_>) -> PyResult<*mut ffi::PyObject>,
) -> *mut ffi::PyObject {
    // SAFETY: promised; the steps of a hot one keep the rule.
    unsafe {
        if (*object.cast::<Native<T>>()).fixed.is_hot() { raw::enter_hot(body) } else { raw::enter(body) }
    }
}

unsafe extern "C" fn am_send<T: Awaitable>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let mut returned = false;
    // SAFETY: called by Python, attached, with an awaitable and where to put the result.
    let value = unsafe {
        enter::<T>(object, |py| {
            Ok(match step::<T>(object, py)? {
                Step::Yield(value) => value.into_ptr(),
                Step::Return(value) => {
                    returned = true;
                    value.into_ptr()
                }
            })
        })
    };
    // SAFETY: the caller's promise.
    unsafe { *result = value };
    match (value.is_null(), returned) {
        (true, _) => ffi::PySendResult::PYGEN_ERROR,
        (false, true) => ffi::PySendResult::PYGEN_RETURN,
        (false, false) => ffi::PySendResult::PYGEN_NEXT,
    }
}

/// What `await` calls: what is yielded; null for a return, with StopIteration set unless the result is None.
unsafe extern "C" fn next<T: Awaitable>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an awaitable.
    unsafe { enter::<T>(object, |py| step::<T>(object, py)?.into_next(py)) }
}

unsafe extern "C" fn send<T: Awaitable>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an awaitable.
    unsafe { raise_the_end(raw::enter(|py| step::<T>(object, py)?.into_next(py))) }
}

/// `throw(exception)`, or the deprecated `throw(type, value, traceback)`.
unsafe extern "C" fn throw<T: Awaitable>(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an awaitable and `nargs` arguments.
    unsafe {
        raise_the_end(raw::enter(|py| {
            let error = thrown(py, args, nargs)?;
            T::throw(&mut Turn::take(object)?, py, error)?.into_next(py)
        }))
    }
}

unsafe extern "C" fn close<T: Awaitable>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an awaitable.
    unsafe { raw::enter(|py| T::close(&mut Turn::take(object)?, py).map(|()| raw::none(py))) }
}
