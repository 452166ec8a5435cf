//! `StreamWriter`: writes go to the transport; `drain` waits only while the protocol is paused.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::{PyAssertionError, PyConnectionResetError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::object::{self, State, Type, object_attribute};
use super::operation::{self, Ask};
use super::{protocol, reader};
use crate::net::stream;
use crate::py::method::{all_arguments, function};
use crate::py::names::names;
use crate::py::{Attached, Owned, call, imports, raw};

#[derive(Default)]
pub struct Inner {
    transport: Option<Owned>,
    protocol: Option<Owned>,
    reader: Option<Owned>,
    event_loop: Option<Owned>,
}

/// As for a reader, the lock keeps calls from wrong threads harmless. Nothing under it calls Python.
#[derive(Default)]
pub struct Writer(Attached<Inner>);

pub static TYPE: Type<Writer> = Type::new();

impl Writer {
    fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.0.lock(py))
    }

    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<*mut ffi::PyObject> {
        let transport = self.transport(py)?;
        if stream::is_stream(&transport.bind(py)) {
            // SAFETY: a stream transport, alive as the data is.
            return Ok(unsafe { stream::write_to(transport.as_ptr(), data.as_ptr()) });
        }
        call::method1(py, &transport, names().write, data).map(|_| raw::none(py))
    }

    fn transport(&self, py: Python<'_>) -> PyResult<Owned> {
        self.with(py, |inner| inner.transport.as_ref().map(|transport| transport.clone_ref(py)))
            .ok_or_else(|| PyTypeError::new_err("StreamWriter has no transport"))
    }
}

/// The progress of a drain.
pub enum Drain {
    Begin,
    /// The transport closes: the loop has had a turn, in which the protocol could get connection_lost().
    Slept,
    /// The protocol's helper has been awaited.
    Helped,
}

/// The next step of a drain.
pub enum Next {
    Done,
    /// Give the loop a turn.
    Sleep,
    Await(Owned),
}

impl Drain {
    pub fn go_on(self, py: Python<'_>, writer: &Owned) -> PyResult<Next> {
        // SAFETY: the target of a drain is a writer.
        let writer: &Writer = unsafe { TYPE.of(writer.as_ptr()) };
        match self {
            Drain::Begin => {
                raise_of_reader(py, writer)?;
                if is_closing(py, &writer.transport(py)?)? { Ok(Next::Sleep) } else { help(py, writer) }
            }
            Drain::Slept => help(py, writer),
            Drain::Helped => Ok(Next::Done),
        }
    }
}

/// Raises what the reader's reads would raise.
fn raise_of_reader(py: Python<'_>, writer: &Writer) -> PyResult<()> {
    let Some(reader) = writer.with(py, |inner| inner.reader.as_ref().map(|reader| reader.clone_ref(py)))
    else {
        return Ok(());
    };
    // SAFETY: alive.
    let error = match unsafe { reader::TYPE.of_exact(reader.as_ptr()) } {
        Some(reader) => reader.exception(py),
        None => {
            Some(call::method0(py, &reader, names().exception)?).filter(|error| !error.bind(py).is_none())
        }
    };
    match error {
        Some(error) => Err(PyErr::from_value(error.into_bound(py))),
        None => Ok(()),
    }
}

fn is_closing(py: Python<'_>, transport: &Owned) -> PyResult<bool> {
    match stream::closing_of(&transport.bind(py)) {
        Some(closing) => Ok(closing),
        None => call::method0(py, transport, names().is_closing)?.bind(py).is_truthy(),
    }
}

/// The protocol's `_drain_helper`, without calling it where there is nothing to await.
fn help(py: Python<'_>, writer: &Writer) -> PyResult<Next> {
    let protocol = writer.with(py, |inner| inner.protocol.as_ref().map(|protocol| protocol.clone_ref(py)));
    let protocol = protocol.ok_or_else(|| PyTypeError::new_err("StreamWriter has no protocol"))?;
    // SAFETY: alive.
    if let Some(state) = unsafe { protocol::TYPE.of_exact(protocol.as_ptr()) } {
        if state.is_lost() {
            return Err(PyConnectionResetError::new_err("Connection lost"));
        }
        if !state.is_paused() {
            return Ok(Next::Done);
        }
    }
    call::method0(py, &protocol, names()._drain_helper).map(Next::Await)
}

impl State for Writer {
    fn type_of() -> &'static Type<Self> {
        &TYPE
    }

    fn visit<E>(&self, see: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        let Some(inner) = self.0.seen_by_collector() else { return Ok(()) };
        [&inner.transport, &inner.protocol, &inner.reader, &inner.event_loop]
            .into_iter()
            .flatten()
            .try_for_each(see)
    }

    fn take_all(&self, py: Python<'_>) -> impl Sized + use<> {
        std::mem::take(&mut *self.0.lock(py))
    }
}

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TYPE.init(
        module,
        c"tokioloop._tokioloop.StreamWriter",
        c"The native half of tokioloop.StreamWriter.",
        vec![(ffi::Py_tp_init, initialise as *mut c_void)],
        vec![
            raw::fast_keywords(c"write", write, c"write($self, data)\n--\n\nSend bytes; what the kernel does not take now is sent later. Await drain() when there is much."),
            raw::no_args(c"drain", drain, c"Wait until there is room for more. Raises what ended the connection."),
        ],
        vec![
            raw::property(c"_transport", get_transport, set_transport, c"The transport."),
            raw::property(c"_protocol", get_protocol, set_protocol, c"The protocol."),
            raw::property(c"_reader", get_reader, set_reader, c"The reader, or None."),
            raw::property(c"_loop", get_loop, set_loop, c"The loop."),
        ],
    )
}

unsafe extern "C" fn write(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a writer, as a fast call with keywords.
    unsafe {
        raw::enter_hot(|py| {
            let [data] = all_arguments(py, "write", ["data"], args, nargs, keywords)?;
            TYPE.of(object).write(py, &data)
        })
    }
}

function!(enter_hot drain(py, object, writer = TYPE.of(object)) {
    let _ = writer;
    operation::make(py, object, Ask::Drain)
});

object_attribute!(get_transport, set_transport, transport);
object_attribute!(get_protocol, set_protocol, protocol);
object_attribute!(get_reader, set_reader, reader);
object_attribute!(get_loop, set_loop, event_loop);

/// `__init__(transport, protocol, reader, loop)`.
unsafe extern "C" fn initialise(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: called by Python, attached, with a writer, a tuple and a dict or null.
    unsafe {
        raw::enter(|py| {
            let names = ["transport", "protocol", "reader", "loop"];
            let given = object::init_arguments(py, "StreamWriter", names, args, keywords)?;
            if given.iter().any(Option::is_none) {
                return Err(PyTypeError::new_err(
                    "StreamWriter() takes a transport, a protocol, a reader or None, and a loop",
                ));
            }
            let [transport, protocol, reader, event_loop] =
                given.map(|given| given.filter(|given| !given.is_none()));
            let fresh = Inner {
                transport: transport.map(Owned::from),
                protocol: protocol.map(Owned::from),
                reader: reader.as_ref().map(Owned::from),
                event_loop: event_loop.map(Owned::from),
            };
            let former = TYPE.of(object).with(py, |inner| std::mem::replace(inner, fresh));
            drop(former);
            if let Some(reader) = &reader
                && reader::TYPE.of_exact(reader.as_ptr()).is_none()
                && !reader.is_instance(imports::stream_reader(py)?)?
            {
                return Err(PyAssertionError::new_err("the reader is not a StreamReader"));
            }
            Ok(0)
        })
    }
}
