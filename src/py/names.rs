//! The names that the layers above look up, interned once.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
pub use pyraw::names::Name;

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
                $($name: Name::intern(py, stringify!($name).trim_start_matches("r#")),)*
                minus_one: Name::keep((-1i32).into_pyobject(py)?),
                loop_keyword: Name::keep(PyTuple::new(py, [PyString::intern(py, "loop")])?),
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
