//! What the types of this module have in common as Python objects: native state behind the header, for Python classes to
//! derive from.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::event_loop::{EventLoop, task};
use crate::py::{Owned, raw};

/// The state behind an object: usable from any thread, with a lock inside where it changes.
pub trait State: Default + 'static {
    /// Shows every Python object to the collector.
    fn visit<E>(&self, see: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E>;

    /// Takes out all that it refers to, for the caller to drop.
    fn take_all(&self, py: Python<'_>) -> impl Sized + use<Self>;
}

#[repr(C)]
struct Object<T> {
    header: ffi::PyObject,
    state: T,
}

/// A type: made once by the module's init, never freed.
pub struct Type<T> {
    made: OnceLock<Kept>,
    /// The class that the package derives from it.
    class: OnceLock<Kept>,
    of: PhantomData<fn() -> T>,
}

struct Kept(*mut ffi::PyTypeObject);
// SAFETY: a type that is kept for ever may be used by any attached thread.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

impl<T: State> Type<T> {
    pub const fn new() -> Self {
        Self { made: OnceLock::new(), class: OnceLock::new(), of: PhantomData }
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
        let common = [
            (ffi::Py_tp_new, new::<T> as *mut c_void),
            (ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
            (ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
            (ffi::Py_tp_clear, clear::<T> as *mut c_void),
            (ffi::Py_tp_doc, doc.as_ptr() as *mut c_void),
        ];
        let short = name.to_str().ok().and_then(|name| name.rsplit('.').next());
        let made = raw::TypeSpec {
            name,
            basicsize: size_of::<Object<T>>() as c_int,
            flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_BASETYPE,
            slots: common.into_iter().chain(slots).collect(),
            methods,
            getset,
            members: Vec::new(),
        }
        .build_and_add(module, short.expect("a dotted name of ours"), None)?;
        let _ = self.made.set(Kept(made));
        Ok(())
    }

    /// Names the class over the type.
    pub fn set_class(&self, class: &Bound<'_, PyType>) {
        self.class.get_or_init(|| {
            let class = class.clone().into_ptr();
            // SAFETY: a live type that only this thread has seen.
            unsafe { raw::share_cheaply(class) };
            Kept(class.cast())
        });
    }

    /// The state of an instance of the package's class; None for anything else, derived classes included: these may override what
    /// a short cut would pass by.
    ///
    /// # Safety
    /// `object` is alive, and longer than the result is used.
    #[inline]
    pub unsafe fn of_exact<'a>(&self, object: *mut ffi::PyObject) -> Option<&'a T> {
        // SAFETY: promised; an exact instance has our layout.
        unsafe {
            let class = self.class.get()?.0;
            (ffi::Py_TYPE(object) == class).then(|| self.of(object))
        }
    }

    /// The state of an instance.
    ///
    /// # Safety
    /// `object` is an instance of the type, and alive longer than the result is used.
    #[inline]
    pub unsafe fn of<'a>(&self, object: *mut ffi::PyObject) -> &'a T {
        // SAFETY: promised; `new` has filled it in.
        unsafe { &(*object.cast::<Object<T>>()).state }
    }
}

unsafe extern "C" fn new<T: State>(
    kind: *mut ffi::PyTypeObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached; the object is complete before other Python code runs.
    unsafe {
        let object = ffi::PyType_GenericAlloc(kind, 0);
        if !object.is_null() {
            std::ptr::write(&raw mut (*object.cast::<Object<T>>()).state, T::default());
        }
        object
    }
}

unsafe extern "C" fn dealloc<T: State>(object: *mut ffi::PyObject) {
    // SAFETY: called with the last reference, by the derived class's own deallocator too, which leaves the type to us.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        raw::drop_bounded(std::ptr::read(&raw const (*object.cast::<Object<T>>()).state));
        let free = (*kind).tp_free.expect("every type has one");
        free(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

unsafe extern "C" fn traverse<T: State>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector with the world stopped. The class that derives from this shows the type and the dict.
    unsafe {
        let mut see = |reference: &Owned| match raw::visit(reference.as_ptr(), visit, arg) {
            0 => Ok(()),
            stopped => Err(stopped),
        };
        (*object.cast::<Object<T>>()).state.visit(&mut see).err().unwrap_or(0)
    }
}

unsafe extern "C" fn clear<T: State>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage, attached.
    drop(unsafe { (*object.cast::<Object<T>>()).state.take_all(Python::assume_attached()) });
    0
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

/// Whose futures a reader waits for.
pub struct Loop {
    pub object: Owned,
    /// An `EventLoop`: found out once, since asking what a class derives from takes a walk.
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

/// The new value of an attribute. AttributeError for a deletion.
///
/// # Safety
/// Null, or alive in the caller's hands.
pub unsafe fn new_value<'py>(py: Python<'py>, value: *mut ffi::PyObject) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: promised.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, value) }
        .ok_or_else(|| PyAttributeError::new_err("cannot delete attribute"))
}

/// Defines a function of a type, without or with one argument, whose body sees the state.
macro_rules! function {
    ($enter:ident $name:ident($py:ident, $object:ident, $state:ident) $body:expr) => {
        unsafe extern "C" fn $name(
            $object: *mut ::pyo3::ffi::PyObject,
            _: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type.
            unsafe {
                $crate::py::raw::$enter(|$py| {
                    let $state = TYPE.of($object);
                    $body
                })
            }
        }
    };
    ($enter:ident $name:ident($py:ident, $object:ident, $state:ident, $argument:ident) $body:expr) => {
        unsafe extern "C" fn $name(
            $object: *mut ::pyo3::ffi::PyObject,
            argument: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type and an argument that stays alive.
            unsafe {
                $crate::py::raw::$enter(|$py| {
                    let $state = TYPE.of($object);
                    let $argument = ::pyo3::Bound::<::pyo3::PyAny>::from_borrowed_ptr($py, argument);
                    $body
                })
            }
        }
    };
}

/// Defines an attribute that asyncio's class has: its getter and its setter. The bodies see what is inside the state's lock.
macro_rules! attribute {
    ($get:ident, $set:ident, $py:ident, $inner:ident, $value:ident; $read:expr; $write:expr) => {
        unsafe extern "C" fn $get(
            object: *mut ::pyo3::ffi::PyObject,
            _: *mut ::std::ffi::c_void,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: called by Python, attached, with an object of the type.
            unsafe { $crate::py::raw::enter(|$py| TYPE.of(object).with($py, |$inner| $read)) }
        }

        unsafe extern "C" fn $set(
            object: *mut ::pyo3::ffi::PyObject,
            value: *mut ::pyo3::ffi::PyObject,
            _: *mut ::std::ffi::c_void,
        ) -> ::std::ffi::c_int {
            // SAFETY: called by Python, attached, with an object of the type and a value, or null to delete it.
            unsafe {
                $crate::py::raw::enter(|$py| {
                    let $value = $crate::streams::object::new_value($py, value)?;
                    // What was there before is dropped after the lock.
                    TYPE.of(object).with($py, $write);
                    Ok(0)
                })
            }
        }
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

pub(super) use {attribute, flag_attribute, function, object_attribute};
