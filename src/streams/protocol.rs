//! `StreamReaderProtocol`: takes bytes from the transport, straight from the driver's buffer where all types are ours.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::object::{State, Type, attribute};
use super::reader::{self, Data};
use crate::net::native::{self, Receive};
use crate::py::method::function;
use crate::py::names::names;
use crate::py::{Attached, Owned, call, raw};

#[derive(Default)]
pub struct Inner {
    /// A weak reference, as in asyncio: a reader and writer without references are collected, and the connection is closed.
    reader: Option<Owned>,
}

#[derive(Default)]
pub struct Protocol {
    /// Written by the loop's thread; the drain that reads them runs there too.
    paused: AtomicBool,
    lost: AtomicBool,
    inner: Attached<Inner>,
}

pub static TYPE: Type<Protocol> = Type::new();

impl Protocol {
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock(py))
    }

    fn reader(&self, py: Python<'_>) -> Option<Owned> {
        let reference =
            self.with(py, |inner| inner.reader.as_ref().map(|reference| reference.clone_ref(py)))?;
        raw::referent(py, &reference)
    }

    fn receive(&self, py: Python<'_>, data: Data<'_>) -> PyResult<()> {
        let Some(reader) = self.reader(py) else { return Ok(()) };
        // SAFETY: alive.
        match unsafe { reader::TYPE.of_exact(reader.as_ptr()) } {
            Some(reader) => reader.feed(py, data),
            None => {
                let data = data.into_bytes(py)?;
                call::method1(py, &reader, names().feed_data, &data.bind(py)).map(drop)
            }
        }
    }
}

/// Whether bytes may bypass `data_received`: no class overrides anything on their way.
fn is_direct(protocol: *mut ffi::PyObject) -> bool {
    // SAFETY: attached; the caller keeps it alive.
    unsafe {
        let Some(state) = TYPE.of_exact(protocol) else { return false };
        let py = Python::assume_attached();
        state.reader(py).is_none_or(|reader| reader::TYPE.of_exact(reader.as_ptr()).is_some())
    }
}

fn receive(protocol: &Bound<'_, PyAny>, data: Data<'_>) -> PyResult<()> {
    // SAFETY: `is_direct` was true.
    unsafe { TYPE.of(protocol.as_ptr()) }.receive(protocol.py(), data)
}

impl State for Protocol {
    fn type_of() -> &'static Type<Self> {
        &TYPE
    }

    fn visit<E>(&self, see: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        let Some(inner) = self.inner.seen_by_collector() else { return Ok(()) };
        inner.reader.iter().try_for_each(see)
    }

    fn take_all(&self, py: Python<'_>) -> impl Sized + use<> {
        std::mem::take(&mut *self.inner.lock(py))
    }
}

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let receive = Receive {
        slice: |protocol, data| receive(protocol, Data::Slice(data)),
        object: Some(|protocol, data| receive(protocol, Data::Whole(data))),
    };
    native::register(is_direct, receive);
    TYPE.init(
        module,
        c"tokioloop._tokioloop.StreamReaderProtocol",
        c"The native half of tokioloop.StreamReaderProtocol.",
        vec![],
        vec![raw::one_arg(c"data_received", data_received, c"Feed the reader.")],
        vec![
            raw::property(
                c"_stream_reader_wr",
                get_reader,
                set_reader,
                c"A weak reference to the reader, or None.",
            ),
            raw::property(
                c"_paused",
                get_paused,
                set_paused,
                c"Whether the transport wants no more for now.",
            ),
            raw::property(c"_connection_lost", get_lost, set_lost, c"Whether the connection has ended."),
        ],
    )
}

function!(enter data_received(py, object, protocol = TYPE.of(object), data) {
    protocol.receive(py, Data::of(&data)?)?;
    Ok(raw::none(py))
});

attribute!(get_reader, set_reader, py, inner, value;
    Ok(inner.reader.as_ref().map_or_else(|| raw::none(py), |found| found.clone_ref(py).into_ptr()));
    {
        if !value.is_none() && ffi::PyWeakref_Check(value.as_ptr()) == 0 {
            return Err(PyTypeError::new_err("a protocol's reader is a weak reference or None"));
        }
        let new = Some(value).filter(|value| !value.is_none()).map(Owned::from);
        move |inner| std::mem::replace(&mut inner.reader, new)
    }
);

/// An attribute that is true or false, kept in an atomic.
macro_rules! atomic_attribute {
    ($get:ident, $set:ident, $field:ident) => {
        unsafe extern "C" fn $get(
            object: *mut ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> *mut ffi::PyObject {
            // SAFETY: called by Python, attached, with a protocol.
            unsafe { raw::enter(|py| Ok(raw::boolean(py, TYPE.of(object).$field.load(Ordering::Relaxed)))) }
        }

        unsafe extern "C" fn $set(
            object: *mut ffi::PyObject,
            value: *mut ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> std::ffi::c_int {
            // SAFETY: called by Python, attached, with a protocol and a value, or null to delete it.
            unsafe {
                raw::enter(|py| {
                    let value = crate::py::method::new_value(py, value)?.is_truthy()?;
                    TYPE.of(object).$field.store(value, Ordering::Relaxed);
                    Ok(0)
                })
            }
        }
    };
}

atomic_attribute!(get_paused, set_paused, paused);
atomic_attribute!(get_lost, set_lost, lost);
