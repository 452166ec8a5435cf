//! The awaitable that a read or a drain is: to Python a coroutine, with `send`, `throw`, `close`.
//!
//! Nothing happens before it is awaited. Then it looks whether it can be done at once; if so its first step is its last. Else it
//! awaits what tells it to look again: the reader's waiter, or the protocol's `_drain_helper`.
//!
//! One thread at a time may step it, as a coroutine: `used` refuses others. Who only looks keeps nobody from stepping it: the look is short, and a
//! step waits for its end.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::reader::{self, Reader};
use super::reads::{Look, Separators, Want};
use super::writer;
use crate::py::errors::{stop_with, thrown};
use crate::py::{Owned, call, imports, raw};

/// What was asked for, as it was asked.
pub enum Ask {
    Read(usize),
    All,
    Exactly(isize),
    /// What `readuntil` was given, None for a line's end.
    Until(Option<Owned>),
    Line,
    NextLine,
    Drain,
}

impl Ask {
    /// As coroutines have it, for messages.
    fn name(&self) -> &'static str {
        match self {
            Ask::Read(_) | Ask::All => "StreamReader.read",
            Ask::Exactly(_) => "StreamReader.readexactly",
            Ask::Until(_) => "StreamReader.readuntil",
            Ask::Line => "StreamReader.readline",
            Ask::NextLine => "StreamReader.__anext__",
            Ask::Drain => "StreamWriter.drain",
        }
    }

    /// What that comes to. Errors are those of the arguments.
    fn begin(&self, py: Python<'_>) -> PyResult<Work> {
        Ok(Work::Read(match self {
            Ask::Read(n) => Want::UpTo(*n),
            Ask::All => Want::All(Vec::new()),
            Ask::Exactly(n) => Want::Exactly(
                usize::try_from(*n)
                    .map_err(|_| PyValueError::new_err("readexactly size can not be less than zero"))?,
            ),
            Ask::Until(Some(separator)) => Want::Until(Separators::of(&separator.bind(py))?),
            Ask::Until(None) => Want::Until(Separators::newline()),
            Ask::Line => Want::Line(Separators::newline()),
            Ask::NextLine => Want::NextLine(Separators::newline()),
            Ask::Drain => return Ok(Work::Drain(writer::Drain::Begin)),
        }))
    }
}

/// What it is about, between two steps.
enum Work {
    Read(Want),
    Drain(writer::Drain),
}

struct State {
    /// The reader, or the writer. None at the end.
    target: Option<Owned>,
    ask: Ask,
    /// None before the first step.
    work: Option<Work>,
    /// What it awaits.
    awaited: Option<Owned>,
}

/// Nobody uses it.
const FREE: u8 = 0;
const STEPPED: u8 = 1;
/// For a few instructions, none of which calls Python.
const LOOKED_AT: u8 = 2;

#[repr(C)]
struct Operation {
    header: ffi::PyObject,
    used: AtomicU8,
    state: UnsafeCell<State>,
}

/// How a step ended that raised nothing.
enum Step {
    Yield(*mut ffi::PyObject),
    Return(Owned),
}

struct Type(*mut ffi::PyTypeObject);
// SAFETY: the type is never freed.
unsafe impl Send for Type {}
// SAFETY: as above.
unsafe impl Sync for Type {}

static TYPE: OnceLock<Type> = OnceLock::new();

/// A new reference to an operation.
///
/// # Safety
/// `target` is a reader, or a writer for a drain, and alive.
#[inline]
pub unsafe fn make(py: Python<'_>, target: *mut ffi::PyObject, ask: Ask) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: our own type; the object is complete before other Python code runs.
    unsafe {
        let kind = TYPE.get().expect("made by the module's init").0;
        let object = Owned::steal_or_err(py, ffi::PyType_GenericAlloc(kind, 0))?;
        let whole = object.as_ptr().cast::<Operation>();
        let state = State { target: Some(Owned::borrow(target)), ask, work: None, awaited: None };
        ptr::write(&raw mut (*whole).used, AtomicU8::new(FREE));
        ptr::write(&raw mut (*whole).state, UnsafeCell::new(state));
        Ok(object.into_ptr())
    }
}

/// The right to step an operation, as long as it lives.
struct Turn<'a>(&'a Operation);

impl<'a> Turn<'a> {
    /// # Safety
    /// `object` is an operation, alive longer than the result.
    unsafe fn take(object: *mut ffi::PyObject) -> PyResult<Self> {
        // SAFETY: promised.
        let operation = unsafe { &*object.cast::<Operation>() };
        loop {
            // Acquire: pairs with the Release of whoever used it before.
            match operation.used.compare_exchange(FREE, STEPPED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Self(operation)),
                Err(LOOKED_AT) => std::hint::spin_loop(),
                Err(_) => return Err(PyValueError::new_err("coroutine already executing")),
            }
        }
    }

    /// What is inside. The reference must end before Python is called: the collector looks at it.
    #[allow(clippy::mut_from_ref)]
    fn state(&self) -> &mut State {
        // SAFETY: whoever has the turn is the only one to use it, and no two references are alive at once.
        unsafe { &mut *self.0.state.get() }
    }

    fn target(&self, py: Python<'_>) -> PyResult<Owned> {
        let target = self.state().target.as_ref().map(|target| target.clone_ref(py));
        target.ok_or_else(|| PyRuntimeError::new_err("cannot reuse already awaited coroutine"))
    }

    fn await_(&self, work: Work, awaited: Owned) {
        let state = self.state();
        state.work = Some(work);
        state.awaited = Some(awaited);
    }

    /// It is over: lets go of everything.
    fn finish(&self) {
        let state = self.state();
        let parts = (state.target.take(), state.work.take(), state.awaited.take());
        drop(parts);
    }

    /// What was awaited is so no more; nor does the reader know of it.
    fn end_wait(&self, target: &Owned) {
        let awaited = self.state().awaited.take();
        if awaited.is_some() && matches!(self.state().work, Some(Work::Read(_))) {
            // SAFETY: the target of a read is a reader.
            unsafe { reader::TYPE.of(target.as_ptr()) }.end_wait();
        }
        drop(awaited);
    }

    fn step(&self, py: Python<'_>) -> PyResult<Step> {
        let target = self.target(py)?;
        let result = self.advance(py, &target);
        if !matches!(result, Ok(Step::Yield(_))) {
            self.finish();
        }
        result
    }

    fn advance(&self, py: Python<'_>, target: &Owned) -> PyResult<Step> {
        let mut first = self.state().work.is_none();
        if first {
            let work = self.state().ask.begin(py)?;
            self.state().work = Some(work);
        }
        loop {
            let awaited = self.state().awaited.as_ref().map(|awaited| awaited.clone_ref(py));
            if let Some(awaited) = awaited {
                match send_none(py, &awaited) {
                    Ok(Step::Return(_)) => self.end_wait(target),
                    Ok(step) => return Ok(step),
                    Err(error) => {
                        self.end_wait(target);
                        return Err(error);
                    }
                }
            }
            // Out of the state meanwhile: it may call Python.
            match self.state().work.take() {
                Some(Work::Read(mut want)) => {
                    // SAFETY: the target of a read is a reader.
                    let reader: &Reader = unsafe { reader::TYPE.of(target.as_ptr()) };
                    match want.look(py, reader, first)? {
                        Look::Ready(bytes) | Look::Unresumed(bytes) => return Ok(Step::Return(bytes)),
                        Look::Raise(failure) => return Err(failure.into_error(py)),
                        Look::Wait => {
                            let waiter = reader.wait(py, want.name())?;
                            let awaited = iterator_of(py, waiter).inspect_err(|_| reader.end_wait())?;
                            self.await_(Work::Read(want), awaited);
                        }
                    }
                }
                Some(Work::Drain(drain)) => match drain.go_on(py, target)? {
                    writer::Next::Done => return Ok(Step::Return(Owned::from(py.None().into_bound(py)))),
                    writer::Next::Sleep => {
                        self.state().work = Some(Work::Drain(writer::Drain::Slept));
                        return Ok(Step::Yield(raw::none(py)));
                    }
                    writer::Next::Await(helper) => {
                        let awaited = iterator_of(py, helper)?;
                        self.await_(Work::Drain(writer::Drain::Helped), awaited);
                    }
                },
                None => return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
            }
            first = false;
        }
    }

    /// `throw`: into what it awaits, if that takes it.
    fn throw(&self, py: Python<'_>, error: PyErr) -> PyResult<Step> {
        let target = self.target(py)?;
        let awaited = self.state().awaited.as_ref().map(|awaited| awaited.clone_ref(py));
        let throw = match &awaited {
            Some(awaited) => awaited.bind(py).getattr_opt("throw")?,
            None => None,
        };
        let Some(throw) = throw else {
            self.end_wait(&target);
            self.finish();
            return Err(error);
        };
        match throw.call1((error.into_value(py),)) {
            Ok(yielded) => Ok(Step::Yield(yielded.into_ptr())),
            Err(error) => {
                self.end_wait(&target);
                if error.is_instance_of::<PyStopIteration>(py) {
                    return self.step(py);
                }
                self.finish();
                Err(error)
            }
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let target = self.state().target.as_ref().map(|target| target.clone_ref(py));
        let Some(target) = target else { return Ok(()) };
        let awaited = self.state().awaited.as_ref().map(|awaited| awaited.clone_ref(py));
        let closed = match &awaited {
            Some(awaited) => match awaited.bind(py).getattr_opt("close") {
                Ok(Some(close)) => close.call0().map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        };
        self.end_wait(&target);
        self.finish();
        closed
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: whoever steps it next sees what this one did.
        self.0.used.store(FREE, Ordering::Release);
    }
}

/// What `await` would step: a coroutine itself, which whoever looks at `cr_await` goes on from.
fn iterator_of(py: Python<'_>, awaitable: Owned) -> PyResult<Owned> {
    // SAFETY: alive; only the type is looked at.
    if unsafe { ffi::PyCoro_CheckExact(awaitable.as_ptr()) } != 0 {
        return Ok(awaitable);
    }
    call::awaiting(py, &awaitable)
}

fn send_none(py: Python<'_>, iterator: &Owned) -> PyResult<Step> {
    let mut result = ptr::null_mut();
    // SAFETY: attached, alive; the result is a new reference but where there is an error.
    unsafe {
        match ffi::PyIter_Send(iterator.as_ptr(), ffi::Py_None(), &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Step::Yield(result)),
            ffi::PySendResult::PYGEN_RETURN => Ok(Step::Return(Owned::steal(result))),
            _ => Err(PyErr::fetch(py)),
        }
    }
}

// ---- the type ------------------------------------------------------------------------------------------

/// Makes the type.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let made = raw::TypeSpec {
        name: c"tokioloop._tokioloop.StreamOperation",
        basicsize: size_of::<Operation>() as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            (ffi::Py_tp_dealloc, dealloc as *mut c_void),
            (ffi::Py_tp_traverse, traverse as *mut c_void),
            (ffi::Py_tp_clear, clear as *mut c_void),
            (ffi::Py_tp_repr, repr as *mut c_void),
            (ffi::Py_am_await, ffi::PyObject_SelfIter as *mut c_void),
            (raw::AM_SEND, send_slot as *mut c_void),
        ],
        methods: vec![
            raw::one_arg(c"send", send, c"Step it; what is sent does not matter."),
            raw::method(
                c"throw",
                ffi::PyMethodDefPointer { PyCFunctionFast: throw },
                ffi::METH_FASTCALL,
                c"Raise an exception where it waits.",
            ),
            raw::no_args(c"close", close, c"End it."),
        ],
        getset: vec![
            raw::getter(c"__name__", get_name, c"The method's name."),
            raw::getter(c"__qualname__", get_qualified_name, c"The method's name with its class."),
            raw::getter(c"cr_await", get_awaited, c"What it awaits, or None."),
            raw::getter(c"cr_running", get_running, c"Whether it is being stepped."),
        ],
        members: Vec::new(),
    }
    .build(module, None)?;
    // SAFETY: our own type, not shared yet. `await` wants an iterator; filled in now, `__next__` is no attribute of it.
    unsafe { (*made).tp_iternext = Some(next) };
    let _ = TYPE.set(Type(made));
    for look_up in [imports::incomplete_read_error, imports::limit_overrun_error] {
        look_up(module.py())?;
    }
    Ok(())
}

unsafe extern "C" fn send_slot(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let mut returned = false;
    // SAFETY: called by Python, attached, with an operation and where to put the result.
    let value = unsafe {
        raw::enter_hot(|py| {
            Ok(match Turn::take(object)?.step(py)? {
                Step::Yield(value) => value,
                Step::Return(value) => {
                    returned = true;
                    value.into_ptr()
                }
            })
        })
    };
    // SAFETY: as promised.
    unsafe { *result = value };
    match (value.is_null(), returned) {
        (true, _) => ffi::PySendResult::PYGEN_ERROR,
        (false, true) => ffi::PySendResult::PYGEN_RETURN,
        (false, false) => ffi::PySendResult::PYGEN_NEXT,
    }
}

/// A step as `await` makes it: what is yielded, or null with the result as StopIteration, which None goes without.
unsafe extern "C" fn next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter_hot(|py| match Turn::take(object)?.step(py)? {
            Step::Yield(value) => Ok(value),
            Step::Return(value) => {
                if value.as_ptr() != ffi::Py_None() {
                    stop_with(py, value)?;
                }
                Ok(ptr::null_mut())
            }
        })
    }
}

/// A step as a function: what is yielded, or StopIteration with the result.
unsafe fn as_iteration(
    object: *mut ffi::PyObject,
    step: impl FnOnce(Python<'_>, &Turn<'_>) -> PyResult<Step>,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter(|py| match step(py, &Turn::take(object)?)? {
            Step::Yield(value) => Ok(value),
            Step::Return(value) => Err(PyStopIteration::new_err((value.into_bound(py).unbind(),))),
        })
    }
}

unsafe extern "C" fn send(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as promised to it.
    unsafe { as_iteration(object, |py, turn| turn.step(py)) }
}

/// `throw(exception)`, or the deprecated `throw(type, value, traceback)`.
unsafe extern "C" fn throw(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation and `nargs` arguments.
    unsafe { as_iteration(object, |py, turn| turn.throw(py, thrown(py, args, nargs)?)) }
}

unsafe extern "C" fn close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe { raw::enter(|py| Turn::take(object)?.close(py).map(|()| raw::none(py))) }
}

unsafe extern "C" fn get_running(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter(|py| {
            Ok(raw::boolean(py, (*object.cast::<Operation>()).used.load(Ordering::Relaxed) == STEPPED))
        })
    }
}

unsafe extern "C" fn get_awaited(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation. One that is being stepped awaits nothing.
    unsafe {
        raw::enter(|py| {
            let operation = &*object.cast::<Operation>();
            let look = operation.used.compare_exchange(FREE, LOOKED_AT, Ordering::Acquire, Ordering::Relaxed);
            if look.is_err() {
                return Ok(raw::none(py));
            }
            let awaited = (*operation.state.get()).awaited.as_ref().map(|awaited| awaited.clone_ref(py));
            operation.used.store(FREE, Ordering::Release);
            Ok(awaited.map_or_else(|| raw::none(py), Owned::into_ptr))
        })
    }
}

/// What was asked never changes, so that any thread may read it.
unsafe fn name_of(object: *mut ffi::PyObject) -> &'static str {
    // SAFETY: an operation, as the caller was promised.
    unsafe { (*object.cast::<Operation>()).state.get().as_ref().expect("not null").ask.name() }
}

unsafe extern "C" fn get_qualified_name(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe { raw::enter(|py| Ok(name_of(object).into_pyobject(py)?.into_any().into_ptr())) }
}

unsafe extern "C" fn get_name(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter(|py| {
            let name = name_of(object).rsplit('.').next();
            Ok(name.into_pyobject(py)?.into_any().into_ptr())
        })
    }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter(|py| {
            let text = format!("<coroutine object {} at {object:p}>", name_of(object));
            Ok(text.into_pyobject(py)?.into_any().into_ptr())
        })
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference: nobody steps it.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        let state = &mut *(*object.cast::<Operation>()).state.get();
        if let Some(target) = state.target.take() {
            end_unfinished(state, &target);
            drop(target);
        }
        ptr::drop_in_place(state);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

/// One that was never awaited says so; of one that waits the reader forgets.
#[cold]
unsafe fn end_unfinished(state: &mut State, target: &Owned) {
    // SAFETY: called from `dealloc`, attached; an exception that is set is kept for the caller.
    unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        raw::enter(|py| {
            match (&state.work, &state.awaited) {
                (None, None) => {
                    let text = format!("coroutine '{}' was never awaited", state.ask.name());
                    let text = std::ffi::CString::new(text)?;
                    let category = py.get_type::<PyRuntimeWarning>();
                    if let Err(error) = PyErr::warn(py, &category, &text, 1) {
                        error.write_unraisable(py, None);
                    }
                }
                (Some(Work::Read(_)), Some(_)) => reader::TYPE.of(target.as_ptr()).end_wait(),
                _ => {}
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
    }
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector with the world stopped; only reads.
    unsafe {
        let state = &*(*object.cast::<Operation>()).state.get();
        let asked = match &state.ask {
            Ask::Until(separator) => separator.as_ref(),
            _ => None,
        };
        let own = [state.target.as_ref(), state.awaited.as_ref(), asked].into_iter().flatten();
        let references = own.map(Owned::as_ptr).chain([ffi::Py_TYPE(object).cast()]);
        for reference in references {
            let result = raw::visit(reference, visit, arg);
            if result != 0 {
                return result;
            }
        }
        0
    }
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage, which nobody steps.
    unsafe {
        let state = &mut *(*object.cast::<Operation>()).state.get();
        let parts = (state.target.take(), state.work.take(), state.awaited.take());
        drop(parts);
    }
    0
}
