//! The awaitable that a read or a drain is.
//!
//! Its first step checks whether it can be done at once; if so it is the last. Otherwise it awaits the
//! reader's waiter, or the protocol's `_drain_helper`, and checks again.

use std::ffi::{CString, c_void};
use std::ptr;

use pyo3::exceptions::{PyRuntimeWarning, PyStopIteration, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::reader::{self, Reader};
use super::reads::{Look, Separators, Want};
use super::writer;
use crate::py::awaitable::{Awaitable, Step, Turn, Type, already_awaited};
use crate::py::{Owned, call, imports, raw};

/// The call's arguments, unchecked.
pub enum Ask {
    Read(usize),
    All,
    Exactly(isize),
    /// The separator of `readuntil`; None for a line's end.
    Until(Option<Owned>),
    Line,
    NextLine,
    Drain,
}

impl Ask {
    /// The qualified name, as a coroutine's, for messages.
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

    /// The read that the arguments ask for, or their error.
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

/// Its state between two steps.
enum Work {
    Read(Want),
    Drain(writer::Drain),
}

struct Operation {
    ask: Ask,
}

/// None when it is over.
#[derive(Default)]
struct State {
    /// The reader, or the writer.
    target: Option<Owned>,
    /// None before the first step.
    work: Option<Work>,
    /// The object that it awaits.
    awaited: Option<Owned>,
}

static TYPE: Type<Operation> = Type::new();

/// Makes the type.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TYPE.init(
        module,
        c"tokioloop._tokioloop.StreamOperation",
        vec![(ffi::Py_tp_repr, repr as *mut c_void)],
        vec![
            raw::getter(c"__name__", get_name, c"The method's name."),
            raw::getter(c"__qualname__", get_qualified_name, c"The method's name with its class."),
            raw::getter(c"cr_await", get_awaited, c"What it awaits, or None."),
            raw::getter(c"cr_running", get_running, c"Whether it is being stepped."),
        ],
    )?;
    for look_up in [imports::incomplete_read_error, imports::limit_overrun_error] {
        look_up(module.py())?;
    }
    Ok(())
}

/// A new reference to an operation.
///
/// # Safety
/// `target` is a reader, or a writer for a drain, and alive.
#[inline]
pub unsafe fn make(py: Python<'_>, target: *mut ffi::PyObject, ask: Ask) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: promised.
    let target = Some(unsafe { Owned::borrow(target) });
    let state = State { target, work: None, awaited: None };
    Ok(TYPE.make(py, Operation { ask }, state)?.into_ptr())
}

impl Awaitable for Operation {
    type State = State;

    fn type_of() -> &'static Type<Self> {
        &TYPE
    }

    fn step(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<Step> {
        let target = turn.target(py)?;
        let result = turn.advance(py, &target);
        if !matches!(result, Ok(Step::Yield(_))) {
            drop(turn.take_state());
        }
        result
    }

    /// Passes it to the awaited object, if that accepts it.
    fn throw(turn: &mut Turn<'_, Self>, py: Python<'_>, error: PyErr) -> PyResult<Step> {
        let target = turn.target(py)?;
        let throw = match turn.awaited(py) {
            Some(awaited) => awaited.bind(py).getattr_opt("throw")?,
            None => None,
        };
        let Some(throw) = throw else {
            turn.end_wait(py, &target);
            drop(turn.take_state());
            return Err(error);
        };
        match throw.call1((error.into_value(py),)) {
            Ok(yielded) => Ok(Step::Yield(yielded.into())),
            Err(error) => {
                turn.end_wait(py, &target);
                if error.is_instance_of::<PyStopIteration>(py) {
                    return Self::step(turn, py);
                }
                drop(turn.take_state());
                Err(error)
            }
        }
    }

    fn close(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<()> {
        let Ok(target) = turn.target(py) else { return Ok(()) };
        let closed = match turn.awaited(py) {
            Some(awaited) => match awaited.bind(py).getattr_opt("close") {
                Ok(Some(close)) => close.call0().map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        };
        turn.end_wait(py, &target);
        drop(turn.take_state());
        closed
    }

    fn is_unfinished(state: &State) -> bool {
        state.target.is_some()
    }

    /// One that was never awaited warns; the reader forgets one that waits.
    fn abandon(turn: &mut Turn<'_, Self>, py: Python<'_>) -> PyResult<()> {
        if turn.state().work.is_some() {
            let target = turn.target(py)?;
            turn.end_wait(py, &target);
            return Ok(());
        }
        let text = CString::new(format!("coroutine '{}' was never awaited", turn.fixed().ask.name()))?;
        if let Err(error) = PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1) {
            error.write_unraisable(py, None);
        }
        Ok(())
    }

    fn visit(&self, state: &State, see: &mut dyn FnMut(*mut ffi::PyObject)) {
        let asked = match &self.ask {
            Ask::Until(separator) => separator.as_ref(),
            _ => None,
        };
        for reference in [state.target.as_ref(), state.awaited.as_ref(), asked].into_iter().flatten() {
            see(reference.as_ptr());
        }
    }
}

impl Turn<'_, Operation> {
    fn target(&mut self, py: Python<'_>) -> PyResult<Owned> {
        let target = self.state().target.as_ref().map(|target| target.clone_ref(py));
        target.ok_or_else(already_awaited)
    }

    fn awaited(&mut self, py: Python<'_>) -> Option<Owned> {
        self.state().awaited.as_ref().map(|awaited| awaited.clone_ref(py))
    }

    fn await_(&mut self, work: Work, awaited: Owned) {
        let state = self.state();
        state.work = Some(work);
        state.awaited = Some(awaited);
    }

    /// It no longer awaits anything, and the reader forgets it.
    fn end_wait(&mut self, py: Python<'_>, target: &Owned) {
        let awaited = self.state().awaited.take();
        if awaited.is_some() && matches!(self.state().work, Some(Work::Read(_))) {
            // SAFETY: the target of a read is a reader.
            unsafe { reader::TYPE.of(target.as_ptr()) }.end_wait(py);
        }
        drop(awaited);
    }

    fn advance(&mut self, py: Python<'_>, target: &Owned) -> PyResult<Step> {
        let mut first = self.state().work.is_none();
        if first {
            let work = self.fixed().ask.begin(py)?;
            self.state().work = Some(work);
        }
        loop {
            if let Some(awaited) = self.awaited(py) {
                match send_none(py, &awaited) {
                    Ok(Step::Return(_)) => self.end_wait(py, target),
                    Ok(step) => return Ok(step),
                    Err(error) => {
                        self.end_wait(py, target);
                        return Err(error);
                    }
                }
            }
            // Taken out of the state meanwhile: it may call Python.
            match self.state().work.take() {
                Some(Work::Read(mut want)) => {
                    // SAFETY: the target of a read is a reader.
                    let reader: &Reader = unsafe { reader::TYPE.of(target.as_ptr()) };
                    match want.look(py, reader, first)? {
                        Look::Ready(bytes) | Look::Unresumed(bytes) => return Ok(Step::Return(bytes)),
                        Look::Raise(failure) => return Err(failure.into_error(py)),
                        Look::Wait => {
                            let waiter = reader.wait(py, want.name())?;
                            let awaited = iterator_of(py, waiter).inspect_err(|_| reader.end_wait(py))?;
                            self.await_(Work::Read(want), awaited);
                        }
                    }
                }
                Some(Work::Drain(drain)) => match drain.go_on(py, target)? {
                    writer::Next::Done => return Ok(Step::Return(py.None().into_bound(py).into())),
                    writer::Next::Sleep => {
                        self.state().work = Some(Work::Drain(writer::Drain::Slept));
                        return Ok(Step::Yield(py.None().into_bound(py).into()));
                    }
                    writer::Next::Await(helper) => {
                        let awaited = iterator_of(py, helper)?;
                        self.await_(Work::Drain(writer::Drain::Helped), awaited);
                    }
                },
                None => return Err(already_awaited()),
            }
            first = false;
        }
    }
}

/// The object that `await` would step: a coroutine itself, from which readers of `cr_await` continue.
fn iterator_of(py: Python<'_>, awaitable: Owned) -> PyResult<Owned> {
    // SAFETY: alive; only the type is looked at.
    if unsafe { ffi::PyCoro_CheckExact(awaitable.as_ptr()) } != 0 {
        return Ok(awaitable);
    }
    call::awaiting(py, &awaitable)
}

fn send_none(py: Python<'_>, iterator: &Owned) -> PyResult<Step> {
    let mut result = ptr::null_mut();
    // SAFETY: attached, alive; the result is a new reference, or null with an error.
    unsafe {
        match ffi::PyIter_Send(iterator.as_ptr(), ffi::Py_None(), &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Step::Yield(Owned::steal(result))),
            ffi::PySendResult::PYGEN_RETURN => Ok(Step::Return(Owned::steal(result))),
            _ => Err(PyErr::fetch(py)),
        }
    }
}

// ---- the attributes of coroutine objects ------------------------------------------------------------------

unsafe extern "C" fn get_running(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe { raw::enter(|py| Ok(raw::boolean(py, TYPE.is_stepped(object)))) }
}

unsafe extern "C" fn get_awaited(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation. One that is being stepped awaits nothing.
    unsafe {
        raw::enter(|py| {
            let clone = |state: &State| state.awaited.as_ref().map(|awaited| awaited.clone_ref(py));
            Ok(TYPE.look(object, clone).flatten().map_or_else(|| raw::none(py), Owned::into_ptr))
        })
    }
}

unsafe extern "C" fn get_qualified_name(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe { raw::enter(|py| Ok(TYPE.fixed(object).ask.name().into_pyobject(py)?.into_any().into_ptr())) }
}

unsafe extern "C" fn get_name(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter(|py| {
            let name = TYPE.fixed(object).ask.name().rsplit('.').next();
            Ok(name.into_pyobject(py)?.into_any().into_ptr())
        })
    }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an operation.
    unsafe {
        raw::enter(|py| {
            let text = format!("<coroutine object {} at {object:p}>", TYPE.fixed(object).ask.name());
            Ok(text.into_pyobject(py)?.into_any().into_ptr())
        })
    }
}
