//! The unread bytes of a reader.
//!
//! Most often that is one piece, kept as the `bytes` object that it came in: a read that takes all of it takes the object. Bytes that come
//! while a piece is unread go with it into a bytearray, asyncio's `_buffer`. Reading that attribute returns
//! this bytearray, and from then on everything goes through it.

use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::Owned;
use crate::py::bytes::{self, contents};

/// None of its methods runs Python code or drops a reference: see [`take_spent`](Self::take_spent).
#[derive(Default)]
pub struct Buffer {
    /// An exact `bytes` object that is not read to its end; then `array` is empty.
    piece: Option<Owned>,
    /// How much of the piece is read.
    start: usize,
    /// An exact bytearray.
    array: Option<Owned>,
    /// Other code has the array and may change it.
    shown: bool,
    /// Objects that are not needed any more, for the caller to drop outside the reader's lock.
    spent: Vec<Owned>,
}

impl Buffer {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: alive with `self`, and of the type. Only this reader changes a bytearray, or code that asked for it, in the
        // loop's thread.
        unsafe {
            if let Some(piece) = &self.piece {
                &contents(piece)[self.start..]
            } else if let Some(array) = &self.array {
                let start = ffi::PyByteArray_AsString(array.as_ptr()).cast::<u8>();
                slice::from_raw_parts(start, ffi::PyByteArray_Size(array.as_ptr()) as usize)
            } else {
                &[]
            }
        }
    }

    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a piece would be kept as the object that it is.
    pub fn keeps_pieces(&self) -> bool {
        !self.shown && self.is_empty()
    }

    /// Adds an exact `bytes` object that is not empty.
    pub fn add_piece(&mut self, py: Python<'_>, piece: Owned) -> PyResult<()> {
        if self.keeps_pieces() {
            self.piece = Some(piece);
            self.start = 0;
            return Ok(());
        }
        // SAFETY: alive, exact `bytes`.
        let added = self.extend(py, unsafe { contents(&piece) });
        self.spent.push(piece);
        added
    }

    /// Adds an object to those that are [spent](Self::take_spent).
    pub fn spend(&mut self, objects: impl IntoIterator<Item = Owned>) {
        self.spent.extend(objects);
    }

    /// The objects that the last call discarded; to be dropped outside the reader's lock.
    #[inline]
    pub fn take_spent(&mut self) -> Vec<Owned> {
        std::mem::take(&mut self.spent)
    }

    /// Adds a copy. BufferError where a view of the bytearray exists.
    pub fn extend(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        if self.keeps_pieces() {
            self.piece = Some(bytes::copy(py, data)?);
            self.start = 0;
            return Ok(());
        }
        append(py, self.fold(py)?, data)
    }

    /// Takes the first `count` bytes; at least that many are there.
    pub fn take(&mut self, py: Python<'_>, count: usize) -> PyResult<Owned> {
        if self.start == 0
            // SAFETY: alive, exact `bytes`.
            && let Some(piece) = self.piece.take_if(|piece| unsafe { contents(piece) }.len() == count)
        {
            return Ok(piece);
        }
        let taken = bytes::copy(py, &self.bytes()[..count])?;
        self.discard(py, count)?;
        Ok(taken)
    }

    pub fn take_all(&mut self, py: Python<'_>) -> PyResult<Owned> {
        self.take(py, self.len())
    }

    /// Drops the first `count` bytes; at least that many are there.
    pub fn discard(&mut self, py: Python<'_>, count: usize) -> PyResult<()> {
        let left = self.len() - count;
        if self.piece.is_some() {
            self.start += count;
            if left == 0 {
                self.spent.extend(self.piece.take());
            }
            return Ok(());
        }
        let Some(array) = &self.array else { return Ok(()) };
        // SAFETY: attached, an exact bytearray: deleting its beginning moves where it begins.
        let result = unsafe {
            if left == 0 {
                ffi::PyByteArray_Resize(array.as_ptr(), 0)
            } else {
                ffi::PySequence_DelSlice(array.as_ptr(), 0, count as isize)
            }
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
    }

    /// The bytearray, which holds everything from now on.
    pub fn show(&mut self, py: Python<'_>) -> PyResult<Owned> {
        let array = self.fold(py)?.clone_ref(py);
        self.shown = true;
        Ok(array)
    }

    /// Replaces the whole content with another bytearray; returns the old one for the caller to drop.
    pub fn replace(&mut self, array: Owned) -> Self {
        std::mem::replace(self, Self { array: Some(array), shown: true, ..Self::default() })
    }

    /// The bytearray with everything in it.
    fn fold(&mut self, py: Python<'_>) -> PyResult<&Owned> {
        let array = match self.array.take() {
            Some(array) => array,
            None => {
                // SAFETY: attached; a new reference or null with an exception set.
                let array = unsafe { ffi::PyByteArray_FromStringAndSize(std::ptr::null(), 0) };
                // SAFETY: attached; a new reference or null with an exception set.
                unsafe { Owned::steal_or_err(py, array)? }
            }
        };
        let array = self.array.insert(array);
        if let Some(piece) = &self.piece {
            // SAFETY: alive, exact `bytes`.
            append(py, array, unsafe { &contents(piece)[self.start..] })?;
            self.spent.extend(self.piece.take());
        }
        Ok(array)
    }

    pub fn visit<E>(&self, see: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        self.piece.iter().chain(&self.array).try_for_each(see)
    }
}

fn append(py: Python<'_>, array: &Owned, data: &[u8]) -> PyResult<()> {
    // SAFETY: an exact bytearray; after the resize there is room for the data, which is not part of it.
    unsafe {
        let before = ffi::PyByteArray_Size(array.as_ptr()) as usize;
        if ffi::PyByteArray_Resize(array.as_ptr(), (before + data.len()) as isize) != 0 {
            return Err(PyErr::fetch(py));
        }
        let start = ffi::PyByteArray_AsString(array.as_ptr()).cast::<u8>();
        std::ptr::copy_nonoverlapping(data.as_ptr(), start.add(before), data.len());
    }
    Ok(())
}
