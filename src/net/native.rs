//! Protocols written in Rust: a transport hands them bytes without Python in between.
//!
//! To Python they are protocols like any other; a transport that does not know them calls their `data_received`.

use parking_lot::Mutex;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;

pub type ReceiveObject = fn(&Bound<'_, PyAny>, Owned) -> PyResult<()>;

/// Takes bytes that came in. On the loop's thread, inside a run, with no borrow of the core.
#[derive(Clone, Copy)]
pub struct Receive {
    /// Those that lie in the driver's buffer, valid for the call.
    pub slice: fn(&Bound<'_, PyAny>, &[u8]) -> PyResult<()>,
    /// An exact `bytes` object, for receivers that keep it: large reads are received into it directly.
    pub object: Option<ReceiveObject>,
}

/// How the objects of a type receive.
#[derive(Clone, Copy)]
struct Known {
    is_one: fn(*mut ffi::PyObject) -> bool,
    receive: Receive,
}

/// Added to by the module's init, and asked where a transport gets a protocol.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// Makes a type known; called by the module's init.
pub fn register(is_one: fn(*mut ffi::PyObject) -> bool, receive: Receive) {
    KNOWN.lock().push(Known { is_one, receive });
}

/// How to hand bytes to `protocol`, if it is one of these.
pub fn receiver(protocol: &Bound<'_, PyAny>) -> Option<Receive> {
    // A copy, since what is asked may wait for another thread.
    let known = KNOWN.lock().clone();
    known.iter().find(|known| (known.is_one)(protocol.as_ptr())).map(|known| known.receive)
}
