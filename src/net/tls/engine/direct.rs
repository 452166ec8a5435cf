//! OpenSSL called directly: no Python call stands in the data path.
//!
//! A real `ssl.SSLObject` is made first, by the caller's context, and stays what programs see. Its connection's I/O is then
//! taken over. What happens once per connection (the handshake with its callbacks, errors) goes through the object's own
//! methods, so that it is right in every detail; reading and writing call the library.
//!
//! Where CPython keeps the `SSL*` is no public fact. [`works`] looks whether it is where we know it to be, by comparing what
//! stands around it with what must stand there, before it is ever used.

use std::path::PathBuf;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;

use crate::proto::tls::{Engine, Handshake, Stop, Wire};
use crate::py::names::names;
use crate::py::{Owned, call, imports};
use crate::sys::libssl::{Connection, LibSsl, Ssl, Trouble};

/// The fields of `_ssl._SSLSocket` behind the object's header, in CPython 3.13 and 3.14.
#[repr(C)]
struct SslSocket {
    header: ffi::PyObject,
    socket: *mut ffi::PyObject,
    ssl: *mut Ssl,
    context: *mut ffi::PyObject,
    /// shutdown_seen_zero, socket_type; owner; server_hostname; the last error; an exception.
    rest: [usize; 5],
}

pub struct Direct {
    /// Before `object`, and so dropped first: it lets go of the I/O of a connection that is still alive.
    connection: Connection,
    /// The `_ssl._SSLSocket`, which owns the connection.
    object: Owned,
    /// What went wrong behind bytes that were still to be given out.
    failed: Option<Owned>,
}

/// Whether this interpreter's `_ssl` is as we know it. Looked at once.
pub fn works(py: Python<'_>) -> PyResult<bool> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    if let Some(&works) = WORKS.get() {
        return Ok(works);
    }
    let ssl = py.import("ssl")?;
    let context = ssl.getattr("SSLContext")?.call1((ssl.getattr("PROTOCOL_TLS_SERVER")?,))?;
    let bio = imports::memory_bio(py)?;
    let object = context.call_method1("wrap_bio", (bio.call0()?, bio.call0()?, true))?;
    let works = find(&object)?.is_some();
    Ok(*WORKS.get_or_init(|| works))
}

/// The library that `_ssl` uses, where it is a shared one.
fn library(py: Python<'_>) -> PyResult<Option<&'static LibSsl>> {
    let module = py.import("_ssl")?;
    let Ok(file) = module.getattr("__file__") else { return Ok(None) };
    Ok(LibSsl::behind(&file.extract::<PathBuf>()?))
}

/// The connection behind an `ssl.SSLObject`, with the object that owns it; None where things are not as expected, also for an
/// object of a program's own class (`SSLContext.sslobject_class`): what its methods do and refuse is to be asked for.
fn find<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<(&'static LibSsl, *mut Ssl, Bound<'py, PyAny>)>> {
    let py = object.py();
    if !object.get_type().is(imports::ssl_object(py)?) {
        return Ok(None);
    }
    let Some(library) = library(py)? else { return Ok(None) };
    let Ok(owner) = object.getattr("_sslobj") else { return Ok(None) };
    let class = py.import("_ssl")?.getattr("_SSLSocket")?;
    let size: usize = class.getattr("__basicsize__")?.extract()?;
    if !owner.get_type().is(&class) || size != size_of::<SslSocket>() {
        return Ok(None);
    }
    let context = owner.getattr("context")?;
    // SAFETY: the object has as many bytes as our struct, checked above; only words are compared until it is clear that the
    // one in the middle is a connection: its neighbours are what they must be, for an object without a socket.
    unsafe {
        let fields = &*owner.as_ptr().cast::<SslSocket>();
        let fits = fields.socket.is_null() && fields.context == context.as_ptr() && !fields.ssl.is_null();
        // And it knows its object.
        if !fits || library.application_data(fields.ssl) != owner.as_ptr().cast() {
            return Ok(None);
        }
        Ok(Some((library, fields.ssl, owner)))
    }
}

impl Direct {
    /// Takes over the I/O of an `ssl.SSLObject`; None for what is not made as `ssl` makes it.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let Some((library, ssl, owner)) = find(object)? else { return Ok(None) };
        // SAFETY: `owner` frees the connection when it goes, and is kept below; the engine is its transport's, used by the
        // loop's thread only.
        let connection = unsafe { Connection::new(library, ssl) };
        Ok(connection.map(|connection| Self { connection, object: owner.into(), failed: None }))
    }

    /// Calls the library with input and output lent, holding the lock that the object's own methods take: another thread may be
    /// asking it for its session, which a ticket that comes in replaces.
    fn locked<R>(&mut self, wire: &mut Wire<'_>, call: impl FnOnce(&mut Connection) -> R) -> R {
        // SAFETY: an engine is only driven by the loop's thread, attached.
        let py = unsafe { Python::assume_attached() };
        let (connection, object) = (&mut self.connection, self.object.bind(py));
        with_critical_section(&object, || connection.lend(&mut wire.input, &mut wire.output, call))
    }

    /// The exception for what just failed: the object's own method meets the same failure, which stays with the connection,
    /// and says it as `ssl` does. None if the peer said goodbye.
    #[cold]
    fn error(&mut self, wire: &mut Wire<'_>) -> Option<PyErr> {
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        let object = self.object.clone_ref(py).into_bound(py);
        let told =
            self.connection.lend(&mut wire.input, &mut wire.output, |_| object.call_method1("read", (1,)));
        // When both sides have said goodbye, the second one is an exception of its own.
        told.err().filter(|error| !super::memory_bio::is_goodbye(py, error))
    }
}

impl Engine for Direct {
    type Error = PyErr;

    fn handshake(&mut self, wire: &mut Wire<'_>) -> PyResult<Handshake> {
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        let object = &self.object;
        let result = self.connection.lend(&mut wire.input, &mut wire.output, |_| {
            call::method0(py, object, names().do_handshake).map(drop)
        });
        super::memory_bio::pending(py, result)
    }

    fn read(&mut self, wire: &mut Wire<'_>, plaintext: &mut [u8]) -> PyResult<(usize, Stop)> {
        if let Some(failed) = self.failed.take() {
            // SAFETY: as in `locked`.
            let py = unsafe { Python::assume_attached() };
            return Err(PyErr::from_value(failed.into_bound(py)));
        }
        let mut count = 0;
        let end = self.locked(wire, |connection| {
            while count < plaintext.len() {
                match connection.read(&mut plaintext[count..]) {
                    Ok(read) => count += read,
                    Err(trouble) => return Some(trouble),
                }
                // Saves asking once more.
                if connection.is_drained() {
                    return Some(Trouble::WantRead);
                }
            }
            None
        });
        match end {
            None => Ok((count, Stop::Full)),
            Some(Trouble::WantRead) => Ok((count, Stop::Drained)),
            Some(Trouble::Closed | Trouble::Failed) => {
                let Some(error) = self.error(wire) else { return Ok((count, Stop::Closed)) };
                if count == 0 {
                    return Err(error);
                }
                // SAFETY: as in `locked`.
                let py = unsafe { Python::assume_attached() };
                self.failed = Some(error.into_value(py).into_bound(py).into_any().into());
                Ok((count, Stop::Full))
            }
        }
    }

    fn write(&mut self, wire: &mut Wire<'_>, plaintext: &[u8]) -> PyResult<usize> {
        match self.locked(wire, |connection| connection.write(plaintext)) {
            Ok(count) => Ok(count),
            Err(Trouble::WantRead) => Ok(0),
            Err(_) => self.error(wire).map_or(Ok(0), Err),
        }
    }

    fn close(&mut self, wire: &mut Wire<'_>) -> PyResult<()> {
        match self.locked(wire, Connection::shutdown) {
            Ok(()) | Err(Trouble::WantRead | Trouble::Closed) => Ok(()),
            Err(Trouble::Failed) => self.error(wire).map_or(Ok(()), Err),
        }
    }
}
