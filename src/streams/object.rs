//! What the types of this module have in common as Python objects: native state behind the header, for Python classes to
//! derive from.

use std::ffi::{CStr, c_int, c_void};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::event_loop::{EventLoop, task};
use crate::py::class::{Class, InPlace, Object, Visit};
use crate::py::{Owned, raw};

/// The state behind an object: usable from any thread, with a lock inside where it changes.
pub trait State: Default + 'static {
    /// The type that has it.
    fn type_of() -> &'static Type<Self>;

    /// Shows every Python object to the collector.
    fn visit<E>(&self, see: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E>;

    /// Takes out all its references, for the caller to drop.
    fn take_all(&self, py: Python<'_>) -> impl Sized + use<Self>;
}

#[repr(C)]
pub struct Native<T> {
    header: ffi::PyObject,
    state: T,
}

/// A type: made once by the module's init, never freed.
pub struct Type<T>(Class<Native<T>>);

// SAFETY: the struct begins with the header.
unsafe impl<T: State> Object for Native<T> {
    fn class() -> &'static Class<Self> {
        &T::type_of().0
    }

    fn visit(&self, see: &mut Visit) {
        let _ = self.state.visit(&mut see.see());
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: an instance, whose state has a lock inside; attached.
        unsafe { Self::of(object).state.take_all(Python::assume_attached()) }
    }

    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: dropped once, when the object goes.
        unsafe { InPlace::new(&raw mut (*object.cast::<Self>()).state) }
    }
}

impl<T: State> Type<T> {
    pub const fn new() -> Self {
        Self(Class::new())
    }

    /// Makes the type and adds it to the module.
    pub fn init(
        &self,
        module: &Bound<'_, PyModule>,
        name: &'static CStr,
        doc: &'static CStr,
        slots: Vec<(c_int, *mut c_void)>,
        methods: Vec<ffi::PyMethodDef>,
        getset: Vec<ffi::PyGetSetDef>,
    ) -> PyResult<()> {
        let common =
            [(ffi::Py_tp_new, new::<T> as *mut c_void), (ffi::Py_tp_doc, doc.as_ptr() as *mut c_void)];
        let spec = raw::TypeSpec {
            name,
            basicsize: size_of::<Native<T>>() as c_int,
            flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_BASETYPE,
            slots: common.into_iter().chain(slots).collect(),
            methods,
            getset,
            members: Vec::new(),
        };
        self.0.init_and_add(module, spec, None)
    }

    /// Names the class over the type.
    pub fn set_class(&self, class: &Bound<'_, PyType>) {
        self.0.set_derived(class);
    }

    /// The state of an instance of the package's class; None for anything else, derived classes included: these may override methods
    /// that a fast path would skip.
    ///
    /// # Safety
    /// `object` is alive, and longer than the result is used.
    #[inline]
    pub unsafe fn of_exact<'a>(&self, object: *mut ffi::PyObject) -> Option<&'a T> {
        // SAFETY: promised; an exact instance has our layout.
        unsafe { (ffi::Py_TYPE(object) == self.0.derived()).then(|| self.of(object)) }
    }

    /// The state of an instance.
    ///
    /// # Safety
    /// `object` is an instance of the type, and alive longer than the result is used.
    #[inline]
    pub unsafe fn of<'a>(&self, object: *mut ffi::PyObject) -> &'a T {
        // SAFETY: promised; `new` has filled it in.
        unsafe { &(*object.cast::<Native<T>>()).state }
    }
}

unsafe extern "C" fn new<T: State>(
    kind: *mut ffi::PyTypeObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached; the object is complete before other Python code runs.
    unsafe {
        T::type_of().0.adopt(kind);
        let object = ffi::PyType_GenericAlloc(kind, 0);
        if !object.is_null() {
            std::ptr::write(&raw mut (*object.cast::<Native<T>>()).state, T::default());
        }
        object
    }
}

/// The arguments of an `__init__`, by position or by name.
///
/// # Safety
/// A tuple and a dict or null, as Python gives them.
pub unsafe fn init_arguments<'py, const N: usize>(
    py: Python<'py>,
    class: &str,
    names: [&str; N],
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    // SAFETY: promised.
    let (args, keywords) = unsafe {
        let args = Bound::from_borrowed_ptr(py, args).cast_into_unchecked::<PyTuple>();
        let keywords = Bound::from_borrowed_ptr_or_opt(py, keywords)
            .map(|keywords| keywords.cast_into_unchecked::<PyDict>());
        (args, keywords)
    };
    let mut values = [const { None }; N];
    if args.len() > N {
        let text = format!("{class}() takes up to {N} positional arguments but {} were given", args.len());
        return Err(PyTypeError::new_err(text));
    }
    for (value, given) in values.iter_mut().zip(args.iter()) {
        *value = Some(given);
    }
    for (keyword, given) in keywords.into_iter().flatten() {
        let keyword: String = keyword.extract()?;
        let place = names.iter().position(|name| *name == keyword);
        let place = place.ok_or_else(|| {
            PyTypeError::new_err(format!("{class}() got an unexpected keyword argument '{keyword}'"))
        })?;
        if values[place].replace(given).is_some() {
            let text = format!("{class}() got multiple values for argument '{keyword}'");
            return Err(PyTypeError::new_err(text));
        }
    }
    Ok(values)
}

/// The loop whose futures a reader waits for.
pub struct Loop {
    pub object: Owned,
    /// An `EventLoop`: checked once, since a check of a class's bases walks its MRO.
    ours: bool,
}

impl Loop {
    pub fn new(object: &Bound<'_, PyAny>) -> Self {
        Self { object: object.into(), ours: object.is_instance_of::<EventLoop>() }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), ours: self.ours }
    }

    /// A future: made natively where the loop is ours.
    pub fn new_future(&self, py: Python<'_>) -> PyResult<Owned> {
        let object = self.object.bind(py);
        if self.ours {
            // SAFETY: as was found when this was made.
            let event_loop = unsafe { object.cast_unchecked::<EventLoop>() };
            return task::create_future(&event_loop);
        }
        Ok(object.call_method0("create_future")?.into())
    }
}

/// Defines an attribute that asyncio's class has: its getter and its setter. The bodies get the content of the state's lock.
macro_rules! attribute {
    ($get:ident, $set:ident, $py:ident, $inner:ident, $value:ident; $read:expr; $write:expr) => {
        $crate::py::method::getter!($get($py, object, state = TYPE.of(object)) state.with($py, |$inner| $read));
        $crate::py::method::setter!($set($py, object, state = TYPE.of(object), $value) {
            // The old value is dropped after the lock is released.
            state.with($py, $write);
            Ok(())
        });
    };
}

/// An attribute that holds an object or None.
macro_rules! object_attribute {
    ($get:ident, $set:ident, $field:ident) => {
        $crate::streams::object::attribute!($get, $set, py, inner, value;
            Ok(inner.$field.as_ref().map_or_else(
                || $crate::py::raw::none(py),
                |found| found.clone_ref(py).into_ptr(),
            ));
            {
                let new = Some(value).filter(|value| !value.is_none()).map($crate::py::Owned::from);
                move |inner| std::mem::replace(&mut inner.$field, new)
            }
        );
    };
}

/// An attribute that is true or false.
macro_rules! flag_attribute {
    ($get:ident, $set:ident, $field:ident) => {
        $crate::streams::object::attribute!($get, $set, py, inner, value;
            Ok($crate::py::raw::boolean(py, inner.$field));
            {
                let new = value.is_truthy()?;
                move |inner| inner.$field = new
            }
        );
    };
}

pub(super) use {attribute, flag_attribute, object_attribute};
