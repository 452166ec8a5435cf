//! The Python type `SslTransport`, derived from `asyncio.Transport`; for the transport below it is a protocol.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyNotImplementedError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{Phase, Public, Shown, Tls, TlsTransport, read};
use crate::net::native::{self, Receive};
use crate::net::transport::class;
use crate::py::derived::{Class, Description, State};
use crate::py::method::{method, method_with, required};
use crate::py::{Owned, imports, raw};

static CLASS: Class<Tls> = Class::new();

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    CLASS.init(module, imports::asyncio_transport(module.py())?, description())?;
    native::register(|object| CLASS.is_type_of(object), Receive { slice: read::receive, object: None });
    Ok(())
}

fn description() -> Description {
    Description {
        name: c"tokioloop._tokioloop.SslTransport",
        doc: c"The transport of a TLS connection.",
        methods: [own(), class::methods::<Tls>(), class::reading::<Tls>(), class::writing::<Tls>()].concat(),
        getset: [class::attributes::<Tls>(), of_tls()].concat(),
    }
}

fn own() -> Vec<ffi::PyMethodDef> {
    vec![
            raw::one_arg(c"write", write, c"write($self, data)\n--\n\nEncrypt and send bytes; what can't be sent now is kept and sent later."),
            raw::one_arg(c"writelines", writelines, c"writelines($self, list_of_data)\n--\n\nSend several pieces at once."),
            raw::no_args(c"write_eof", write_eof, c"NotImplementedError: TLS connections are closed as a whole."),
            raw::no_args(c"can_write_eof", can_write_eof, c"False."),
            raw::no_args(c"close", close, c"Read no more, send what waits, say goodbye to the peer and wait for its answer, then close."),
            raw::no_args(c"abort", abort, c"Close at once; what waits is lost."),
            raw::no_args(c"pause_reading", pause_reading, c"Leave arriving bytes undelivered."),
            raw::no_args(c"resume_reading", resume_reading, c"Deliver again, from the next turn on."),
            raw::fast_keywords(c"get_extra_info", get_extra_info, c"get_extra_info($self, name, default=None)\n--\n\nWhat is known of the connection. Any thread."),
            // The protocol's side.
            raw::one_arg(c"connection_made", connection_made, c"Begin the handshake over a connected transport."),
            raw::one_arg(c"data_received", data_received, c"Take ciphertext."),
            raw::no_args(c"eof_received", eof_received, c"No more ciphertext will come."),
            raw::one_arg(c"connection_lost", connection_lost, c"The transport below is gone."),
            raw::no_args(c"pause_writing", pause_writing, c"The transport below is full."),
            raw::no_args(c"resume_writing", resume_writing, c"The transport below takes more."),
            // For the loop, and for TLS over this.
            raw::one_arg(c"_force_close", force_close, c"Close at once, with an error."),
            raw::no_args(c"_resume", resume, c"Deliver what came in while paused."),
            raw::no_args(c"_flush", flush, c"Encrypt and say what could not be while the engine was in use."),
            raw::no_args(c"_handshake_timed_out", handshake_timed_out, c"The handshake took too long."),
            raw::no_args(c"_shutdown_timed_out", shutdown_timed_out, c"Closing took too long."),
    ]
}

fn of_tls() -> Vec<ffi::PyGetSetDef> {
    vec![
        raw::getter(c"_ssl_protocol", get_self, c"asyncio's name for the protocol's side: this object."),
        raw::getter(c"_start_tls_compatible", raw::get_true, c"True: TLS may run over TLS."),
        class::protocol_paused::<Tls>(),
        raw::getter(
            c"_sendfile_compatible",
            get_sendfile_mode,
            c"asyncio's mark for: by reading and writing.",
        ),
    ]
}

pub(super) fn create<'py>(py: Python<'py>, tls: Tls) -> PyResult<Bound<'py, PyAny>> {
    CLASS.create(py, tls)
}

method!(write(transport: TlsTransport, data) transport.write(&data));
method!(writelines(transport: TlsTransport, lines) transport.writelines(&lines));
method!(write_eof(_transport: TlsTransport) Err::<(), _>(PyNotImplementedError::new_err(())));
method!(can_write_eof(_transport: TlsTransport) Ok(false));
method!(close(transport: TlsTransport) transport.close());
method!(abort(transport: TlsTransport) transport.force_close(None));
method!(pause_reading(transport: TlsTransport) transport.set_paused(true));
method!(resume_reading(transport: TlsTransport) transport.set_paused(false));
method_with!(get_extra_info(transport: TlsTransport, "get_extra_info", name, default) {
    let name = required(name, "get_extra_info", "name")?;
    transport.extra_info(&name, default.unwrap_or_else(|| transport.py().None().into_bound(transport.py())))
});
method!(connection_made(transport: TlsTransport, below) transport.connection_made(&below));
method!(data_received(transport: TlsTransport, data) {
    data.cast::<PyBytes>().map_err(PyErr::from).and_then(|data| transport.received(data.as_bytes()))
});
method!(eof_received(transport: TlsTransport) transport.eof_below());
method!(connection_lost(transport: TlsTransport, error) transport.connection_lost(&error));
method!(pause_writing(transport: TlsTransport) transport.set_below_full(true));
method!(resume_writing(transport: TlsTransport) transport.set_below_full(false));
method!(force_close(transport: TlsTransport, error) transport.force_close(Some(&error).filter(|error| !error.is_none())));
method!(resume(transport: TlsTransport) transport.resume());
method!(flush(transport: TlsTransport) transport.flush());
method!(handshake_timed_out(transport: TlsTransport) transport.handshake_timed_out());
method!(shutdown_timed_out(transport: TlsTransport) transport.shutdown_timed_out());

unsafe extern "C" fn get_self(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn get_sendfile_mode(_: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached.
    unsafe { raw::enter(|py| Ok(imports::sendfile_mode(py)?.getattr("FALLBACK")?.into_ptr())) }
}

impl State for Tls {
    type Public = Public;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn public(&self) -> &Arc<Public> {
        &self.public
    }

    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int> {
        see(&self.public.marks.event_loop)?;
        see(&self.common.context)?;
        // While it runs it is its caller's, and what it holds counts as held from outside.
        if let Some(engine) = &self.engine {
            engine.visit(see)?;
        }
        let Some(objects) = self.public.objects.seen_by_collector() else { return Ok(()) };
        see(&objects.protocol)?;
        see(&objects.context)?;
        let below = self.below.as_ref().map(|below| &below.transport);
        [&self.ssl_object, &self.waiter, &self.timer, &objects.below]
            .into_iter()
            .flatten()
            .chain(below)
            .chain(objects.ssl_object.iter().flat_map(Shown::each))
            .try_for_each(see)
    }

    fn clear(&mut self, none: Owned) -> Vec<Owned> {
        self.phase = Phase::Over;
        self.common.protocol = none.as_ptr();
        // SAFETY: called by Python, attached.
        let py = unsafe { Python::assume_attached() };
        let mut objects = self.public.objects.lock(py);
        let protocol = std::mem::replace(&mut objects.protocol, none);
        let below = self.below.take().map(|below| below.transport);
        [Some(protocol), objects.below.take(), below, self.waiter.take(), self.timer.take()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The connection is closed with the transport below, which warns.
    fn finalize(_object: &Bound<'_, PyAny>) {}

    fn repr(object: &Bound<'_, PyAny>) -> PyResult<String> {
        let (closing, below) = TlsTransport::new(object).public(|public| {
            let below =
                public.objects.lock(object.py()).below.as_ref().map(|below| below.clone_ref(object.py()));
            (public.marks.closing.load(Ordering::Relaxed), below)
        });
        let state = if closing { " closing" } else { "" };
        match below {
            Some(below) => Ok(format!("<SslTransport{state} over {}>", below.bind(object.py()).repr()?)),
            None => Ok(format!("<SslTransport{}>", if closing { " closed" } else { "" })),
        }
    }
}
