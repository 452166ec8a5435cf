//! A file sent by the kernel: `sock_sendfile`, and `sendfile` through a transport.

use std::io;
use std::os::fd::RawFd;

use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;

use super::operation::{Attempt, descriptor};
use crate::event_loop::EventLoop;
use crate::net::{stream, watch};
use crate::py::errors::os_error;
use crate::py::{Owned, imports};
use crate::sys;
use crate::sys::detached::detached;

/// The most that one call sends: a fast receiver must not keep the loop from other work.
const BLOCK: u64 = 1 << 20;

/// How far a file is sent. When it goes away, however that comes about, the file's position shows the progress.
pub struct FileTransfer {
    file: RawFd,
    offset: i64,
    /// None: until the file ends.
    left: Option<u64>,
    size: i64,
    sent: u64,
    /// An attempt was made: the position is ours to set.
    begun: bool,
    /// The last attempt found the socket full.
    full: bool,
    through_transport: bool,
}

impl FileTransfer {
    pub fn new(target: &Bound<'_, PyAny>, file: RawFd, offset: i64, count: Option<u64>, size: i64) -> Self {
        let through_transport = stream::is_stream(target);
        Self { file, offset, left: count, size, sent: 0, begun: false, full: false, through_transport }
    }

    pub fn is_for_transport(&self) -> bool {
        self.through_transport
    }

    /// The future of the transport's next word that it is our turn.
    pub fn turn(&self, transport: &Bound<'_, PyAny>) -> PyResult<Owned> {
        stream::wait_for_turn(transport, self.full)
    }

    pub fn attempt<'py>(
        &mut self,
        event_loop: &Bound<'py, EventLoop>,
        target: &Bound<'py, PyAny>,
    ) -> PyResult<Attempt<'py>> {
        let py = target.py();
        let socket = if self.through_transport {
            match stream::turn(target)? {
                Some(socket) => socket,
                None => return Ok(Attempt::MustWait),
            }
        } else {
            let socket = descriptor(target)?;
            watch::ensure_no_transport(event_loop, socket, target)?;
            socket
        };
        self.begun = true;
        // Twice at the most: the second call is to see the end where the first has sent the last of the file.
        for _ in 0..2 {
            let block = self.left.unwrap_or(BLOCK).min(BLOCK) as usize;
            // The disk may keep it waiting: not while other threads wait for this one.
            let (file, offset) = (self.file, self.offset);
            match detached(|token| sys::file::send(token, socket, file, offset, block)) {
                Ok(0) => return self.ready(py),
                Ok(sent) => {
                    self.offset += sent as i64;
                    self.sent += sent as u64;
                    self.full = false;
                    if let Some(left) = &mut self.left {
                        *left -= sent as u64;
                        if *left == 0 {
                            return self.ready(py);
                        }
                    }
                    if self.offset < self.size {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full = true;
                    break;
                }
                Err(error) => return Err(self.failure(py, error)?),
            }
        }
        Ok(Attempt::MustWait)
    }

    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Attempt<'py>> {
        Ok(Attempt::Ready(self.sent.into_pyobject(py)?.into_any()))
    }

    /// With nothing sent yet, the likely reason is that the kernel cannot do it for such a file or socket.
    fn failure(&self, py: Python<'_>, error: io::Error) -> PyResult<PyErr> {
        let disconnected = error.raw_os_error() == Some(libc::ENOTCONN);
        let cause = os_error(error);
        let raised = if self.sent == 0 {
            PyErr::from_value(imports::sendfile_not_available(py)?.call1(("os.sendfile call failed",))?)
        } else if disconnected {
            PyConnectionError::new_err(("socket is not connected", libc::ENOTCONN))
        } else {
            return Ok(cause);
        };
        raised.set_cause(py, Some(cause));
        Ok(raised)
    }
}

impl Drop for FileTransfer {
    fn drop(&mut self) {
        if self.begun {
            // A file that has no position, or was closed meanwhile, has none to show.
            let _ = sys::file::seek(self.file, self.offset);
        }
    }
}
