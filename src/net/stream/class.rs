//! The Python type `StreamTransport`: a heap type derived from `asyncio.Transport`.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyImportError, PyResourceWarning, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use pyo3::{Borrowed, ffi};

use super::{Phase, Public, Stream, Transport, write};
use crate::py::raw;
use crate::py::{Owned, imports};
use crate::sys;

/// What stands behind the fields of `asyncio.Transport`.
#[repr(C)]
struct Layout {
    weaklist: *mut ffi::PyObject,
    /// Set once, and beside the stream: other threads read it while the loop's thread holds the stream mutably.
    public: Option<Arc<Public>>,
    stream: Option<Stream>,
}

struct Class {
    object: *mut ffi::PyTypeObject,
    /// From the start of an object to its `Layout`.
    offset: usize,
    /// How many slots the Python base class has.
    base_slots: usize,
}
// SAFETY: the type is never freed and may be used by any attached thread.
unsafe impl Send for Class {}
// SAFETY: as above.
unsafe impl Sync for Class {}

static CLASS: OnceLock<Class> = OnceLock::new();

fn class() -> &'static Class {
    CLASS.get().expect("made by the module's init")
}

/// Makes the type and adds it to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    imports::warn(py)?; // Needed when the interpreter ends and imports no more.
    let base = imports::asyncio_transport(py)?;
    // SAFETY: a live type, of which only plain fields are read.
    let (basicsize, plain) = unsafe {
        let base = base.as_ptr().cast::<ffi::PyTypeObject>();
        let extras = ffi::Py_TPFLAGS_MANAGED_DICT | ffi::Py_TPFLAGS_MANAGED_WEAKREF;
        let plain = (*base).tp_dictoffset == 0
            && (*base).tp_weaklistoffset == 0
            && ffi::PyType_GetFlags(base) & extras == 0;
        ((*base).tp_basicsize as usize, plain)
    };
    if !plain {
        // We release the base's fields ourselves (see `dealloc`), which takes that they are slots and nothing else.
        return Err(PyImportError::new_err("asyncio.Transport has a __dict__ in this Python: not supported"));
    }
    let offset = basicsize.next_multiple_of(align_of::<Layout>());
    let object = spec(offset).build_and_add(module, "StreamTransport", Some(base))?;
    let _ = CLASS.set(Class {
        object,
        offset,
        base_slots: (basicsize - size_of::<ffi::PyObject>()) / size_of::<usize>(),
    });
    Ok(())
}

/// The slots (`__slots__`) of the Python base: plain references behind the object header.
///
/// # Safety
/// `object` is a transport that nobody changes meanwhile.
unsafe fn base_slots<'a>(object: *mut ffi::PyObject) -> &'a mut [*mut ffi::PyObject] {
    // SAFETY: as counted when the type was made.
    unsafe { std::slice::from_raw_parts_mut(object.add(1).cast(), class().base_slots) }
}

fn spec(offset: usize) -> raw::TypeSpec {
    let doc = c"The transport of a connected stream socket.";
    raw::TypeSpec {
        name: c"tokioloop._tokioloop.StreamTransport",
        basicsize: (offset + size_of::<Layout>()) as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            (ffi::Py_tp_dealloc, dealloc as *mut c_void),
            (ffi::Py_tp_finalize, finalize as *mut c_void),
            (ffi::Py_tp_traverse, traverse as *mut c_void),
            (ffi::Py_tp_clear, clear as *mut c_void),
            (ffi::Py_tp_repr, repr as *mut c_void),
            (ffi::Py_tp_doc, doc.as_ptr() as *mut c_void),
        ],
        methods: vec![
            raw::one_arg(c"write", write_method, c"write($self, data)\n--\n\nSend bytes; what the kernel does not take now is kept and sent later."),
            raw::one_arg(c"writelines", writelines, c"writelines($self, list_of_data)\n--\n\nSend several pieces at once."),
            raw::no_args(c"write_eof", write_eof, c"Half-close once everything is sent."),
            raw::no_args(c"can_write_eof", can_write_eof, c"True."),
            raw::no_args(c"close", close, c"Read no more, send what is queued, then close."),
            raw::no_args(c"abort", abort, c"Close at once; what is queued is lost."),
            raw::no_args(c"is_closing", is_closing, c"Whether it is closing or closed. Any thread."),
            raw::no_args(c"pause_reading", pause_reading, c"Leave arriving bytes in the kernel."),
            raw::no_args(c"resume_reading", resume_reading, c"Receive again."),
            raw::no_args(c"is_reading", is_reading, c"Whether bytes are received. Any thread."),
            raw::one_arg(c"set_protocol", set_protocol, c"set_protocol($self, protocol)\n--\n\nGive the connection to another protocol."),
            raw::no_args(c"get_protocol", get_protocol, c"The current protocol. Any thread."),
            raw::fast_keywords(c"get_extra_info", get_extra_info, c"get_extra_info($self, name, default=None)\n--\n\nWhat is known of the connection. Any thread."),
            raw::no_args(c"get_write_buffer_size", get_write_buffer_size, c"Bytes waiting to be sent. Any thread."),
            raw::no_args(c"get_write_buffer_limits", get_write_buffer_limits, c"(low, high) in bytes. Any thread."),
            raw::fast_keywords(c"set_write_buffer_limits", set_write_buffer_limits, c"set_write_buffer_limits($self, high=None, low=None)\n--\n\nWhen the protocol is told to pause and resume writing, in bytes."),
            raw::one_arg(c"_call_connection_lost", call_connection_lost, c"The scheduled end."),
            raw::one_arg(c"_start", start, c"The scheduled beginning."),
        ],
        getset: vec![raw::getter(c"_loop", get_loop, c"The loop.")],
        members: vec![raw::weaklist_member(offset)],
    }
}

/// Where an object's `Layout` stands.
fn layout(object: *mut ffi::PyObject) -> *mut Layout {
    // SAFETY: within the object, by how the type was made.
    unsafe { object.cast::<u8>().add(class().offset).cast() }
}

/// What any thread may read of a transport.
#[inline]
pub(super) fn public_of<'a>(object: *mut ffi::PyObject) -> &'a Public {
    // SAFETY: transports are only made by `create`, which fills this in before anybody sees them; it stays until they go.
    match unsafe { &(*layout(object)).public } {
        Some(public) => public,
        None => unreachable!("set by create"),
    }
}

/// The stream behind a transport; touching it needs the claim.
pub(super) fn stream_of(object: *mut ffi::PyObject) -> *mut Stream {
    // SAFETY: transports are only made by `create`, which fills the stream in before anybody sees them.
    match unsafe { &mut (*layout(object)).stream } {
        Some(stream) => stream,
        None => unreachable!("cleared transports are garbage, which nobody calls"),
    }
}

pub(super) fn create<'py>(py: Python<'py>, stream: Stream) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: our own type; GenericAlloc zeroes the memory and tracks the object, which is complete before any other
    // Python code runs.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class().object, 0);
        let object = Owned::steal_or_err(py, object)?;
        let layout = layout(object.as_ptr());
        std::ptr::write(&mut (*layout).public, Some(stream.public.clone()));
        std::ptr::write(&mut (*layout).stream, Some(stream));
        Ok(object.into_bound(py))
    }
}

/// Defines a C function over a `Transport`.
macro_rules! method {
    ($name:ident($transport:ident) $body:expr) => {
        unsafe extern "C" fn $name(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
            // SAFETY: called by Python, attached, with a transport.
            unsafe {
                raw::enter(|py| {
                    let object = Bound::from_borrowed_ptr(py, object);
                    let $transport = Transport::new(&object);
                    $body.map(|value| IntoResult::into_result(value, py))
                })
            }
        }
    };
    ($name:ident($transport:ident, $argument:ident) $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut ffi::PyObject,
            argument: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            // SAFETY: called by Python, attached, with a transport and an argument.
            unsafe {
                raw::enter(|py| {
                    let object = Bound::from_borrowed_ptr(py, object);
                    let $argument = Bound::from_borrowed_ptr(py, argument);
                    let $transport = Transport::new(&object);
                    $body.map(|value| IntoResult::into_result(value, py))
                })
            }
        }
    };
}

/// What the methods' bodies return.
trait IntoResult {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject;
}

impl IntoResult for () {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject {
        raw::none(py)
    }
}

impl IntoResult for bool {
    fn into_result(self, py: Python<'_>) -> *mut ffi::PyObject {
        raw::boolean(py, self)
    }
}

impl IntoResult for Bound<'_, PyAny> {
    fn into_result(self, _: Python<'_>) -> *mut ffi::PyObject {
        self.into_ptr()
    }
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

method!(writelines(transport, lines) transport.writelines(&lines));
method!(write_eof(transport) transport.write_eof());
method!(can_write_eof(_transport) Ok(true));
method!(close(transport) transport.close());
method!(abort(transport) transport.abort());
method!(pause_reading(transport) transport.pause_reading());
method!(resume_reading(transport) transport.resume_reading());
method!(set_protocol(transport, protocol) transport.set_protocol(&protocol));
method!(get_protocol(transport) Ok(transport.protocol()));
method!(call_connection_lost(transport, error) transport.connection_lost(&error));
method!(start(transport, waiter) super::start(transport.object, Some(&waiter)));
method!(is_closing(transport) Ok(transport.public(|public| public.closing.load(Ordering::Relaxed))));
method!(is_reading(transport) Ok(transport.public(|public| {
    !public.closing.load(Ordering::Relaxed) && !public.paused.load(Ordering::Relaxed)
})));
method!(get_write_buffer_size(transport) {
    let size = transport.public(|public| public.buffered.load(Ordering::Relaxed));
    size.into_pyobject(transport.py()).map(Bound::into_any).map_err(PyErr::from)
});
method!(get_write_buffer_limits(transport) {
    let limits = transport
        .public(|public| (public.low.load(Ordering::Relaxed), public.high.load(Ordering::Relaxed)));
    limits.into_pyobject(transport.py()).map(Bound::into_any)
});

/// The values of optional arguments, given by position or by name.
///
/// # Safety
/// The arguments are those of a fast call with keywords.
unsafe fn arguments<'py, const N: usize>(
    py: Python<'py>,
    method: &str,
    names: [&str; N],
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    raw::expect_args(method, nargs, 0, N as isize)?;
    let mut values = [const { None }; N];
    // SAFETY: `nargs` positional values, then one per keyword name.
    unsafe {
        for (index, value) in values.iter_mut().enumerate().take(nargs as usize) {
            *value = Some(Bound::from_borrowed_ptr(py, *args.add(index)));
        }
        if !keywords.is_null() {
            let keywords = Borrowed::from_ptr(py, keywords).cast_unchecked::<PyTuple>();
            for (index, keyword) in keywords.iter().enumerate() {
                let keyword: String = keyword.extract()?;
                let Some(place) = names.iter().position(|name| *name == keyword) else {
                    return Err(PyTypeError::new_err(format!(
                        "{method}() got an unexpected keyword argument '{keyword}'"
                    )));
                };
                let value = Bound::from_borrowed_ptr(py, *args.offset(nargs + index as isize));
                if values[place].replace(value).is_some() {
                    return Err(PyTypeError::new_err(format!(
                        "{method}() got multiple values for argument '{keyword}'"
                    )));
                }
            }
        }
    }
    Ok(values)
}

unsafe extern "C" fn get_extra_info(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let [name, default] =
                arguments(py, "get_extra_info", ["name", "default"], args, nargs, keywords)?;
            let Some(name) = name else {
                return Err(PyTypeError::new_err("get_extra_info() missing required argument 'name'"));
            };
            let object = Bound::from_borrowed_ptr(py, object);
            let default = default.unwrap_or_else(|| py.None().into_bound(py));
            let Ok(name) = name.extract::<String>() else { return Ok(default.into_ptr()) };
            Ok(Transport::new(&object).extra_info(&name, default)?.into_ptr())
        })
    }
}

unsafe extern "C" fn set_write_buffer_limits(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let values = arguments(py, "set_write_buffer_limits", ["high", "low"], args, nargs, keywords)?;
            let number = |value: &Option<Bound<'_, PyAny>>| -> PyResult<Option<i64>> {
                value.as_ref().filter(|value| !value.is_none()).map(|value| value.extract()).transpose()
            };
            let object = Bound::from_borrowed_ptr(py, object);
            Transport::new(&object).set_limits(number(&values[0])?, number(&values[1])?)?;
            Ok(raw::none(py))
        })
    }
}

unsafe extern "C" fn get_loop(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport.
    unsafe {
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            Ok(Transport::new(&object).event_loop().into_ptr())
        })
    }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with a transport.
    unsafe {
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            let transport = Transport::new(&object);
            let public = transport.public(|public| {
                let load = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
                (load(&public.closing), load(&public.paused), public.buffered.load(Ordering::Relaxed))
            });
            let (closing, paused, buffered) = public;
            let mut parts = vec!["StreamTransport".to_owned()];
            match transport.fd() {
                None => parts.push("closed".into()),
                Some(fd) => {
                    if closing {
                        parts.push("closing".into());
                    }
                    parts.push(format!("fd={fd}"));
                    parts.push(format!("read={}", if closing || paused { "idle" } else { "polling" }));
                    let write = if buffered > 0 { "polling" } else { "idle" };
                    parts.push(format!("write=<{write}, bufsize={buffered}>"));
                }
            }
            Ok(format!("<{}>", parts.join(" ")).into_pyobject(py)?.into_any().into_ptr())
        })
    }
}

/// Nobody refers to it any more: a socket still open is a leak, which is said, and closed.
unsafe extern "C" fn finalize(object: *mut ffi::PyObject) {
    // SAFETY: called by Python, attached, with a transport; an exception that is set is kept for the caller.
    unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            if (*layout(object.as_ptr())).stream.is_some() {
                let transport = Transport::new(&object);
                if transport.fd().is_some() {
                    warn_unclosed(&object);
                    // Not through the loop's claim: nobody else has the transport, whichever thread this is.
                    let stream = &mut *stream_of(object.as_ptr());
                    stream.phase = Phase::Closed;
                    let fd = stream.public.fd.swap(-1, Ordering::Relaxed);
                    let sock = stream.public.objects.lock().extra.socket_closed(py, fd);
                    match sock {
                        Some(sock) => drop(sock.bind(py).call_method0("close")),
                        None => sys::socket::close(fd),
                    }
                }
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
    }
}

fn warn_unclosed(object: &Bound<'_, PyAny>) {
    let py = object.py();
    let warned = (|| {
        let options = PyDict::new(py);
        options.set_item("source", object)?;
        let message = format!("unclosed transport {}", object.repr()?);
        imports::warn(py)?.call((message, py.get_type::<PyResourceWarning>()), Some(&options))
    })();
    if let Err(error) = warned {
        error.write_unraisable(py, Some(object));
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference, in the order every GC type with a finaliser follows.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(object) != 0 {
            return; // The finaliser's warning brought it back to life.
        }
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*layout(object)).weaklist.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        raw::drop_bounded(((*layout(object)).stream.take(), (*layout(object)).public.take()));
        // The functions of a Python base class must not be called: they look for the next base by comparing functions, and
        // find ours again. Its slots are released here.
        for slot in base_slots(object) {
            ffi::Py_XDECREF(std::mem::replace(slot, std::ptr::null_mut()));
        }
        let free = (*kind).tp_free.expect("every type has one");
        free(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector with the world stopped; only reads. The lock is never held across a safe point.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        for &mut reference in [kind.cast()].iter_mut().chain(base_slots(object)) {
            let result = raw::visit(reference, visit, arg);
            if result != 0 {
                return result;
            }
        }
        let Some(stream) = &(*layout(object)).stream else { return 0 };
        let mut see = |object: &Owned| match raw::visit(object.as_ptr(), visit, arg) {
            0 => Ok(()),
            stopped => Err(stopped),
        };
        let seen = (|| {
            see(&stream.public.event_loop)?;
            see(&stream.context)?;
            stream.server.iter().try_for_each(&mut see)?;
            let objects = &*stream.public.objects.data_ptr();
            see(&objects.protocol)?;
            objects.extra.visit(&mut see)
        })();
        seen.err().unwrap_or(0)
    }
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage: nobody else has it. The protocol is what closes cycles; the rest goes
    // with the object. It is replaced, since the stream must stay whole.
    unsafe {
        if let Some(stream) = &mut (*layout(object)).stream {
            let py = Python::assume_attached();
            let none = Owned::steal(raw::none(py));
            stream.protocol = none.as_ptr();
            let mut objects = stream.public.objects.lock();
            let protocol = std::mem::replace(&mut objects.protocol, none);
            let given = objects.extra.given.take();
            drop(objects);
            let server = stream.server.take();
            drop((protocol, given, server));
        }
    }
    0
}
