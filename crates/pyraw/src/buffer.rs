//! The buffer protocol, for data that is not exact `bytes`.

use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;

/// Looks at a bytes-like object's memory for the time of a call, without the allocation that a kept view needs.
pub fn with_bytes<R>(object: &Bound<'_, PyAny>, f: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
    with_view(object, ffi::PyBUF_SIMPLE, |ptr, len| {
        // SAFETY: the exporter keeps the memory valid until the view is released. A null pointer has no length.
        f(if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ptr, len) } })
    })
}

/// As [`with_bytes`], for memory to be written to: start and length.
pub fn with_writable<R>(object: &Bound<'_, PyAny>, f: impl FnOnce(*mut u8, usize) -> R) -> PyResult<R> {
    with_view(object, ffi::PyBUF_WRITABLE, f)
}

fn with_view<R>(
    object: &Bound<'_, PyAny>,
    flags: std::ffi::c_int,
    f: impl FnOnce(*mut u8, usize) -> R,
) -> PyResult<R> {
    let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
    // SAFETY: attached; on success the view is filled in. It stays where it is until it is released.
    if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
        return Err(PyErr::fetch(object.py()));
    }
    // SAFETY: as above.
    let (start, len) = unsafe { ((*view.as_ptr()).buf.cast(), (*view.as_ptr()).len as usize) };
    let result = f(start, len);
    // SAFETY: a successful GetBuffer is released exactly once.
    unsafe { ffi::PyBuffer_Release(view.as_mut_ptr()) };
    Ok(result)
}

/// A contiguous view of a bytes-like object, released when dropped (attached, like every view).
pub struct BufferView {
    view: Box<ffi::Py_buffer>,
}

impl BufferView {
    pub fn readable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, ffi::PyBUF_SIMPLE)
    }

    pub fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, ffi::PyBUF_WRITABLE)
    }

    fn get(object: &Bound<'_, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: attached; on success the view is filled in. It is boxed because its address must not change.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: filled in by the successful call.
        Ok(Self { view: unsafe { Box::from_raw(Box::into_raw(view).cast()) } })
    }

    /// The object whose memory it is.
    pub fn exporter(&self) -> Option<&Py<PyAny>> {
        // SAFETY: `obj` is null or a reference that the view holds; `Py` is a transparent wrapper of that pointer.
        (!self.view.obj.is_null()).then(|| unsafe { &*(&raw const self.view.obj).cast() })
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.view.buf.cast()
    }

    pub fn len(&self) -> usize {
        self.view.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.view.len == 0
    }

    /// The bytes. Another thread may change them while we look, as with every Python buffer; they are only
    /// ever handed to the kernel or copied.
    pub fn bytes(&self) -> &[u8] {
        if self.is_empty() {
            return &[];
        }
        // SAFETY: the exporter keeps the memory valid until the view is released.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

impl Drop for BufferView {
    fn drop(&mut self) {
        // SAFETY: a successful GetBuffer is released exactly once.
        unsafe { ffi::PyBuffer_Release(&mut *self.view) };
    }
}
