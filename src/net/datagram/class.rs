//! The Python type `DatagramTransport`, derived from `asyncio.DatagramTransport` and, as asyncio's own, from `asyncio.Transport`.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::send::{self, Sent};
use super::{Datagram, Public, Transport};
use crate::net::transport::class;
use crate::net::transport::end::{self, Ends};
use crate::py::derived::{Class, Description, State};
use crate::py::method::{arguments, method, method_with, required};
use crate::py::{Owned, imports, raw};

static CLASS: Class<Datagram> = Class::new();

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    // Both, as asyncio's own: a program may ask for either.
    let bases = (imports::asyncio_transport(py)?, imports::asyncio_datagram_transport(py)?);
    let fields = PyDict::new(py);
    fields.set_item("__slots__", PyTuple::empty(py))?;
    fields.set_item("__module__", module.name()?)?;
    let base = py.get_type::<PyType>().call1(("DatagramTransportBase", bases, fields))?;
    CLASS.init(module, &base, description())
}

fn description() -> Description {
    Description {
        name: c"tokioloop._tokioloop.DatagramTransport",
        doc: c"The transport of a datagram socket.",
        methods: [
            own(),
            class::methods::<Datagram>(),
            class::reading::<Datagram>(),
            class::writing::<Datagram>(),
        ]
        .concat(),
        getset: class::attributes::<Datagram>(),
    }
}

fn own() -> Vec<ffi::PyMethodDef> {
    vec![
            raw::fast_keywords(c"sendto", sendto, c"sendto($self, data, addr=None)\n--\n\nSend a datagram; one that the kernel does not take now is kept and sent later."),
            raw::no_args(c"close", close, c"Receive no more, send what is queued, then close."),
            raw::no_args(c"abort", abort, c"Close at once; what is queued is lost."),
            raw::no_args(c"pause_reading", pause_reading, c"Leave arriving datagrams in the kernel."),
            raw::no_args(c"resume_reading", resume_reading, c"Receive again."),
            raw::fast_keywords(c"get_extra_info", get_extra_info, c"get_extra_info($self, name, default=None)\n--\n\nWhat is known of the socket. Any thread."),
            raw::one_arg(c"_call_connection_lost", call_connection_lost, c"The scheduled end."),
            raw::no_args(c"_deliver", deliver, c"What came in and had to wait for its turn."),
            raw::one_arg(c"_start", start, c"The scheduled beginning."),
    ]
}

pub(super) fn create<'py>(py: Python<'py>, state: Datagram) -> PyResult<Bound<'py, PyAny>> {
    CLASS.create(py, state)
}

unsafe extern "C" fn sendto(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport and `nargs` arguments that stay alive.
    unsafe {
        raw::enter_hot(|py| {
            let mut sent = None;
            if keywords.is_null() && (nargs == 1 || nargs == 2) && ffi::PyBytes_CheckExact(*args) != 0 {
                let to = if nargs == 2 { *args.add(1) } else { std::ptr::null_mut() };
                sent = send::send_at_once(object, *args, to);
                if let Some(Sent::Gone) = sent {
                    return Ok(raw::none(py));
                }
            }
            Ok(sendto_slowly(object, args, nargs, keywords, sent))
        })
    }
}

/// The rest of a send that was not simple; null with an exception set on failure.
#[cold]
unsafe fn sendto_slowly(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
    sent: Option<Sent>,
) -> *mut ffi::PyObject {
    // SAFETY: as for `sendto`.
    unsafe {
        raw::enter(|py| {
            let [data, to] = arguments(py, "sendto", ["data", "addr"], args, nargs, keywords)?;
            let data = required(data, "sendto", "data")?;
            let object = Bound::from_borrowed_ptr(py, object);
            let transport = Transport::new(&object);
            match sent {
                Some(sent) => transport.after_attempt(sent, &data, to.as_ref())?,
                None => transport.send_to(&data, to.as_ref())?,
            }
            Ok(raw::none(py))
        })
    }
}

method!(close(transport: Transport) transport.close());
method!(abort(transport: Transport) transport.abort());
method!(pause_reading(transport: Transport) transport.set_paused(true));
method!(resume_reading(transport: Transport) transport.set_paused(false));
method!(call_connection_lost(transport: Transport, error) transport.finish(&error));
method!(deliver(transport: Transport) transport.deliver_held());
method!(start(transport: Transport, waiter) super::start(transport.object, &waiter));
method_with!(get_extra_info(transport: Transport, "get_extra_info", name, default) {
    let name = required(name, "get_extra_info", "name")?;
    let py = transport.py();
    let extra = transport.public(|public| public.extra.clone_ref(py)).into_bound(py).cast_into::<PyDict>()?;
    Ok(extra.get_item(name)?.or(default).unwrap_or_else(|| py.None().into_bound(py)))
});
impl State for Datagram {
    type Public = Public;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn public(&self) -> &Arc<Public> {
        &self.public
    }

    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int> {
        let public = &self.public;
        public.protocol.seen_by_collector().map_or(Ok(()), |protocol| see(&protocol))?;
        [&public.marks.event_loop, &public.sock, &public.extra, &self.common.context]
            .into_iter()
            .chain(self.remote.iter().map(|remote| &remote.object))
            .chain(self.queue.iter())
            .try_for_each(&mut *see)?;
        self.addresses.visit(see)
    }

    fn clear(&mut self, none: Owned) -> Vec<Owned> {
        self.common.protocol = none.as_ptr();
        // SAFETY: called by Python, attached.
        let py = unsafe { Python::assume_attached() };
        let protocol = std::mem::replace(&mut *self.public.protocol.lock(py), none);
        let remote = self.remote.take().map(|remote| remote.object);
        let queued = self.queue.take().into_iter().map(|datagram| datagram.data);
        queued.chain(remote).chain([protocol]).collect()
    }

    fn finalize(object: &Bound<'_, PyAny>) {
        end::collected(object, |_: &mut Self| Self::close_descriptor(Transport::new(object)));
    }

    fn repr(object: &Bound<'_, PyAny>) -> PyResult<String> {
        let transport = Transport::new(object);
        let Some(fd) = transport.fd() else { return Ok("<DatagramTransport closed>".into()) };
        let (closing, paused, buffered) = transport.marks(|marks| {
            let load = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
            (load(&marks.closing), load(&marks.paused), marks.buffered.load(Ordering::Relaxed))
        });
        let state = if closing { " closing" } else { "" };
        let read = if closing || paused { "idle" } else { "polling" };
        let write = if buffered > 0 { "polling" } else { "idle" };
        Ok(format!("<DatagramTransport{state} fd={fd} read={read} write=<{write}, bufsize={buffered}>>"))
    }
}
