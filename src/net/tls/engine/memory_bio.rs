//! The methods of an `ssl.SSLObject` over its two memory BIOs: for interpreters whose OpenSSL cannot be called directly.

use std::ffi::c_int;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::proto::tls::{Engine, Handshake, Stop, Wire};
use crate::py::names::{Name, names};
use crate::py::{Owned, call, imports};
use crate::sys::libssl;

pub struct MemoryBio {
    object: Owned,
    incoming: Owned,
    outgoing: Owned,
    /// What went wrong behind bytes that were still to be given out.
    failed: Option<Owned>,
}

/// Distinguishes "needs input" from an error.
pub fn pending(py: Python<'_>, result: PyResult<()>) -> PyResult<Handshake> {
    match result {
        Ok(()) => Ok(Handshake::Done),
        Err(error) if wants_input(py, &error)? => Ok(Handshake::Pending),
        Err(error) => Err(error),
    }
}

pub fn wants_input(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    Ok(error.is_instance(py, imports::ssl_want_read(py)?)
        || error.is_instance(py, imports::ssl_want_write(py)?))
}

/// Whether an error means that the peer closed, when this side has too.
pub fn is_goodbye(py: Python<'_>, error: &PyErr) -> bool {
    imports::ssl_zero_return(py).is_ok_and(|class| error.is_instance(py, class))
}

/// Whether an error means that data comes before the peer's close_notify.
pub fn is_late_data(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    let reason = error.value(py).getattr_opt("reason")?;
    reason.map_or(Ok(false), |reason| reason.eq("APPLICATION_DATA_AFTER_CLOSE_NOTIFY"))
}

impl MemoryBio {
    pub fn new(
        object: &Bound<'_, PyAny>,
        incoming: &Bound<'_, PyAny>,
        outgoing: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self { object: object.into(), incoming: incoming.into(), outgoing: outgoing.into(), failed: None })
    }

    /// Hands over the input, makes a call, and collects the output, also after a failure.
    fn exchange<R>(
        &mut self,
        wire: &mut Wire<'_>,
        call: impl FnOnce(&mut Self, Python<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        // SAFETY: an engine is only driven by the loop's thread, attached.
        let py = unsafe { Python::assume_attached() };
        // `ssl` does not do it before a call, and would mistake an old error for the call's.
        libssl::forget_errors();
        if !wire.input.is_empty() {
            let input = PyBytes::new(py, wire.take(usize::MAX));
            call::method1(py, &self.incoming, names().write, &input)?;
        }
        let result = call(self, py);
        let output = call::method0(py, &self.outgoing, names().read)?.into_bound(py);
        wire.output.extend_from_slice(output.cast::<PyBytes>()?.as_bytes());
        result
    }

    fn call_with(&self, py: Python<'_>, name: Name, argument: &Bound<'_, PyAny>) -> PyResult<Owned> {
        call::method1(py, &self.object, name, argument)
    }
}

impl Engine for MemoryBio {
    type Error = PyErr;

    fn handshake(&mut self, wire: &mut Wire<'_>) -> PyResult<Handshake> {
        self.exchange(wire, |engine, py| {
            pending(py, call::method0(py, &engine.object, names().do_handshake).map(drop))
        })
    }

    fn read(&mut self, wire: &mut Wire<'_>, plaintext: &mut [u8]) -> PyResult<(usize, Stop)> {
        self.exchange(wire, |engine, py| {
            if let Some(failed) = engine.failed.take() {
                return Err(PyErr::from_value(failed.into_bound(py)));
            }
            let mut count = 0;
            while count < plaintext.len() {
                let room = (plaintext.len() - count).into_pyobject(py)?.into_any();
                match engine.call_with(py, names().read, &room) {
                    Ok(bytes) => {
                        let bytes = bytes.into_bound(py);
                        let bytes = bytes.cast::<PyBytes>()?.as_bytes();
                        if bytes.is_empty() {
                            return Ok((count, Stop::Closed));
                        }
                        let Some(room) = plaintext.get_mut(count..count + bytes.len()) else {
                            return Err(PyRuntimeError::new_err(
                                "the SSLObject's read() returned more than it was asked for",
                            ));
                        };
                        room.copy_from_slice(bytes);
                        count += bytes.len();
                    }
                    Err(error) if wants_input(py, &error)? => return Ok((count, Stop::Drained)),
                    Err(error) if is_goodbye(py, &error) => return Ok((count, Stop::Closed)),
                    Err(error) if count > 0 => {
                        engine.failed = Some(error.into_value(py).into_bound(py).into_any().into());
                        return Ok((count, Stop::Full));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok((count, Stop::Full))
        })
    }

    fn write(&mut self, wire: &mut Wire<'_>, plaintext: &[u8]) -> PyResult<usize> {
        self.exchange(wire, |engine, py| {
            // A copy: an object of a program's own class may keep what it is given.
            match engine.call_with(py, names().write, &PyBytes::new(py, plaintext)) {
                Ok(count) => match count.bind(py).extract()? {
                    count if count <= plaintext.len() => Ok(count),
                    _ => Err(PyRuntimeError::new_err(
                        "the SSLObject's write() says that it took more than there was",
                    )),
                },
                Err(error) if wants_input(py, &error)? => Ok(0),
                Err(error) => Err(error),
            }
        })
    }

    fn close(&mut self, wire: &mut Wire<'_>) -> PyResult<()> {
        self.exchange(wire, |engine, py| {
            match call::method0(py, &engine.object, names().unwrap) {
                Ok(_) => Ok(()),
                // close_notify is out; the peer's is not in yet, or data comes before it.
                Err(error) if wants_input(py, &error)? || is_late_data(py, &error)? => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

impl super::Visible for MemoryBio {
    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int> {
        [&self.object, &self.incoming, &self.outgoing].into_iter().chain(&self.failed).try_for_each(see)
    }
}
