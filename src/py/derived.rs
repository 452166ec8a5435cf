//! Types derived from asyncio's transport classes, with Rust state behind the base's fields.
//!
//! An object has two parts: what any thread may read (`Public`, set once, atomic or locked inside), and what the loop's
//! thread owns (the [`State`]), reached by raw pointer under the loop's claim. They stand side by side, so that another
//! thread may read the one while the loop's thread holds the other mutably.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use pyo3::exceptions::{PyImportError, PyResourceWarning};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::class::{self, Base, Object, Visit};
use super::method::IntoResult;
use super::{Owned, imports, raw};

/// How many slots (`__slots__`) asyncio's transport classes have; checked when a type is made.
const BASE_SLOTS: usize = 1;

/// The state of an object of a derived type.
pub trait State: Sized + 'static {
    /// The type; of several that have the same state, any.
    fn class() -> &'static Class<Self>;

    /// What any thread may read of it.
    type Public: Sync + 'static;

    fn public(&self) -> &Arc<Self::Public>;

    /// Shows every Python object to the garbage collector, which has stopped all threads; locks are not held then.
    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int>;

    /// Takes out what closes reference cycles, for the caller to drop. The state must stay whole.
    fn clear(&mut self, none: Owned) -> Vec<Owned>;

    /// The object has no reference left: closes what is open and warns. In whichever thread this happens; no other thread
    /// has the object, so `state_of` may be used without the loop's claim.
    fn finalize(object: &Bound<'_, PyAny>);

    fn repr(object: &Bound<'_, PyAny>) -> PyResult<String>;
}

#[repr(C)]
pub struct Native<S: State> {
    header: ffi::PyObject,
    slots: [*mut ffi::PyObject; BASE_SLOTS],
    weaklist: *mut ffi::PyObject,
    public: Option<Arc<S::Public>>,
    state: Option<S>,
}

/// A derived type: made once by the module's init, never freed.
pub struct Class<S: State>(class::Class<Native<S>>);

// SAFETY: the struct begins with the header and the slots of the base, as `check_base` has found.
unsafe impl<S: State> Object for Native<S> {
    const BASE: Base = Base::Slots(BASE_SLOTS);
    const FINALIZES: bool = true;

    fn class() -> &'static class::Class<Self> {
        &S::class().0
    }

    fn visit(&self, see: &mut Visit) {
        if let Some(state) = &self.state {
            let _ = state.visit(&mut see.see());
        }
    }

    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: there is no other reference. The rest is released with the object.
        unsafe {
            let none = Owned::steal(raw::none(Python::assume_attached()));
            (*object.cast::<Self>()).state.as_mut().map(|state| state.clear(none))
        }
    }

    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized {
        // SAFETY: moved out once, when the object goes.
        unsafe {
            let whole = object.cast::<Self>();
            (std::ptr::read(&raw const (*whole).state), std::ptr::read(&raw const (*whole).public))
        }
    }

    fn is_unfinished(&self) -> bool {
        self.state.is_some()
    }

    unsafe fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
        S::finalize(object);
        Ok(())
    }
}

impl<S: State> Class<S> {
    pub const fn new() -> Self {
        Self(class::Class::new())
    }

    /// Makes the type over `base` and adds it to the module.
    pub fn init(
        &self,
        module: &Bound<'_, PyModule>,
        base: &Bound<'_, PyAny>,
        description: Description,
    ) -> PyResult<()> {
        imports::warn(module.py())?; // Needed when the interpreter ends and imports no more.
        check_base(base)?;
        self.0.init_and_add(module, spec::<S>(&description), Some(base))
    }

    /// Whether an object is of this very type (nothing derives from it).
    #[inline]
    pub fn is_type_of(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: alive in the caller's hands.
        unsafe { self.0.is_exact(object) }
    }

    /// Makes an object.
    pub fn create<'py>(&self, py: Python<'py>, state: S) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: our own type's; the object is complete before any other Python code runs.
        unsafe {
            let object = self.0.allocate(py)?;
            let whole = object.as_ptr().cast::<Native<S>>();
            std::ptr::write(&raw mut (*whole).public, Some(state.public().clone()));
            std::ptr::write(&raw mut (*whole).state, Some(state));
            Ok(object.into_bound(py))
        }
    }
}

/// What a derived type shows to Python.
pub struct Description {
    /// `package.module.Type`.
    pub name: &'static CStr,
    pub doc: &'static CStr,
    pub methods: Vec<ffi::PyMethodDef>,
    pub getset: Vec<ffi::PyGetSetDef>,
}

fn check_base(base: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live type, of which only plain fields are read.
    let fits = unsafe {
        let base = base.as_ptr().cast::<ffi::PyTypeObject>();
        let extras = ffi::Py_TPFLAGS_MANAGED_DICT | ffi::Py_TPFLAGS_MANAGED_WEAKREF;
        let slots = size_of::<ffi::PyObject>() + BASE_SLOTS * size_of::<usize>();
        (*base).tp_basicsize as usize == slots
            && (*base).tp_dictoffset == 0
            && (*base).tp_weaklistoffset == 0
            && ffi::PyType_GetFlags(base) & extras == 0
    };
    if fits {
        return Ok(());
    }
    // We release the base's fields ourselves (see `Base::Slots`), which takes that they are the slots we know.
    Err(PyImportError::new_err(format!(
        "{base} has other fields than expected in this Python: not supported"
    )))
}

fn spec<S: State>(description: &Description) -> raw::TypeSpec {
    raw::TypeSpec {
        name: description.name,
        basicsize: size_of::<Native<S>>() as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            (ffi::Py_tp_repr, repr::<S> as *mut c_void),
            (ffi::Py_tp_doc, description.doc.as_ptr() as *mut c_void),
        ],
        methods: description.methods.clone(),
        getset: description.getset.clone(),
        members: vec![raw::weaklist_member(std::mem::offset_of!(Native<S>, weaklist))],
    }
}

/// What any thread may read of an object of a derived type with state `S`.
#[inline]
pub fn public_of<'a, S: State>(object: *mut ffi::PyObject) -> &'a S::Public {
    // SAFETY: objects are only made by `create`, which fills this in before anybody sees them; it stays until they go.
    match unsafe { &(*object.cast::<Native<S>>()).public } {
        Some(public) => public,
        None => unreachable!("set by create"),
    }
}

/// The state behind an object of a derived type with state `S`; touching it needs the loop's claim.
#[inline]
pub fn state_of<S: State>(object: *mut ffi::PyObject) -> *mut S {
    // SAFETY: objects are only made by `create`, which fills the state in before anybody sees them.
    match unsafe { &mut (*object.cast::<Native<S>>()).state } {
        Some(state) => state,
        None => unreachable!("set by create"),
    }
}

/// Warns that an object was dropped while its state was open.
pub fn warn_unclosed(object: &Bound<'_, PyAny>) {
    let py = object.py();
    let warned = (|| {
        let options = PyDict::new(py);
        options.set_item("source", object)?;
        let message = format!("unclosed transport {}", object.repr()?);
        imports::warn(py)?.call((message, py.get_type::<PyResourceWarning>()), Some(&options))
    })();
    if let Err(error) = warned {
        error.write_unraisable(py, Some(object));
    }
}

unsafe extern "C" fn repr<S: State>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached, with an object of the type.
    unsafe {
        raw::enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            Ok(S::repr(&object)?.into_pyobject(py)?.into_any().into_result(py))
        })
    }
}
