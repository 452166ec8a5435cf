//! `StreamReader`: its buffer, its flags, and the read that waits for more.
//!
//! `tokioloop.StreamReader` derives from this type and from asyncio's class. Rarely called methods are asyncio's own
//! Python code, which finds its attributes here.
//!
//! A reader belongs to its loop's thread, as asyncio's does. Its fields are behind a lock all the same, so that a call from
//! the wrong thread can't corrupt them; under it no Python code runs, and nothing is dropped that could run any.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::{
    PyAssertionError, PyNotImplementedError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::ffi;
use pyo3::prelude::*;

use super::buffer::Buffer;
use super::object::{self, Loop, State, Type, attribute, flag_attribute, object_attribute};
use super::operation::{self, Ask};
use crate::event_loop::task;
use crate::py::buffer as view;
use crate::py::bytes::{self, contents};
use crate::py::method::{all_arguments, arguments, function};
use crate::py::names::names;
use crate::py::{Attached, Owned, call, imports, raw};

/// asyncio's default, in bytes.
pub const LIMIT: usize = 1 << 16;

pub struct Inner {
    event_loop: Option<Loop>,
    pub buffer: Buffer,
    /// Half of what may be buffered before the transport is paused; the longest line.
    pub limit: usize,
    pub eof: bool,
    pub exception: Option<Owned>,
    transport: Option<Owned>,
    paused: bool,
    /// The future of the read that waits for bytes or the end.
    waiter: Option<Owned>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            event_loop: None,
            buffer: Buffer::default(),
            limit: LIMIT,
            eof: false,
            exception: None,
            transport: None,
            paused: false,
            waiter: None,
        }
    }
}

impl Inner {
    /// The transport to be resumed after bytes were taken; it is marked as resumed.
    fn take_resume(&mut self, py: Python<'_>) -> Option<Owned> {
        if !self.paused || self.buffer.len() > self.limit {
            return None;
        }
        self.paused = false;
        self.transport.as_ref().map(|transport| transport.clone_ref(py))
    }
}

#[derive(Default)]
pub struct Reader(Attached<Inner>);

pub static TYPE: Type<Reader> = Type::new();

/// Bytes for a reader.
pub enum Data<'a> {
    Slice(&'a [u8]),
    /// An exact `bytes` object.
    Whole(Owned),
}

impl Data<'_> {
    /// Of an object: exact `bytes` as they are, else a copy, since a fed object may change meanwhile.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Data<'static>> {
        let py = object.py();
        // SAFETY: only the type is looked at.
        if unsafe { ffi::PyBytes_CheckExact(object.as_ptr()) } != 0 {
            return Ok(Data::Whole(object.into()));
        }
        Ok(Data::Whole(view::with_bytes(object, |bytes| bytes::copy(py, bytes))??))
    }

    pub fn into_bytes(self, py: Python<'_>) -> PyResult<Owned> {
        match self {
            Data::Slice(slice) => bytes::copy(py, slice),
            Data::Whole(bytes) => Ok(bytes),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Data::Slice(slice) => slice.is_empty(),
            // SAFETY: exact `bytes`.
            Data::Whole(bytes) => unsafe { contents(bytes) }.is_empty(),
        }
    }
}

impl Reader {
    /// Reads or changes the content; `f` calls no Python and drops no reference.
    pub fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.0.lock(py);
        let result = f(&mut inner);
        let spent = inner.buffer.take_spent();
        drop(inner);
        drop(spent);
        result
    }

    /// `feed_data`.
    pub fn feed(&self, py: Python<'_>, data: Data<'_>) -> PyResult<()> {
        enum Fed {
            Done { waiter: Option<Owned>, to_pause: Option<Owned> },
            AfterEnd,
        }
        let empty = data.is_empty();
        // Data that is not taken is dropped outside the lock.
        let mut data = Some(data);
        let fed = self.with(py, |inner| {
            if inner.eof {
                return Ok(Fed::AfterEnd);
            }
            if empty {
                return Ok(Fed::Done { waiter: None, to_pause: None });
            }
            match data.take() {
                Some(Data::Slice(slice)) => inner.buffer.extend(py, slice)?,
                Some(Data::Whole(bytes)) => inner.buffer.add_piece(py, bytes)?,
                None => {}
            }
            let full = !inner.paused && inner.buffer.len() > inner.limit.saturating_mul(2);
            let transport = inner.transport.as_ref().filter(|_| full);
            let to_pause = transport.map(|transport| transport.clone_ref(py));
            Ok::<_, PyErr>(Fed::Done { waiter: inner.waiter.take(), to_pause })
        })?;
        let Fed::Done { waiter, to_pause } = fed else {
            return Err(PyAssertionError::new_err("feed_data after feed_eof"));
        };
        if let Some(waiter) = waiter {
            task::wake(py, &waiter)?;
        }
        match to_pause {
            Some(transport) => self.pause(py, &transport),
            None => Ok(()),
        }
    }

    #[cold]
    fn pause(&self, py: Python<'_>, transport: &Owned) -> PyResult<()> {
        match call::method0(py, transport, names().pause_reading) {
            Ok(_) => self.with(py, |inner| inner.paused = true),
            // It can't be paused: asyncio does not try again.
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                let former = self.with(py, |inner| inner.transport.take());
                drop(former);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Resumes the transport, if it was paused and enough was taken.
    pub fn resume_if_drained(&self, py: Python<'_>) -> PyResult<()> {
        match self.with(py, |inner| inner.take_resume(py)) {
            Some(transport) => call::method0(py, &transport, names().resume_reading).map(drop),
            None => Ok(()),
        }
    }

    /// A future that is done when more was fed, or the end. RuntimeError when another coroutine waits.
    pub fn wait(&self, py: Python<'_>, name: &str) -> PyResult<Owned> {
        enum Found {
            Waiting,
            Free { event_loop: Option<Loop>, to_resume: Option<Owned> },
        }
        let found = self.with(py, |inner| {
            if inner.waiter.is_some() {
                return Found::Waiting;
            }
            // A read that waits while the transport is paused would wait forever.
            let paused = std::mem::take(&mut inner.paused);
            let to_resume =
                inner.transport.as_ref().filter(|_| paused).map(|transport| transport.clone_ref(py));
            Found::Free { event_loop: inner.event_loop.as_ref().map(|found| found.clone_ref(py)), to_resume }
        });
        let Found::Free { event_loop, to_resume } = found else {
            return Err(PyRuntimeError::new_err(format!(
                "{name}() called while another coroutine is already waiting for incoming data"
            )));
        };
        if let Some(transport) = to_resume {
            call::method0(py, &transport, names().resume_reading)?;
        }
        let event_loop = event_loop.ok_or_else(|| PyRuntimeError::new_err("StreamReader has no loop"))?;
        let waiter = event_loop.new_future(py)?;
        let kept = waiter.clone_ref(py);
        let former = self.with(py, |inner| inner.waiter.replace(kept));
        drop(former);
        Ok(waiter)
    }

    /// The wait is over.
    pub fn end_wait(&self, py: Python<'_>) {
        let former = self.with(py, |inner| inner.waiter.take());
        drop(former);
    }

    fn feed_eof(&self, py: Python<'_>) -> PyResult<()> {
        let waiter = self.with(py, |inner| {
            inner.eof = true;
            inner.waiter.take()
        });
        waiter.map_or(Ok(()), |waiter| task::wake(py, &waiter))
    }

    fn set_exception(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let new = Some(Owned::from(error));
        let (former, waiter) =
            self.with(py, |inner| (std::mem::replace(&mut inner.exception, new), inner.waiter.take()));
        drop(former);
        let Some(waiter) = waiter else { return Ok(()) };
        let waiter = waiter.bind(py);
        if waiter.call_method0("cancelled")?.is_truthy()? {
            return Ok(());
        }
        waiter.call_method1(names().set_exception.bind(py), (error,)).map(drop)
    }

    pub fn exception(&self, py: Python<'_>) -> Option<Owned> {
        self.with(py, |inner| inner.exception.as_ref().map(|error| error.clone_ref(py)))
    }
}

impl State for Reader {
    fn type_of() -> &'static Type<Self> {
        &TYPE
    }

    fn visit<E>(&self, see: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        let Some(inner) = self.0.seen_by_collector() else { return Ok(()) };
        inner.buffer.visit(see)?;
        inner.event_loop.iter().try_for_each(|event_loop| see(&event_loop.object))?;
        [&inner.exception, &inner.transport, &inner.waiter].into_iter().flatten().try_for_each(see)
    }

    fn take_all(&self, py: Python<'_>) -> impl Sized + use<> {
        std::mem::take(&mut *self.0.lock(py))
    }
}

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let slots = vec![
        (ffi::Py_tp_init, initialise as *mut c_void),
        (ffi::Py_am_aiter, ffi::PyObject_SelfIter as *mut c_void),
        (ffi::Py_am_anext, next_line as *mut c_void),
    ];
    let methods = vec![
        raw::fast_keywords(c"read", read, c"read($self, n=-1)\n--\n\nRead up to n bytes, at least one; with n=-1, all until the end. Empty at the end."),
        raw::fast_keywords(c"readexactly", readexactly, c"readexactly($self, n)\n--\n\nRead exactly n bytes. IncompleteReadError at an earlier end."),
        raw::fast_keywords(c"readuntil", readuntil, c"readuntil($self, separator=b'\\n')\n--\n\nRead up to and with the separator, or the first of a tuple of them. IncompleteReadError at an earlier end, LimitOverrunError beyond the limit."),
        raw::no_args(c"readline", readline, c"Read a line with its end; what is left at the end of the stream. ValueError beyond the limit."),
        raw::fast_keywords(c"feed_data", feed_data, c"feed_data($self, data)\n--\n\nAdd bytes to what can be read. Called by the protocol."),
        raw::no_args(c"feed_eof", feed_eof, c"Nothing more comes. Called by the protocol."),
        raw::no_args(c"at_eof", at_eof, c"Whether everything was read and nothing more comes."),
        raw::no_args(c"exception", exception, c"The exception that reads raise, or None."),
        raw::one_arg(c"set_exception", set_exception, c"Have reads raise an exception. Called by the protocol."),
        raw::no_args(c"_wakeup_waiter", wakeup_waiter, c"End the wait of a read."),
        raw::no_args(c"_maybe_resume_transport", maybe_resume_transport, c"Let the transport go on if enough was read."),
    ];
    let getset = vec![
        raw::property(c"_loop", get_loop, set_loop, c"The loop."),
        raw::property(c"_transport", get_transport, set_transport, c"The transport."),
        raw::property(c"_waiter", get_waiter, set_waiter, c"The future of the waiting read."),
        raw::property(c"_exception", get_exception, set_exception_attribute, c"What reads raise."),
        raw::property(c"_limit", get_limit, set_limit, c"The limit in bytes."),
        raw::property(c"_eof", get_eof, set_eof, c"Whether the end was fed."),
        raw::property(c"_paused", get_paused, set_paused, c"Whether the transport is paused."),
        raw::property(c"_buffer", get_buffer, set_buffer, c"What was not read, as a bytearray."),
    ];
    TYPE.init(
        module,
        c"tokioloop._tokioloop.StreamReader",
        c"The native half of tokioloop.StreamReader.",
        slots,
        methods,
        getset,
    )
}

function!(enter feed_eof(py, object, reader = TYPE.of(object)) reader.feed_eof(py).map(|()| raw::none(py)));
function!(enter at_eof(py, object, reader = TYPE.of(object)) {
    Ok(raw::boolean(py, reader.with(py, |inner| inner.eof && inner.buffer.is_empty())))
});
function!(enter exception(py, object, reader = TYPE.of(object)) {
    Ok(reader.exception(py).map_or_else(|| raw::none(py), Owned::into_ptr))
});
function!(enter set_exception(py, object, reader = TYPE.of(object), error) {
    reader.set_exception(py, &error).map(|()| raw::none(py))
});
function!(enter wakeup_waiter(py, object, reader = TYPE.of(object)) {
    let waiter = reader.with(py, |inner| inner.waiter.take());
    waiter.map_or(Ok(()), |waiter| task::wake(py, &waiter)).map(|()| raw::none(py))
});
function!(enter maybe_resume_transport(py, object, reader = TYPE.of(object)) {
    reader.resume_if_drained(py).map(|()| raw::none(py))
});
function!(enter_hot readline(py, object, reader = TYPE.of(object)) {
    let _ = reader;
    operation::make(py, object, Ask::Line)
});

unsafe extern "C" fn next_line(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a reader.
    unsafe { raw::enter_hot(|py| operation::make(py, object, Ask::NextLine)) }
}

unsafe extern "C" fn feed_data(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a reader, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let [data] = all_arguments(py, "feed_data", ["data"], args, nargs, keywords)?;
            TYPE.of(object).feed(py, Data::of(&data)?)?;
            Ok(raw::none(py))
        })
    }
}

/// A size in bytes. Sizes beyond any stream are clamped.
fn size(value: &Bound<'_, PyAny>) -> PyResult<isize> {
    match value.extract::<isize>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(if value.lt(0)? { isize::MIN } else { isize::MAX })
        }
        size => size,
    }
}

unsafe extern "C" fn read(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a reader, as a fast call with keywords.
    unsafe {
        if nargs == 1 && keywords.is_null() && ffi::PyLong_CheckExact(*args) != 0 {
            let n = ffi::PyLong_AsSsize_t(*args);
            if n >= 0 {
                return raw::enter_hot(|py| operation::make(py, object, Ask::Read(n as usize)));
            }
            ffi::PyErr_Clear();
        }
        raw::enter(|py| {
            let [n] = arguments(py, "read", ["n"], args, nargs, keywords)?;
            let n = n.map_or(Ok(-1), |n| size(&n))?;
            let ask = usize::try_from(n).map_or(Ask::All, Ask::Read);
            operation::make(py, object, ask)
        })
    }
}

unsafe extern "C" fn readexactly(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a reader, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let [n] = all_arguments(py, "readexactly", ["n"], args, nargs, keywords)?;
            operation::make(py, object, Ask::Exactly(size(&n)?))
        })
    }
}

unsafe extern "C" fn readuntil(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a reader, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let [separator] = arguments(py, "readuntil", ["separator"], args, nargs, keywords)?;
            operation::make(py, object, Ask::Until(separator.map(Owned::from)))
        })
    }
}

/// `__init__(limit=65536, loop=None)`.
unsafe extern "C" fn initialise(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: called by Python, attached, with a reader, a tuple and a dict or null.
    unsafe {
        raw::enter(|py| {
            let [limit, event_loop] =
                object::init_arguments(py, "StreamReader", ["limit", "loop"], args, keywords)?;
            let limit = limit.map_or(Ok(LIMIT as isize), |limit| size(&limit))?;
            let limit = usize::try_from(limit).ok().filter(|&limit| limit > 0);
            let limit = limit.ok_or_else(|| PyValueError::new_err("Limit cannot be <= 0"))?;
            let event_loop = match event_loop.filter(|given| !given.is_none()) {
                Some(given) => given,
                None => imports::asyncio_get_event_loop(py)?.call0()?,
            };
            if event_loop.call_method0("get_debug")?.is_truthy()? {
                let frame = imports::getframe(py)?.call1((0,))?;
                let traceback = imports::extract_stack(py)?.call1((frame,))?;
                Bound::<PyAny>::from_borrowed_ptr(py, object).setattr("_source_traceback", traceback)?;
            }
            let fresh = Inner { limit, event_loop: Some(Loop::new(&event_loop)), ..Inner::default() };
            let former = TYPE.of(object).with(py, |inner| std::mem::replace(inner, fresh));
            drop(former);
            Ok(0)
        })
    }
}

attribute!(get_loop, set_loop, py, inner, value;
    Ok(inner.event_loop.as_ref().map_or_else(|| raw::none(py), |found| found.object.clone_ref(py).into_ptr()));
    {
        let new = Some(Loop::new(&value));
        move |inner| std::mem::replace(&mut inner.event_loop, new)
    }
);
object_attribute!(get_transport, set_transport, transport);
object_attribute!(get_waiter, set_waiter, waiter);
object_attribute!(get_exception, set_exception_attribute, exception);
flag_attribute!(get_eof, set_eof, eof);
flag_attribute!(get_paused, set_paused, paused);
attribute!(get_limit, set_limit, py, inner, value;
    Ok(inner.limit.into_pyobject(py)?.into_any().into_ptr());
    {
        let new = value.extract::<usize>()?;
        move |inner| inner.limit = new
    }
);
attribute!(get_buffer, set_buffer, py, inner, value;
    inner.buffer.show(py).map(Owned::into_ptr);
    {
        if ffi::PyByteArray_CheckExact(value.as_ptr()) == 0 {
            return Err(PyTypeError::new_err("a reader's buffer is a bytearray"));
        }
        let new = Owned::from(value);
        move |inner| inner.buffer.replace(new)
    }
);
