//! OpenSSL called directly: there is no Python call in the data path.
//!
//! A real `ssl.SSLObject` is made first, by the caller's context, and stays what programs see. Its connection's I/O is then
//! taken over. What happens once per connection (the handshake with its callbacks, errors) goes through the object's own
//! methods, so that it is right in every detail; reading and writing call the library.
//!
//! The place of the `SSL*` in CPython's object is not public. [`works`] checks that it is where we expect it, by comparing the
//! fields around it with their expected values, and that it belongs to the library that we would call, before it is ever
//! used.

use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyBytes;

use super::memory_bio::{is_goodbye, is_late_data, pending, wants_input};
use crate::proto::tls::{Engine, Handshake, Stop, Wire};
use crate::py::names::names;
use crate::py::{Owned, call, imports};
use crate::sys::libssl::{Connection, Lent, LibSsl, Ssl, Trouble, Version};

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
    connection: Connection,
    /// The `_ssl._SSLSocket`, which owns the connection.
    object: Owned,
    /// What went wrong behind bytes that were still to be given out.
    failed: Option<Owned>,
}

/// Whether this interpreter's `_ssl` is as we know it, and calls the library that we would. Looked at once.
pub fn works(py: Python<'_>) -> PyResult<bool> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    if let Some(&works) = WORKS.get() {
        return Ok(works);
    }
    let ssl = py.import("ssl")?;
    let context = ssl.getattr("SSLContext")?.call1((ssl.getattr("PROTOCOL_TLS_SERVER")?,))?;
    let bio = imports::memory_bio(py)?;
    // The library is looked for after a connection was made: what `_ssl` calls for that is bound from then on.
    let object = context.call_method1("wrap_bio", (bio.call0()?, bio.call0()?, true))?;
    let works = match find(&object)? {
        // SAFETY: `find` has compared what stands around the pointer; `made` does not call the connection's library.
        Some(found) => unsafe { found.library.made(found.ssl) && found.knows_its_object() },
        None => false,
    };
    Ok(*WORKS.get_or_init(|| works))
}

/// The library that `_ssl` uses, where it is a shared one and certainly that.
fn library(py: Python<'_>) -> PyResult<Option<&'static LibSsl>> {
    let module = py.import("_ssl")?;
    let Ok(file) = module.getattr("__file__") else { return Ok(None) };
    let version = || {
        let number = module.getattr("OPENSSL_VERSION_NUMBER").ok()?.extract().ok()?;
        Some(Version { number, text: module.getattr("OPENSSL_VERSION").ok()?.extract().ok()? })
    };
    Ok(LibSsl::behind(&file.extract::<PathBuf>()?, version))
}

/// The connection behind an `ssl.SSLObject`, with the object that owns it.
struct Found<'py> {
    library: &'static LibSsl,
    ssl: *mut Ssl,
    owner: Bound<'py, PyAny>,
}

impl Found<'_> {
    /// Whether the connection's application data is the object.
    ///
    /// # Safety
    /// The connection is the library's.
    unsafe fn knows_its_object(&self) -> bool {
        // SAFETY: promised; the owner, which is alive, keeps the connection.
        unsafe { self.library.application_data(self.ssl) == self.owner.as_ptr().cast() }
    }
}

/// None where things are not as expected, also for an object of a program's own class (`SSLContext.sslobject_class`), whose methods
/// are to be asked what they do and refuse, and for a context with a message callback.
fn find<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Found<'py>>> {
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
    // It is called for every record, and its errors belong to the call that caused it: `ssl` ensures that.
    if !context.getattr("_msg_callback")?.is_none() {
        return Ok(None);
    }
    // SAFETY: the object has as many bytes as our struct, checked above; only words are compared.
    let (ssl, fits) = unsafe {
        let fields = &*owner.as_ptr().cast::<SslSocket>();
        (fields.ssl, fields.socket.is_null() && fields.context == context.as_ptr() && !fields.ssl.is_null())
    };
    // The neighbours are what they must be, for an object without a socket.
    Ok(fits.then_some(Found { library, ssl, owner }))
}

impl Direct {
    /// Takes over the I/O of an `ssl.SSLObject`; None for what is not made as `ssl` makes it. To be called where this [`works`].
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let Some(found) = find(object)? else { return Ok(None) };
        // SAFETY: `works` has seen that `_ssl` makes connections of this library. `owner` frees the connection when it goes, and
        // is kept below; the engine is its transport's, used by the loop's thread only.
        let connection = unsafe {
            if !found.knows_its_object() {
                return Ok(None);
            }
            with_critical_section(&found.owner, || Connection::new(found.library, found.ssl))
        };
        Ok(connection.map(|connection| Self { connection, object: found.owner.into(), failed: None }))
    }

    /// Calls the library with input and output lent, holding the lock that the object's own methods take: another thread may be
    /// asking it for its session, which a ticket that comes in replaces.
    #[inline]
    fn locked<R>(&self, wire: &mut Wire<'_>, call: impl FnOnce(&Lent<'_>) -> R) -> R {
        // SAFETY: an engine is only driven by the loop's thread, attached.
        let py = unsafe { Python::assume_attached() };
        let (connection, object) = (&self.connection, self.object.bind(py));
        with_critical_section(&object, || connection.lend(&mut wire.input, &mut wire.output, call))
    }

    /// The same for a write, which looks at the error queue itself where it has to.
    #[inline]
    fn locked_to_write(&self, wire: &mut Wire<'_>, plaintext: &[u8]) -> Result<usize, Trouble> {
        // SAFETY: as above.
        let py = unsafe { Python::assume_attached() };
        let (connection, object) = (&self.connection, self.object.bind(py));
        with_critical_section(&object, || {
            connection.lend_as_it_is(&mut wire.input, &mut wire.output, |lent| lent.write(plaintext))
        })
    }

    /// `ssl`'s exception for a call that just failed, raised by one of the object's own methods. After a fatal error
    /// OpenSSL goes no further, and a handshake, which takes no data from the connection, gets that error. Otherwise the same call,
    /// repeated by the object, is refused again; but it may also succeed, and then its result counts.
    #[cold]
    fn again<'py>(
        &self,
        wire: &mut Wire<'_>,
        repeat: impl FnOnce(Python<'py>, &Owned) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        // The queue is as the failed call left it, so that the handshake's exception is about that.
        self.connection.lend_as_it_is(&mut wire.input, &mut wire.output, |lent| {
            if lent.in_handshake()
                && let Err(error) = call::method0(py, &self.object, names().do_handshake)
                // Not a fatal error but half of a message, a KeyUpdate's for instance, in which some calls are refused.
                && !wants_input(py, &error)?
            {
                return Err(error);
            }
            let result = repeat(py, &self.object);
            lent.forget_errors();
            result
        })
    }
}

impl Engine for Direct {
    type Error = PyErr;

    fn handshake(&mut self, wire: &mut Wire<'_>) -> PyResult<Handshake> {
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        let object = &self.object;
        let result = self.connection.lend(&mut wire.input, &mut wire.output, |lent| {
            let result = call::method0(py, object, names().do_handshake).map(drop);
            lent.forget_errors();
            result
        });
        pending(py, result)
    }

    fn read(&mut self, wire: &mut Wire<'_>, plaintext: &mut [u8]) -> PyResult<(usize, Stop)> {
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        if let Some(failed) = self.failed.take() {
            return Err(PyErr::from_value(failed.into_bound(py)));
        }
        let mut count = 0;
        loop {
            let end = self.locked(wire, |lent| {
                while count < plaintext.len() {
                    match lent.read(&mut plaintext[count..]) {
                        Ok(read) => count += read,
                        Err(trouble) => return Some(trouble),
                    }
                    // Saves asking once more.
                    if lent.is_drained() {
                        return Some(Trouble::WantRead);
                    }
                }
                None
            });
            match end {
                None => return Ok((count, Stop::Full)),
                Some(Trouble::WantRead) => return Ok((count, Stop::Drained)),
                Some(Trouble::Closed) => return Ok((count, Stop::Closed)),
                Some(Trouble::Failed) => {}
            }
            let one = 1_i32.into_pyobject(py)?.into_any();
            match self
                .again(wire, |py, object| Ok(call::method1(py, object, names().read, &one)?.into_bound(py)))
            {
                Ok(byte) => match byte.cast::<PyBytes>()?.as_bytes() {
                    [] => return Ok((count, Stop::Closed)),
                    bytes => {
                        plaintext[count..count + bytes.len()].copy_from_slice(bytes);
                        count += bytes.len();
                    }
                },
                Err(error) if wants_input(py, &error)? => return Ok((count, Stop::Drained)),
                // When both sides have said goodbye, the second one is an exception of its own.
                Err(error) if is_goodbye(py, &error) => return Ok((count, Stop::Closed)),
                Err(error) if count > 0 => {
                    self.failed = Some(error.into_value(py).into_bound(py).into_any().into());
                    return Ok((count, Stop::Full));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, wire: &mut Wire<'_>, plaintext: &[u8]) -> PyResult<usize> {
        match self.locked_to_write(wire, plaintext) {
            Ok(count) => return Ok(count),
            Err(Trouble::WantRead) => return Ok(0),
            Err(_) => {}
        }
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        let written = self.again(wire, |py, object| {
            Ok(call::method1(py, object, names().write, &PyBytes::new(py, plaintext))?.into_bound(py))
        });
        match written {
            Ok(count) => count.extract(),
            Err(error) if wants_input(py, &error)? => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn close(&mut self, wire: &mut Wire<'_>) -> PyResult<()> {
        let Err(Trouble::Failed) = self.locked(wire, |lent| lent.shutdown()) else { return Ok(()) };
        // SAFETY: as in `locked`.
        let py = unsafe { Python::assume_attached() };
        // The object's `unwrap()`, by the name that `_ssl` has for it.
        match self.again(wire, |py, object| object.bind(py).call_method0("shutdown")) {
            Ok(_) => Ok(()),
            // close_notify is out; the peer's is in already, or not in yet, or data comes before it.
            Err(error) if is_goodbye(py, &error) || wants_input(py, &error)? || is_late_data(py, &error)? => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl super::Visible for Direct {
    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int> {
        see(&self.object)?;
        self.failed.iter().try_for_each(see)
    }
}
