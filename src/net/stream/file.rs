//! A file on its way through a transport: while it is, writes are refused, and the sender is told when it is its turn, that is
//! when everything written before is gone and the kernel takes bytes.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;

use super::Transport;
use crate::event_loop::endpoint::with_driver;
use crate::event_loop::task;
use crate::net::dns::settle;
use crate::py::Owned;

/// A file is being sent. The future is the sender's, which waits for its next turn.
#[derive(Default)]
pub struct Sender {
    pub waiting: Option<Owned>,
}

fn lost() -> PyErr {
    PyConnectionError::new_err("Connection is closed by peer")
}

impl<'py> Transport<'_, 'py> {
    /// From here on only the sender of a file sends.
    pub(super) fn begin_file(self) -> PyResult<()> {
        let refusal = self.with(|stream| {
            if stream.eof_requested {
                return Some("Cannot call sendfile() after write_eof()");
            }
            if stream.sender.is_some() {
                return Some("unable to sendfile; sendfile is in progress");
            }
            stream.sender = Some(Sender::default());
            None
        })?;
        refusal.map_or_else(|| self.keep_or_rest(), |text| Err(PyRuntimeError::new_err(text)))
    }

    /// Writes are taken again. An end of writing asked for meanwhile comes now.
    pub(super) fn end_file(self) -> PyResult<()> {
        let former = self.with(|stream| stream.sender.take())?;
        let ended = former.is_some();
        drop(former);
        if ended { self.after_flush() } else { Ok(()) }
    }

    /// Wakes the sender of a file, if one waits.
    pub(super) fn wake_sender(self, result: PyResult<()>) -> PyResult<()> {
        let py = self.py();
        match self.with(|stream| stream.sender.as_mut().and_then(|sender| sender.waiting.take()))? {
            Some(waiting) => settle(py, &waiting, result.map(|()| py.None().into_bound(py))),
            None => Ok(()),
        }
    }

    /// The connection is lost: notifies the sender of a file.
    pub(super) fn lose_sender(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let error = if error.is_none() { lost() } else { PyErr::from_value(error.clone()) };
        self.wake_sender(Err(error))
    }
}

/// The socket to send on, if it is the sender's turn.
pub fn turn(transport: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    let transport = Transport::new(transport);
    let (gone, free) = transport.with(|stream| (stream.life.is_over(), stream.queue.is_empty()))?;
    match transport.fd() {
        Some(fd) if !gone => Ok(free.then_some(fd)),
        _ => Err(lost()),
    }
}

/// A future of the sender's next turn; `full` says that the kernel just refused bytes.
pub fn wait_for_turn(transport: &Bound<'_, PyAny>, full: bool) -> PyResult<Owned> {
    let transport = Transport::new(transport);
    let event_loop = transport.event_loop();
    let future = task::create_future(&event_loop)?;
    let waiting = future.clone_ref(transport.py());
    let (token, former) = transport
        .with(|stream| {
            let free = stream.queue.is_empty();
            let Some(sender) = &mut stream.sender else { return Err(waiting) };
            // With bytes queued the driver reports anyway, and the flush after that hands on.
            Ok((stream.life.token.filter(|_| free), sender.waiting.replace(waiting)))
        })?
        .map_err(|_| PyRuntimeError::new_err("no file is being sent"))?;
    drop(former);
    if let Some(token) = token {
        with_driver(&event_loop, |driver| driver.report_writable(token, full))?;
    }
    Ok(future)
}
