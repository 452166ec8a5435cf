//! rustls, for the configurations of `tokioloop.tls`.
//!
//! | room     | what lives there                                        |
//! |----------|---------------------------------------------------------|
//! | here     | the engine                                              |
//! | `input`  | ciphertext that waits to be complete                    |
//! | `error`  | rustls's errors as those of `ssl`                       |
//! | `facts`  | what stands for the connection in `get_extra_info`      |
//!
//! The unbuffered API: rustls decrypts in memory of ours and encrypts into the wire's output, and keeps no buffers.

mod error;
mod facts;
mod input;

use std::ffi::c_int;
use std::ops::DerefMut;
use std::sync::{Arc, OnceLock};

use ::rustls::Error;
use ::rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use ::rustls::pki_types::ServerName;
use ::rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use ::rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::{DynEngine, Made, Terms};
use crate::net::tls::config::{ClientConfig, ServerConfig};
use crate::proto::tls::{Engine, Handshake, Stop, Wire};
use crate::py::Owned;
pub use error::error;
pub use facts::Connection;
use facts::Facts;
use input::Input;

/// Makes the engine where the terms are of `tokioloop.tls`; None for others.
pub fn make(py: Python<'_>, terms: &Terms<'_, '_>) -> PyResult<Option<Made>> {
    let facts = Arc::new(OnceLock::new());
    let (engine, hostname): (Box<DynEngine>, _) = if let Ok(config) = terms.context.cast::<ServerConfig>() {
        let session = UnbufferedServerConnection::new(config.get().inner.clone());
        (Box::new(Rustls::new(session.map_err(|failed| error(py, &failed, None))?, None, &facts)), None)
    } else if let Ok(config) = terms.context.cast::<ClientConfig>() {
        let hostname = hostname(terms)?;
        let name = ServerName::try_from(hostname.clone()).map_err(|_| {
            PyValueError::new_err(format!("server_hostname is not a name or address: {hostname:?}"))
        })?;
        let session = UnbufferedClientConnection::new(config.get().inner.clone(), name);
        let session = session.map_err(|failed| error(py, &failed, None))?;
        (Box::new(Rustls::new(session, Some(hostname.clone()), &facts)), Some(hostname))
    } else {
        return Ok(None);
    };
    let connection = Connection::new(terms.context, terms.server_side, hostname, facts);
    Ok(Some(Made { engine, ssl_object: Bound::new(py, connection)?.into_any().into() }))
}

/// The name to expect, as it goes over the wire: international ones in their ASCII form.
fn hostname(terms: &Terms<'_, '_>) -> PyResult<String> {
    let Some(name) = terms.server_hostname else {
        let message = "ClientConfig needs server_hostname: the certificate is checked against it";
        return Err(PyValueError::new_err(message));
    };
    let encoded = match name.cast::<PyString>() {
        // An empty label and one that is too long are refused here, with a kind of ValueError.
        Ok(name) if !name.to_str()?.is_ascii() => name.call_method1("encode", ("idna",))?,
        Ok(name) => return Ok(name.to_str()?.to_owned()),
        Err(_) => name.clone(),
    };
    Ok(String::from_utf8_lossy(encoded.cast::<PyBytes>()?.as_bytes()).into_owned())
}

/// A client's or a server's session.
trait Session: DerefMut<Target = UnbufferedConnectionCommon<Self::Data>> {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Session for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl Session for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

/// Why nothing more will be read.
enum End {
    /// The peer sent close_notify.
    Closed,
    Failed(Error),
}

struct Rustls<S> {
    session: S,
    input: Input,
    /// Decrypted, but more than there was room for: the rest of one record, and how much of that was given out.
    rest: Vec<u8>,
    given: usize,
    end: Option<End>,
    /// The name that the certificate must contain, for the error.
    hostname: Option<String>,
    /// Filled in once the handshake is done.
    facts: Arc<OnceLock<Facts>>,
}

/// Memory for plaintext, and where goes what it cannot take.
struct Room<'a> {
    memory: &'a mut [u8],
    count: usize,
    rest: &'a mut Vec<u8>,
}

impl Room<'_> {
    fn put(&mut self, plaintext: &[u8]) {
        let fits = plaintext.len().min(self.memory.len() - self.count);
        self.memory[self.count..self.count + fits].copy_from_slice(&plaintext[..fits]);
        self.count += fits;
        self.rest.extend_from_slice(&plaintext[fits..]);
    }
}

impl<S: Session> Rustls<S> {
    fn new(session: S, hostname: Option<String>, facts: &Arc<OnceLock<Facts>>) -> Self {
        let facts = facts.clone();
        Self { session, input: Input::default(), rest: Vec::new(), given: 0, end: None, hostname, facts }
    }

    /// Lets the session work off what was taken in, into `room` and the output. What it may write is written by `write`,
    /// called where it comes to that. Returns how much plaintext came out.
    fn advance(
        &mut self,
        ciphertext: &mut Vec<u8>,
        output: &mut Vec<u8>,
        plaintext: &mut [u8],
        write: impl FnOnce(WriteTraffic<'_, S::Data>, &mut Vec<u8>) -> Result<(), Error>,
    ) -> usize {
        let mut room = Room { memory: plaintext, count: 0, rest: &mut self.rest };
        let mut write = Some(write);
        let mut done = 0;
        loop {
            // After a failure only the alert for the peer.
            if matches!(self.end, Some(End::Failed(_))) && !self.session.wants_write() {
                break;
            }
            let UnbufferedStatus { mut discard, state, .. } = self.session.process(&mut ciphertext[done..]);
            let mut on = true;
            let result = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            discard += record.discard;
                            room.put(record.payload);
                        }
                        Some(Err(error)) => break Err(error),
                        None => break Ok(()),
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(output, 0, |memory| data.encode(memory))
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(())
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.end = Some(End::Closed);
                    Ok(())
                }
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    on = false;
                    write.take().map_or(Ok(()), |write| write(traffic, output))
                }
                Ok(_) => {
                    on = false;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            done += discard;
            match result {
                Ok(()) if on => {}
                Ok(()) => break,
                Err(_) if matches!(self.end, Some(End::Failed(_))) => break,
                Err(error) => self.end = Some(End::Failed(error)),
            }
        }
        ciphertext.drain(..done);
        room.count
    }

    /// What went wrong, as an exception.
    #[cold]
    fn failed(&self, failed: &Error) -> PyErr {
        // SAFETY: an engine is only driven by the loop's thread, attached.
        let py = unsafe { Python::assume_attached() };
        error(py, failed, self.hostname.as_deref())
    }

    /// Gives out what was decrypted before.
    fn give(&mut self, plaintext: &mut [u8]) -> usize {
        let waiting = &self.rest[self.given..];
        let count = waiting.len().min(plaintext.len());
        plaintext[..count].copy_from_slice(&waiting[..count]);
        self.given += count;
        if self.given == self.rest.len() {
            (self.rest, self.given) = (Vec::new(), 0);
        }
        count
    }

    /// `advance` with nothing new, for what is to be written.
    fn speak(
        &mut self,
        output: &mut Vec<u8>,
        write: impl FnOnce(WriteTraffic<'_, S::Data>, &mut Vec<u8>) -> Result<(), Error>,
    ) -> PyResult<()> {
        if let Some(End::Failed(error)) = &self.end {
            return Err(self.failed(error));
        }
        let mut ciphertext = self.input.take_held();
        self.advance(&mut ciphertext, output, &mut [], write);
        self.input.put_held(ciphertext);
        match &self.end {
            Some(End::Failed(error)) => Err(self.failed(error)),
            _ => Ok(()),
        }
    }
}

/// What an encoder says when the memory is too small.
trait TooSmall {
    fn required(self) -> Result<usize, Error>;
}

impl TooSmall for EncodeError {
    fn required(self) -> Result<usize, Error> {
        match self {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
            EncodeError::AlreadyEncoded => Err(Error::EncryptError),
        }
    }
}

impl TooSmall for EncryptError {
    fn required(self) -> Result<usize, Error> {
        match self {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
            EncryptError::EncryptExhausted => Err(Error::EncryptError),
        }
    }
}

/// Lets `encode` write behind the output: with `guess` bytes of room, and with as many as it asks for if these are too few.
fn append<E: TooSmall>(
    output: &mut Vec<u8>,
    guess: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Error> {
    let start = output.len();
    let mut size = guess;
    loop {
        output.resize(start + size, 0);
        match encode(&mut output[start..]) {
            Ok(written) => {
                output.truncate(start + written);
                return Ok(());
            }
            Err(error) => {
                let required = error.required();
                output.truncate(start);
                size = required?;
            }
        }
    }
}

/// The most plaintext in a record, and the most bytes that encryption adds to it, in bytes.
const RECORD: usize = 16 * 1024;
const OVERHEAD: usize = 5 + 8 + 1 + 16;

impl<S: Session> Engine for Rustls<S> {
    type Error = PyErr;

    fn handshake(&mut self, wire: &mut Wire<'_>) -> PyResult<Handshake> {
        let mut ciphertext = self.input.take_held();
        let reached = loop {
            self.advance(&mut ciphertext, &mut wire.output, &mut [], |_, _| Ok(()));
            match &self.end {
                Some(End::Failed(error)) => break Err(self.failed(error)),
                Some(End::Closed) => {
                    // SAFETY: as in `failed`.
                    let py = unsafe { Python::assume_attached() };
                    break Err(error::closed(py));
                }
                None if !self.session.is_handshaking() => break Ok(Handshake::Done),
                None => {}
            }
            // Record by record: what follows the handshake is for `read`.
            if !self.input.take(&mut ciphertext, wire, 0) {
                break Ok(Handshake::Pending);
            }
        };
        self.input.put_held(ciphertext);
        if matches!(reached, Ok(Handshake::Done)) {
            let _ = self.facts.set(Facts::of(&self.session));
        }
        reached
    }

    fn read(&mut self, wire: &mut Wire<'_>, plaintext: &mut [u8]) -> PyResult<(usize, Stop)> {
        let mut count = self.give(plaintext);
        let mut ciphertext = self.input.lend(wire.input.len());
        let stop = loop {
            if !self.rest.is_empty() {
                break Ok(Stop::Full);
            }
            // Before the check for room: perhaps no later call comes for it.
            match &self.end {
                None if count == plaintext.len() => break Ok(Stop::Full),
                None => {}
                Some(End::Closed) => {
                    // Bytes after close_notify are ignored.
                    ciphertext.clear();
                    wire.input = &[];
                    break Ok(Stop::Closed);
                }
                Some(End::Failed(_)) if count > 0 => break Ok(Stop::Full),
                Some(End::Failed(error)) => break Err(self.failed(error)),
            }
            if !self.input.take(&mut ciphertext, wire, plaintext.len() - count) {
                break Ok(Stop::Drained);
            }
            count += self.advance(&mut ciphertext, &mut wire.output, &mut plaintext[count..], |_, _| Ok(()));
        };
        self.input.give_back(ciphertext);
        stop.map(|stop| (count, stop))
    }

    fn write(&mut self, wire: &mut Wire<'_>, plaintext: &[u8]) -> PyResult<usize> {
        let guess = plaintext.len() + (plaintext.len() / RECORD + 1) * OVERHEAD;
        let mut written = 0;
        self.speak(&mut wire.output, |mut traffic, output| {
            append(output, guess, |memory| traffic.encrypt(plaintext, memory))?;
            written = plaintext.len();
            Ok(())
        })?;
        Ok(written)
    }

    fn close(&mut self, wire: &mut Wire<'_>) -> PyResult<()> {
        self.speak(&mut wire.output, |mut traffic, output| {
            append(output, 64, |memory| traffic.queue_close_notify(memory))
        })
    }
}

impl<S: Session> super::Visible for Rustls<S> {
    fn visit(&self, _see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int> {
        Ok(()) // It holds no Python object.
    }
}
