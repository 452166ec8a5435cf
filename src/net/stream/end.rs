//! What is a stream's own in the end of a transport (`net/transport/end.rs`).

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::{Kind, Stream, Transport};
use crate::net::transport::end::{Ends, Life, Step};
use crate::py::names::names;
use crate::sys;

/// The number of an OSError.
fn errno(py: Python<'_>, error: &PyErr) -> Option<i32> {
    error.is_instance_of::<PyOSError>(py).then(|| error.value(py).getattr("errno").ok()?.extract().ok())?
}

impl Ends for Stream {
    fn life(&mut self) -> &mut Life {
        &mut self.life
    }

    fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    fn take_queue(&mut self) -> impl Sized + use<> {
        let queued = self.queue.take();
        self.publish_size();
        queued
    }

    /// As in asyncio, an OSError was not caused by the program.
    fn is_quiet(transport: Transport<'_, '_>, error: &PyErr) -> bool {
        match transport.kind() {
            // The other side of a terminal.
            Kind::ReadPipe => errno(transport.py(), error) == Some(libc::EIO),
            Kind::Socket | Kind::WritePipe => error.is_instance_of::<PyOSError>(transport.py()),
        }
    }

    fn apply_read_mode(transport: Transport<'_, '_>) -> PyResult<()> {
        transport.apply_read_mode()
    }

    fn close_descriptor(transport: Transport<'_, '_>) -> PyResult<()> {
        let py = transport.py();
        let Some(fd) = transport.take_fd() else { return Ok(()) };
        let sock = transport.public(|public| public.objects.lock(py).extra.socket_closed(py, fd));
        match sock {
            Some(sock) => sock.bind(py).call_method0(names().close.bind(py)).map(drop),
            None => {
                sys::socket::close(fd);
                Ok(())
            }
        }
    }

    const AFTER_CLOSE: Step<Self> = |transport, error| transport.lose_sender(error);

    /// The server waits for the end of its connections.
    const LAST: Step<Self> = |transport, _| {
        let Some(server) = transport.with(|stream| stream.server.take())? else { return Ok(()) };
        let py = transport.py();
        server.bind(py).call_method1(names()._detach.bind(py), (transport.object,)).map(drop)
    };
}
