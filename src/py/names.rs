//! Attribute and keyword names, interned once for the process so that look-ups compare pointers.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{Borrowed, ffi};

/// An interned string (or a tuple of them) that lives as long as the process.
#[derive(Clone, Copy)]
pub struct Name(*mut ffi::PyObject);

// SAFETY: the object is never freed and immutable.
unsafe impl Send for Name {}
// SAFETY: as above.
unsafe impl Sync for Name {}

impl Name {
    #[inline]
    pub fn as_ptr(self) -> *mut ffi::PyObject {
        self.0
    }

    pub fn bind(self, py: Python<'_>) -> Borrowed<'_, '_, PyString> {
        // SAFETY: a live str; names of tuples are never bound.
        unsafe { Borrowed::from_ptr(py, self.0).cast_unchecked() }
    }
}

macro_rules! names {
    ($($name:ident)*) => {
        pub struct Names {
            $(pub $name: Name,)*
            /// The number -1.
            pub minus_one: Name,
            /// `("loop",)`.
            pub loop_keyword: Name,
        }

        fn make(py: Python<'_>) -> PyResult<Names> {
            Ok(Names {
                $($name: Name(PyString::intern(py, stringify!($name).trim_start_matches("r#")).into_ptr()),)*
                minus_one: Name((-1i32).into_pyobject(py)?.into_ptr()),
                loop_keyword: Name(PyTuple::new(py, [PyString::intern(py, "loop")])?.into_ptr()),
            })
        }
    };
}

names! {
    context r#loop name call_soon
    call_exception_handler
    _asyncgen_firstiter_hook _asyncgen_finalizer_hook _on_signal _log_slow_callback _adopt_thread
    connection_made connection_lost data_received eof_received get_buffer buffer_updated
    pause_writing resume_writing pause_reading resume_reading
    write read do_handshake unwrap cancel _force_close
    datagram_received error_received sendto
    _attach _detach
    set_result set_exception done result throw value add_done_callback
    _loop _asyncio_future_blocking
    fileno close gettimeout _is_debug_mode
    is_closing exception feed_data _drain_helper
}

static NAMES: OnceLock<Names> = OnceLock::new();

/// Makes the names; called once by the module's init.
pub fn init(py: Python<'_>) -> PyResult<()> {
    if NAMES.get().is_none() {
        let _ = NAMES.set(make(py)?);
    }
    Ok(())
}

#[inline]
pub fn names() -> &'static Names {
    NAMES.get().expect("made by the module's init before anything else")
}
