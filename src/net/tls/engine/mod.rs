//! The engines behind a TLS transport, and the choice between them.
//!
//! | engine       | for                       | how                                                                  |
//! |--------------|---------------------------|----------------------------------------------------------------------|
//! | `direct`     | `ssl.SSLContext`          | OpenSSL's functions on the connection behind a real `ssl.SSLObject`  |
//! | `memory_bio` | the same                  | the methods of the `SSLObject`, where `direct` finds no footing      |
//! | `rustls`     | `tokioloop.tls.*Config`   | rustls, without buffers of its own                                   |

mod direct;
mod memory_bio;
mod rustls;

use std::ffi::c_int;
use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::proto::tls::Engine;
use crate::py::{Owned, imports};

pub use rustls::{Connection, error as rustls_error};

/// What an engine shows to the garbage collector.
pub trait Visible {
    /// Shows every Python object it holds.
    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int>;
}

/// An engine as a transport has it.
pub trait AnyEngine: Engine<Error = PyErr> + Visible {}

impl<T: Engine<Error = PyErr> + Visible> AnyEngine for T {}

pub type DynEngine = dyn AnyEngine;

/// What a connection is to be made with.
pub struct Terms<'a, 'py> {
    pub context: &'a Bound<'py, PyAny>,
    pub server_side: bool,
    pub server_hostname: Option<&'a Bound<'py, PyAny>>,
}

/// An engine, and what stands for its connection: an `ssl.SSLObject`, or what answers like one.
pub struct Made {
    pub engine: Box<DynEngine>,
    pub ssl_object: Owned,
}

/// Makes the engine for a connection; raises what `SSLContext.wrap_bio` raises.
pub fn make(py: Python<'_>, terms: &Terms<'_, '_>) -> PyResult<Made> {
    if let Some(made) = rustls::make(py, terms)? {
        return Ok(made);
    }
    let bio = imports::memory_bio(py)?;
    let (incoming, outgoing) = (bio.call0()?, bio.call0()?);
    let options = PyDict::new(py);
    options.set_item("server_side", terms.server_side)?;
    options.set_item("server_hostname", terms.server_hostname)?;
    let object = terms.context.call_method("wrap_bio", (&incoming, &outgoing), Some(&options))?;
    let engine: Box<DynEngine> = match choice(py)? {
        Choice::Direct => match direct::Direct::new(&object)? {
            Some(engine) => Box::new(engine),
            // Not an object of `ssl`: a context of another class.
            None => Box::new(memory_bio::MemoryBio::new(&object, &incoming, &outgoing)?),
        },
        Choice::MemoryBio => Box::new(memory_bio::MemoryBio::new(&object, &incoming, &outgoing)?),
    };
    Ok(Made { engine, ssl_object: object.into() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Direct = 1,
    MemoryBio = 2,
}

impl Choice {
    fn name(self) -> &'static str {
        match self {
            Choice::Direct => "direct",
            Choice::MemoryBio => "memory-bio",
        }
    }
}

/// 0 until it is made. Several threads may make it at once: they find the same.
static CHOICE: AtomicU8 = AtomicU8::new(0);

fn choice(py: Python<'_>) -> PyResult<Choice> {
    match CHOICE.load(Ordering::Relaxed) {
        1 => Ok(Choice::Direct),
        2 => Ok(Choice::MemoryBio),
        _ => {
            let wanted = std::env::var("TOKIOLOOP_TLS_ENGINE").unwrap_or_default();
            let choice =
                if wanted != "memory-bio" && direct::works(py)? { Choice::Direct } else { Choice::MemoryBio };
            CHOICE.store(choice as u8, Ordering::Relaxed);
            tracing::debug!(engine = choice.name(), "TLS engine chosen");
            Ok(choice)
        }
    }
}

/// The engine that new connections over an `ssl.SSLContext` get: "direct" or "memory-bio". With an argument, for tests:
/// use that one from now on; ValueError where it does not work.
#[pyfunction]
#[pyo3(signature = (name=None))]
pub fn _tls_engine(py: Python<'_>, name: Option<&str>) -> PyResult<&'static str> {
    match name {
        None => {}
        Some("direct") if direct::works(py)? => CHOICE.store(Choice::Direct as u8, Ordering::Relaxed),
        Some("memory-bio") => CHOICE.store(Choice::MemoryBio as u8, Ordering::Relaxed),
        Some(name) => return Err(PyValueError::new_err(format!("TLS engine {name} does not work here"))),
    }
    Ok(choice(py)?.name())
}
