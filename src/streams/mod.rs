//! Streams: `StreamReader`, `StreamWriter` and the protocol between them and a transport.
//!
//! | room        | content                                                                       |
//! |-------------|-------------------------------------------------------------------------------|
//! | `buffer`    | the unread bytes of a reader                                                  |
//! | `reader`    | the reader: feeding it, and waiting for more                                  |
//! | `reads`     | the bytes that each kind of read takes, or why it has to wait                 |
//! | `operation` | the awaitable of a read or a drain; a Future is made only where it must wait  |
//! | `writer`    | the writer                                                                    |
//! | `protocol`  | the protocol: bytes go from the driver to the reader without Python           |
//! | `object`    | what the three types have in common as Python objects                         |
//!
//! Each type is the native half of a class in `tokioloop/_net/streams.py`, which also derives from asyncio's: rarely
//! called methods are asyncio's own code.

mod buffer;
mod object;
mod operation;
mod protocol;
mod reader;
mod reads;
mod writer;

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Makes the types and adds them to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    operation::init(module)?;
    reader::init(module)?;
    writer::init(module)?;
    protocol::init(module)?;
    module.add_function(wrap_pyfunction!(_set_stream_classes, module)?)
}

/// Names the classes over the reader and the protocol: exact instances of both take short cuts. Called once, by the package.
#[pyfunction]
fn _set_stream_classes(reader: &Bound<'_, PyType>, protocol: &Bound<'_, PyType>) {
    reader::TYPE.set_class(reader);
    protocol::TYPE.set_class(protocol);
}
