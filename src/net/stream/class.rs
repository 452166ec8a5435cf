//! The Python types `StreamTransport`, `ReadPipeTransport` and `WritePipeTransport`, derived from asyncio's.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{Borrowed, ffi};

use super::{Kind, Public, Stream, Transport, rest, write};
use crate::net::transport::{class, end};
use crate::py::derived::{self, Class, Description, State};
use crate::py::method::{method, method_with, required};
use crate::py::{Owned, imports, raw};

static CLASS: Class<Stream> = Class::new();
static READ_PIPE: Class<Stream> = Class::new();
static WRITE_PIPE: Class<Stream> = Class::new();

/// Makes the types and adds them to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let stream = Description {
        name: c"tokioloop._tokioloop.StreamTransport",
        doc: c"The transport of a connected stream socket.",
        methods: [common(), reading(), writing(), files()].concat(),
        getset: [getset(), of_sockets()].concat(),
    };
    CLASS.init(module, imports::asyncio_transport(py)?, stream)?;
    let read_pipe = Description {
        name: c"tokioloop._tokioloop.ReadPipeTransport",
        doc: c"The transport of the end of a pipe that is read.",
        methods: [common(), reading()].concat(),
        getset: getset(),
    };
    READ_PIPE.init(module, imports::asyncio_read_transport(py)?, read_pipe)?;
    let write_pipe = Description {
        name: c"tokioloop._tokioloop.WritePipeTransport",
        doc: c"The transport of the end of a pipe that is written.",
        methods: [common(), writing()].concat(),
        getset: getset(),
    };
    WRITE_PIPE.init(module, imports::asyncio_write_transport(py)?, write_pipe)
}

fn getset() -> Vec<ffi::PyGetSetDef> {
    class::attributes::<Stream>()
}

/// What the loop asks of a socket's transport only.
fn of_sockets() -> Vec<ffi::PyGetSetDef> {
    vec![
        raw::getter(c"_start_tls_compatible", raw::get_true, c"True: TLS may run over it."),
        raw::getter(c"_sendfile_compatible", get_sendfile_mode, c"asyncio's mark for: by the kernel."),
        class::protocol_paused::<Stream>(),
    ]
}

/// For `loop.sendfile`.
fn files() -> Vec<ffi::PyMethodDef> {
    vec![
        raw::no_args(c"_begin_file", begin_file, c"Refuse writes: a file is sent."),
        raw::no_args(c"_end_file", end_file, c"Take writes again."),
    ]
}

fn common() -> Vec<ffi::PyMethodDef> {
    let own = vec![
        raw::no_args(c"close", close, c"Read no more, send what is queued, then close."),
        raw::fast_keywords(
            c"get_extra_info",
            get_extra_info,
            c"get_extra_info($self, name, default=None)\n--\n\nWhat is known of the connection. Any thread.",
        ),
        raw::one_arg(c"_force_close", force_close, c"Close at once, with an error."),
        raw::one_arg(c"_call_connection_lost", call_connection_lost, c"The scheduled end."),
        raw::one_arg(c"_start", start, c"The scheduled beginning."),
    ];
    [own, class::methods::<Stream>()].concat()
}

fn reading() -> Vec<ffi::PyMethodDef> {
    let own = vec![
        raw::no_args(c"pause_reading", pause_reading, c"Leave arriving bytes in the kernel."),
        raw::no_args(c"resume_reading", resume_reading, c"Receive again."),
    ];
    [own, class::reading::<Stream>()].concat()
}

fn writing() -> Vec<ffi::PyMethodDef> {
    let own = vec![
            raw::one_arg(c"write", write_method, c"write($self, data)\n--\n\nSend bytes; what the kernel does not take now is kept and sent later."),
            raw::one_arg(c"writelines", writelines, c"writelines($self, list_of_data)\n--\n\nSend several pieces at once."),
            raw::no_args(c"write_eof", write_eof, c"Half-close once everything is sent."),
            raw::no_args(c"can_write_eof", can_write_eof, c"True."),
            raw::no_args(c"abort", abort, c"Close at once; what is queued is lost."),
    ];
    [own, class::writing::<Stream>()].concat()
}

pub(super) fn create<'py>(py: Python<'py>, stream: Stream) -> PyResult<Bound<'py, PyAny>> {
    match stream.kind {
        Kind::Socket => &CLASS,
        Kind::ReadPipe => &READ_PIPE,
        Kind::WritePipe => &WRITE_PIPE,
    }
    .create(py, stream)
}

/// What a transport is on, from any thread.
pub(super) fn kind_of(object: &Bound<'_, PyAny>) -> Kind {
    if is_stream(object) {
        Kind::Socket
    } else if READ_PIPE.is_type_of(object.as_ptr()) {
        Kind::ReadPipe
    } else {
        Kind::WritePipe
    }
}

/// Whether an object is a stream transport of ours.
pub fn is_stream(object: &Bound<'_, PyAny>) -> bool {
    CLASS.is_type_of(object.as_ptr())
}

/// Whether an object is a stream transport of ours whose protocol has got the peer's end. On the loop's thread.
pub fn has_ended(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if is_stream(object) { Transport::new(object).with(|stream| stream.eof_received) } else { Ok(false) }
}

/// Whether a stream transport of ours is closing; None for any other object. Any thread.
pub fn closing_of(object: &Bound<'_, PyAny>) -> Option<bool> {
    is_stream(object)
        .then(|| derived::public_of::<Stream>(object.as_ptr()).marks.closing.load(Ordering::Relaxed))
}

/// `transport.write(data)`; null with an exception set on failure.
///
/// # Safety
/// Attached; a stream transport of ours ([`is_stream`]) and an object, both alive.
#[inline]
pub unsafe fn write_to(object: *mut ffi::PyObject, data: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: promised.
    unsafe { write_method(object, data) }
}

unsafe extern "C" fn write_method(
    object: *mut ffi::PyObject,
    data: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport and an argument that stays alive.
    unsafe {
        raw::enter_hot(|py| {
            let mut sent = None;
            if ffi::PyBytes_CheckExact(data) != 0 {
                let bytes: Borrowed<'_, '_, PyBytes> = Borrowed::from_ptr(py, data).cast_unchecked();
                sent = write::send_at_once(object, bytes.as_bytes());
                if let Some(write::Sent::All) = sent {
                    return Ok(raw::none(py));
                }
            }
            Ok(write_slowly(object, data, sent))
        })
    }
}

/// The rest of a write that was not simple; null with an exception set on failure.
#[cold]
unsafe fn write_slowly(
    object: *mut ffi::PyObject,
    data: *mut ffi::PyObject,
    sent: Option<write::Sent>,
) -> *mut ffi::PyObject {
    // SAFETY: as for `write_method`.
    unsafe {
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            let data = Bound::from_borrowed_ptr(py, data);
            let transport = Transport::new(&object);
            match sent {
                Some(sent) => transport.write_bytes(data.cast()?, sent)?,
                None => transport.write(&data)?,
            }
            Ok(raw::none(py))
        })
    }
}

method!(writelines(transport: Transport, lines) transport.writelines(&lines));
method!(write_eof(transport: Transport) transport.write_eof());
method!(can_write_eof(_transport: Transport) Ok(true));
method!(close(transport: Transport) transport.close());
method!(abort(transport: Transport) transport.abort());
method!(pause_reading(transport: Transport) transport.pause_reading());
method!(resume_reading(transport: Transport) transport.resume_reading());
method!(begin_file(transport: Transport) transport.begin_file());
method!(end_file(transport: Transport) transport.end_file());
method!(force_close(transport: Transport, error) transport.lose(Some(&error).filter(|error| !error.is_none())));
method!(call_connection_lost(transport: Transport, error) transport.finish(&error));
method!(start(transport: Transport, waiter) super::start(transport.object, Some(&waiter)));
method_with!(get_extra_info(transport: Transport, "get_extra_info", name, default) {
    let name = required(name, "get_extra_info", "name")?;
    let default = default.unwrap_or_else(|| transport.py().None().into_bound(transport.py()));
    match name.extract::<String>() {
        Ok(name) => transport.extra_info(&name, default),
        Err(_) => Ok(default),
    }
});
unsafe extern "C" fn get_sendfile_mode(_: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached.
    unsafe { raw::enter(|py| Ok(imports::sendfile_mode(py)?.getattr("TRY_NATIVE")?.into_ptr())) }
}

impl State for Stream {
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
        self.server.iter().try_for_each(&mut *see)?;
        self.sender.iter().flat_map(|sender| &sender.waiting).try_for_each(&mut *see)?;
        let Some(objects) = self.public.objects.seen_by_collector() else { return Ok(()) };
        see(&objects.protocol)?;
        objects.extra.visit(see)
    }

    fn clear(&mut self, none: Owned) -> Vec<Owned> {
        self.common.protocol = none.as_ptr();
        // SAFETY: called by Python, attached.
        let py = unsafe { Python::assume_attached() };
        let mut objects = self.public.objects.lock(py);
        let protocol = std::mem::replace(&mut objects.protocol, none);
        let waiting = self.sender.take().and_then(|sender| sender.waiting);
        let others = [objects.extra.given.take(), self.server.take(), waiting];
        std::iter::once(protocol).chain(others.into_iter().flatten()).collect()
    }

    fn finalize(object: &Bound<'_, PyAny>) {
        end::collected(object, |stream| rest::release(object, stream));
    }

    fn repr(object: &Bound<'_, PyAny>) -> PyResult<String> {
        let transport = Transport::new(object);
        if transport.kind() != Kind::Socket {
            return Ok(transport.repr_of_pipe());
        }
        let Some(fd) = transport.fd() else { return Ok("<StreamTransport closed>".into()) };
        let (closing, paused, buffered) = transport.marks(|marks| {
            let load = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
            (load(&marks.closing), load(&marks.paused), marks.buffered.load(Ordering::Relaxed))
        });
        let state = if closing { " closing" } else { "" };
        let read = if closing || paused { "idle" } else { "polling" };
        let write = if buffered > 0 { "polling" } else { "idle" };
        Ok(format!("<StreamTransport{state} fd={fd} read={read} write=<{write}, bufsize={buffered}>>"))
    }
}
