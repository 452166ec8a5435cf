//! The Python methods that all transports have.

use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;

use super::{Kind, Marks, Transport};
use crate::py::method::{IntoResult, arguments, function, getter, optional_number};
use crate::py::raw;

/// Of every transport.
pub fn methods<K: Kind>() -> Vec<ffi::PyMethodDef> {
    vec![
        raw::no_args(c"is_closing", is_closing::<K>, c"Whether it is closing or closed. Any thread."),
        raw::one_arg(
            c"set_protocol",
            set_protocol::<K>,
            c"set_protocol($self, protocol)\n--\n\nGive the connection to another protocol.",
        ),
        raw::no_args(
            c"get_protocol",
            get_protocol::<K>,
            c"The current protocol; None once the connection is lost. Any thread.",
        ),
    ]
}

/// Of those that are read.
pub fn reading<K: Kind>() -> Vec<ffi::PyMethodDef> {
    vec![raw::no_args(c"is_reading", is_reading::<K>, c"Whether what comes in is delivered. Any thread.")]
}

/// Of those that are written.
pub fn writing<K: Kind>() -> Vec<ffi::PyMethodDef> {
    vec![
        raw::no_args(
            c"get_write_buffer_size",
            get_write_buffer_size::<K>,
            c"How much waits to be sent, in bytes. Any thread.",
        ),
        raw::no_args(
            c"get_write_buffer_limits",
            get_write_buffer_limits::<K>,
            c"(low, high) in bytes. Any thread.",
        ),
        raw::fast_keywords(
            c"set_write_buffer_limits",
            set_write_buffer_limits::<K>,
            c"set_write_buffer_limits($self, high=None, low=None)\n--\n\nWhen the protocol is told to pause and resume writing, in bytes.",
        ),
    ]
}

pub fn attributes<K: Kind>() -> Vec<ffi::PyGetSetDef> {
    vec![raw::getter(c"_loop", get_loop::<K>, c"The loop.")]
}

/// For `loop.sendfile`, which writes until the protocol is told to pause.
pub fn protocol_paused<K: Kind>() -> ffi::PyGetSetDef {
    raw::getter(c"_protocol_paused", get_paused::<K>, c"Whether the protocol was told to pause writing.")
}

function!(enter is_closing<K: Kind>(py, object, closing = read::<K, _>(py, object, is_marked_closing)) {
    Ok(raw::boolean(py, closing))
});
function!(enter is_reading<K: Kind>(
    py, object, reading = read::<K, _>(py, object, |marks| {
        !is_marked_closing(marks) && !marks.paused.load(Ordering::Relaxed)
    })
) Ok(raw::boolean(py, reading)));
function!(enter get_write_buffer_size<K: Kind>(
    py, object, size = read::<K, _>(py, object, |marks| marks.buffered.load(Ordering::Relaxed))
) Ok(size.into_pyobject(py)?.into_any().into_ptr()));
function!(enter get_write_buffer_limits<K: Kind>(
    py, object, limits = read::<K, _>(py, object, |marks| {
        (marks.low.load(Ordering::Relaxed), marks.high.load(Ordering::Relaxed))
    })
) Ok(limits.into_pyobject(py)?.into_any().into_ptr()));
function!(enter get_protocol<K: Kind>(py, object, object = Bound::from_borrowed_ptr(py, object)) {
    Ok(Transport::<K>::new(&object).protocol().into_ptr())
});
function!(enter set_protocol<K: Kind>(
    py, object, object = Bound::from_borrowed_ptr(py, object), protocol
) {
    K::set_protocol(Transport::new(&object), &protocol)?;
    Ok(raw::none(py))
});
getter!(get_loop<K: Kind>(py, object, object = Bound::from_borrowed_ptr(py, object)) {
    Ok(Transport::<K>::new(&object).event_loop().into_ptr())
});
getter!(get_paused<K: Kind>(py, object, object = Bound::from_borrowed_ptr(py, object)) {
    let paused = Transport::<K>::new(&object).with(|state| state.common().flow.is_paused())?;
    Ok(raw::boolean(py, paused))
});

unsafe extern "C" fn set_write_buffer_limits<K: Kind>(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the type, as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let [high, low] =
                arguments(py, "set_write_buffer_limits", ["high", "low"], args, nargs, keywords)?;
            let object = Bound::from_borrowed_ptr(py, object);
            let transport = Transport::<K>::new(&object);
            transport.set_limits(optional_number(high)?, optional_number(low)?)?;
            Ok(().into_result(py))
        })
    }
}

/// Looks at the marks.
///
/// # Safety
/// A transport of the kind, alive.
unsafe fn read<K: Kind, R>(py: Python<'_>, object: *mut ffi::PyObject, look: impl FnOnce(&Marks) -> R) -> R {
    // SAFETY: promised.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    Transport::<K>::new(&object).marks(look)
}

fn is_marked_closing(marks: &Marks) -> bool {
    marks.closing.load(Ordering::Relaxed)
}
