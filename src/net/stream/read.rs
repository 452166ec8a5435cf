//! From the driver to the protocol.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::{Phase, Transport};
use crate::event_loop::EventLoop;
use crate::py::buffer::BufferView;
use crate::py::names::names;
use crate::py::{Owned, call, context};

impl<'py> Transport<'_, 'py> {
    /// Bytes came in: `protocol.data_received(data)`.
    pub(super) fn received(self, event_loop: &Bound<'py, EventLoop>, len: usize) -> PyResult<()> {
        let py = self.py();
        let data = event_loop.get().with(py, |core| {
            let received = core.driver.as_ref().expect("it received").received(len);
            // SAFETY: attached; copies `len` bytes. Making a bytes object runs no Python code.
            unsafe { ffi::PyBytes_FromStringAndSize(received.as_ptr().cast(), len as isize) }
        })?;
        // SAFETY: a new reference, or null with MemoryError set.
        let data = unsafe { Owned::steal_or_err(py, data)? };
        let (protocol, context) = self.with(|stream| {
            // SAFETY: `protocol` is alive in `public.objects`; borrowed for the call below, during which a
            // `set_protocol` may release it, hence the reference.
            (unsafe { Owned::borrow(stream.protocol) }, stream.context.clone_ref(py))
        })?;
        // SAFETY: attached, all alive.
        let result = unsafe {
            context::run_raw(context.as_ptr(), || {
                call::method1_raw(protocol.as_ptr(), names().data_received, data.as_ptr())
            })
        };
        if result.is_null() {
            return self.fatal(PyErr::fetch(py), "Fatal error: protocol.data_received() call failed.");
        }
        // SAFETY: a new reference.
        unsafe { ffi::Py_DECREF(result) };
        Ok(())
    }

    /// There is something to read: straight into the buffer that a BufferedProtocol offers.
    pub(super) fn readable(self) -> PyResult<()> {
        let py = self.py();
        let context = self.context()?;
        let protocol = self.protocol();
        let offered = context::run(py, &context, || {
            let buffer = protocol.call_method1(names().get_buffer.bind(py), (-1,))?;
            if buffer.len()? == 0 {
                return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
            }
            BufferView::writable(&buffer)
        });
        let buffer = match offered {
            Ok(buffer) => buffer,
            Err(error) => return self.fatal(error, "Fatal error: protocol.get_buffer() call failed."),
        };
        // `get_buffer` may have closed or paused the transport, or replaced the protocol.
        let Some(token) = self.with(|stream| {
            stream.token.filter(|_| stream.read_mode() == crate::driver::ReadMode::Readiness)
        })?
        else {
            return Ok(());
        };
        let received = crate::net::with_driver(&self.event_loop(), |driver| {
            // SAFETY: the view keeps the memory valid.
            unsafe { driver.recv_into(token, buffer.as_ptr(), buffer.len()) }
        })?;
        drop(buffer);
        match received {
            Ok(0) => self.end_of_stream(),
            Ok(count) => {
                let updated = context::run(py, &context, || {
                    protocol.call_method1(names().buffer_updated.bind(py), (count,))
                });
                match updated {
                    Ok(_) => Ok(()),
                    Err(error) => self.fatal(error, "Fatal error: protocol.buffer_updated() call failed."),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.fatal(error.into(), "Fatal read error on socket transport"),
        }
    }

    /// The peer sends no more: the protocol decides whether the other direction stays open.
    pub(super) fn end_of_stream(self) -> PyResult<()> {
        let py = self.py();
        let context = self.context()?;
        let protocol = self.protocol();
        let keep_open = context::run(py, &context, || {
            protocol.call_method0(names().eof_received.bind(py))?.is_truthy()
        });
        match keep_open {
            // Nothing more will be read; the end stays reported in the driver, which must not repeat it.
            Ok(true) => self.stop_reading(),
            Ok(false) => self.close(),
            Err(error) => self.fatal(error, "Fatal error: protocol.eof_received() call failed."),
        }
    }

    fn stop_reading(self) -> PyResult<()> {
        let token = self.with(|stream| stream.token)?;
        match token {
            Some(token) => crate::net::with_driver(&self.event_loop(), |driver| {
                driver.set_read_mode(token, crate::driver::ReadMode::Paused);
            }),
            None => Ok(()),
        }
    }

    pub(super) fn pause_reading(self) -> PyResult<()> {
        self.set_paused(true)
    }

    pub(super) fn resume_reading(self) -> PyResult<()> {
        self.set_paused(false)
    }

    fn set_paused(self, paused: bool) -> PyResult<()> {
        use std::sync::atomic::Ordering;
        let changed = self.with(|stream| {
            stream.phase == Phase::Open && stream.public.paused.swap(paused, Ordering::Relaxed) != paused
        })?;
        if changed { self.apply_read_mode() } else { Ok(()) }
    }
}
