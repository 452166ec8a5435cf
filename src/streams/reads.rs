//! The bytes that each kind of read takes from the buffer, or why it has to wait.

use memchr::memmem;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::buffer::Buffer;
use super::reader::{Inner, Reader};
use crate::py::buffer::with_bytes;
use crate::py::bytes::{self, contents};
use crate::py::{Owned, imports, raw};

/// The request of a read.
pub enum Want {
    /// At least one byte, up to this many.
    UpTo(usize),
    /// All until the end: the pieces read so far.
    All(Vec<Owned>),
    Exactly(usize),
    Until(Separators),
    /// A line, or the rest at the end.
    Line(Separators),
    /// The same for `async for`, which the end ends.
    NextLine(Separators),
}

/// The separators of a chunk, and how much of the buffer is known to have none of them.
pub struct Separators {
    all: Vec<Box<[u8]>>,
    shortest: usize,
    longest: usize,
    offset: usize,
}

/// The result of a check of the buffer.
pub enum Look {
    Ready(Owned),
    /// The same where asyncio leaves a paused transport paused: for no bytes, and for the rest of a line at the end.
    Unresumed(Owned),
    Wait,
    Raise(Failure),
}

pub enum Failure {
    /// The exception that was set.
    Set(Owned),
    /// The end came first.
    Incomplete { partial: Owned, expected: Option<usize> },
    /// asyncio's LimitOverrunError.
    Overrun(Overrun),
    /// The same as a ValueError, for lines.
    LineTooLong(Overrun),
    /// The end of an iteration.
    StopIteration,
}

#[derive(Clone, Copy)]
pub struct Overrun {
    /// The separator is there, but too far off.
    found: bool,
    /// How many bytes are known to belong to the chunk.
    consumed: usize,
}

impl Overrun {
    fn text(self) -> &'static str {
        if self.found {
            "Separator is found, but chunk is longer than limit"
        } else {
            "Separator is not found, and chunk exceed the limit"
        }
    }
}

/// Where a chunk ends.
enum Search {
    /// Its length with the separator.
    Found(usize),
    NotYet,
    TooLong(Overrun),
}

impl Separators {
    pub fn newline() -> Self {
        Self { all: vec![Box::new(*b"\n")], shortest: 1, longest: 1, offset: 0 }
    }

    /// From the argument of `readuntil`. ValueError for none, or an empty one.
    pub fn of(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut all = match given.cast::<PyTuple>() {
            Ok(several) => several.iter().map(|one| copy_of(&one)).collect::<PyResult<Vec<_>>>()?,
            Err(_) => vec![copy_of(given)?],
        };
        // The shortest chunk wins, and of those the one with the shortest separator.
        all.sort_by_key(|separator| separator.len());
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            return Err(PyValueError::new_err("Separator should contain at least one element"));
        };
        let (shortest, longest) = (first.len(), last.len());
        if shortest == 0 {
            return Err(PyValueError::new_err("Separator should be at least one-byte string"));
        }
        Ok(Self { all, shortest, longest, offset: 0 })
    }

    fn search(&mut self, data: &[u8], limit: usize) -> Search {
        if data.len() >= self.offset + self.shortest {
            let tail = &data[self.offset..];
            // The end of the chunk, and where its separator begins.
            let mut nearest: Option<(usize, usize)> = None;
            for separator in &self.all {
                let Some(at) = find(tail, separator) else { continue };
                let (start, end) = (self.offset + at, self.offset + at + separator.len());
                if nearest.is_none_or(|(nearest, _)| end < nearest) {
                    nearest = Some((end, start));
                }
            }
            if let Some((end, start)) = nearest {
                return if start > limit {
                    Search::TooLong(Overrun { found: true, consumed: start })
                } else {
                    Search::Found(end)
                };
            }
            // The last bytes may be the beginning of a separator.
            self.offset = (data.len() + 1).saturating_sub(self.longest);
            if self.offset > limit {
                return Search::TooLong(Overrun { found: false, consumed: self.offset });
            }
        }
        Search::NotYet
    }
}

fn find(data: &[u8], separator: &[u8]) -> Option<usize> {
    match separator {
        [one] => memchr::memchr(*one, data),
        several => memmem::find(data, several),
    }
}

fn copy_of(separator: &Bound<'_, PyAny>) -> PyResult<Box<[u8]>> {
    if let Ok(bytes) = separator.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().into());
    }
    with_bytes(separator, |bytes| bytes.into()).map_err(|error| {
        // SAFETY: attached. Steps are entered hot: pyo3 must know of that before it drops a reference.
        unsafe { raw::told(|_| drop(error)) };
        PyTypeError::new_err(format!("a bytes-like object is required, not {:?}", separator.get_type()))
    })
}

impl Want {
    /// The name of the method, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Want::UpTo(_) | Want::All(_) => "read",
            Want::Exactly(_) => "readexactly",
            // asyncio's own code for lines goes through this one too.
            Want::Until(_) | Want::Line(_) | Want::NextLine(_) => "readuntil",
        }
    }

    /// Takes the bytes if they are enough, and resumes the transport where that is due. `first`: not after a wait.
    pub fn look(&mut self, py: Python<'_>, reader: &Reader, first: bool) -> PyResult<Look> {
        let look = reader.with(py, |inner| match &inner.exception {
            // After a wait the future has raised it already.
            Some(error) if first || matches!(self, Want::All(_)) => {
                Ok(Look::Raise(Failure::Set(error.clone_ref(py))))
            }
            _ => self.look_inside(py, inner),
        })?;
        if matches!(look, Look::Ready(_) | Look::Raise(Failure::LineTooLong(_))) {
            reader.resume_if_drained(py)?;
        }
        Ok(look)
    }

    fn look_inside(&mut self, py: Python<'_>, inner: &mut Inner) -> PyResult<Look> {
        match self {
            Want::UpTo(0) | Want::Exactly(0) => bytes::copy(py, &[]).map(Look::Unresumed),
            Want::UpTo(n) => {
                let count = inner.buffer.len().min(*n);
                if count == 0 && !inner.eof {
                    return Ok(Look::Wait);
                }
                inner.buffer.take(py, count).map(Look::Ready)
            }
            Want::All(pieces) => {
                if !inner.buffer.is_empty() {
                    pieces.push(inner.buffer.take_all(py)?);
                }
                if inner.eof { join(py, pieces, &mut inner.buffer).map(Look::Ready) } else { Ok(Look::Wait) }
            }
            Want::Exactly(n) => {
                if inner.buffer.len() >= *n {
                    inner.buffer.take(py, *n).map(Look::Ready)
                } else if inner.eof {
                    let partial = inner.buffer.take_all(py)?;
                    Ok(Look::Raise(Failure::Incomplete { partial, expected: Some(*n) }))
                } else {
                    Ok(Look::Wait)
                }
            }
            Want::Until(separators) => match separators.search(inner.buffer.bytes(), inner.limit) {
                Search::Found(end) => inner.buffer.take(py, end).map(Look::Ready),
                Search::TooLong(overrun) => Ok(Look::Raise(Failure::Overrun(overrun))),
                Search::NotYet if inner.eof => {
                    let partial = inner.buffer.take_all(py)?;
                    Ok(Look::Raise(Failure::Incomplete { partial, expected: None }))
                }
                Search::NotYet => Ok(Look::Wait),
            },
            Want::Line(separators) => line(py, separators, inner),
            Want::NextLine(separators) => Ok(match line(py, separators, inner)? {
                // SAFETY: exact `bytes`.
                Look::Unresumed(line) if unsafe { contents(&line) }.is_empty() => {
                    inner.buffer.spend([line]);
                    Look::Raise(Failure::StopIteration)
                }
                look => look,
            }),
        }
    }
}

fn line(py: Python<'_>, separators: &mut Separators, inner: &mut Inner) -> PyResult<Look> {
    match separators.search(inner.buffer.bytes(), inner.limit) {
        Search::Found(end) => inner.buffer.take(py, end).map(Look::Ready),
        Search::TooLong(overrun) => {
            // A complete line is taken whole; of an incomplete one, all bytes.
            let gone = if overrun.found { overrun.consumed + 1 } else { inner.buffer.len() };
            inner.buffer.discard(py, gone)?;
            Ok(Look::Raise(Failure::LineTooLong(overrun)))
        }
        Search::NotYet if inner.eof => inner.buffer.take_all(py).map(Look::Unresumed),
        Search::NotYet => Ok(Look::Wait),
    }
}

fn join(py: Python<'_>, pieces: &mut Vec<Owned>, buffer: &mut Buffer) -> PyResult<Owned> {
    let mut pieces = std::mem::take(pieces);
    if pieces.len() == 1 {
        return Ok(pieces.remove(0));
    }
    // SAFETY: exact `bytes`.
    let len = pieces.iter().map(|piece| unsafe { contents(piece) }.len()).sum();
    let whole = PyBytes::new_with(py, len, |mut rest| {
        for piece in &pieces {
            // SAFETY: as above; they are as long together as `rest`.
            let piece = unsafe { contents(piece) };
            let (begin, end) = rest.split_at_mut(piece.len());
            begin.copy_from_slice(piece);
            rest = end;
        }
        Ok(())
    });
    buffer.spend(pieces);
    Ok(whole?.into())
}

impl Failure {
    pub fn into_error(self, py: Python<'_>) -> PyErr {
        self.make(py).unwrap_or_else(|error| error)
    }

    fn make(self, py: Python<'_>) -> PyResult<PyErr> {
        Ok(match self {
            Failure::Set(error) => {
                let error = PyErr::from_value(error.into_bound(py));
                if !error.is_instance_of::<PyStopIteration>(py) {
                    return Ok(error);
                }
                // It would be mistaken for a result; a coroutine refuses it too.
                let refusal = PyRuntimeError::new_err("coroutine raised StopIteration");
                // SAFETY: as for `copy_of`.
                unsafe { raw::told(|py| refusal.set_cause(py, Some(error))) };
                refusal
            }
            Failure::Incomplete { partial, expected } => {
                let class = imports::incomplete_read_error(py)?;
                PyErr::from_value(class.call1((partial.bind(py), expected))?)
            }
            Failure::Overrun(overrun) => {
                let class = imports::limit_overrun_error(py)?;
                PyErr::from_value(class.call1((overrun.text(), overrun.consumed))?)
            }
            Failure::LineTooLong(overrun) => PyValueError::new_err(overrun.text()),
            Failure::StopIteration => pyo3::exceptions::PyStopAsyncIteration::new_err(()),
        })
    }
}
