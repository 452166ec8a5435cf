//! Types derived from asyncio's transport classes, with Rust state behind the base's fields.
//!
//! An object has two parts: what any thread may read (`Public`, set once, atomic or locked inside), and what the loop's
//! thread owns (the [`State`]), reached by raw pointer under the loop's claim. They stand side by side, so that another
//! thread may read the one while the loop's thread holds the other mutably.

use std::ffi::{CStr, c_int, c_void};
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyImportError, PyResourceWarning};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::method::IntoResult;
use super::{Owned, imports, raw};

/// How many slots (`__slots__`) asyncio's transport classes have; checked when a type is made.
const BASE_SLOTS: usize = 1;

/// What stands behind an object of a derived type.
pub trait State: Sized + 'static {
    /// What any thread may read of it.
    type Public: Sync + 'static;

    fn public(&self) -> &Arc<Self::Public>;

    /// Shows every Python object to the garbage collector, which has stopped all threads; locks are not held then.
    fn visit(&self, see: &mut dyn FnMut(&Owned) -> Result<(), c_int>) -> Result<(), c_int>;

    /// Takes out what closes reference cycles, for the caller to drop. The state must stay whole.
    fn clear(&mut self, none: Owned) -> Vec<Owned>;

    /// Nobody refers to the object any more: closes what is open and says so. In whichever thread this happens; nobody else
    /// has the object, so `state_of` may be used without the loop's claim.
    fn finalize(object: &Bound<'_, PyAny>);

    fn repr(object: &Bound<'_, PyAny>) -> PyResult<String>;
}

#[repr(C)]
struct Object<S: State> {
    header: ffi::PyObject,
    slots: [*mut ffi::PyObject; BASE_SLOTS],
    weaklist: *mut ffi::PyObject,
    public: Option<Arc<S::Public>>,
    state: Option<S>,
}

/// A derived type: made once by the module's init, never freed.
pub struct Class(OnceLock<Made>);

struct Made(*mut ffi::PyTypeObject);
// SAFETY: the type is never freed and may be used by any attached thread.
unsafe impl Send for Made {}
// SAFETY: as above.
unsafe impl Sync for Made {}

impl Class {
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Makes the type over `base` and adds it to the module.
    pub fn init<S: State>(
        &self,
        module: &Bound<'_, PyModule>,
        base: &Bound<'_, PyAny>,
        description: Description,
    ) -> PyResult<()> {
        imports::warn(module.py())?; // Needed when the interpreter ends and imports no more.
        check_base(base)?;
        let name = description.name.to_str().ok().and_then(|name| name.rsplit('.').next());
        let made = spec::<S>(&description).build_and_add(
            module,
            name.expect("a dotted name of ours"),
            Some(base),
        )?;
        let _ = self.0.set(Made(made));
        Ok(())
    }

    fn made(&self) -> *mut ffi::PyTypeObject {
        self.0.get().expect("made by the module's init").0
    }

    /// Whether an object is of this very type (nothing derives from it).
    #[inline]
    pub fn is_type_of(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller's object is alive; only its type pointer is read.
        unsafe { ffi::Py_TYPE(object) == self.made() }
    }

    /// Makes an object.
    pub fn create<'py, S: State>(&self, py: Python<'py>, state: S) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: our own type; GenericAlloc zeroes the memory and tracks the object, which is complete before any other
        // Python code runs.
        unsafe {
            let object = ffi::PyType_GenericAlloc(self.made(), 0);
            let object = Owned::steal_or_err(py, object)?;
            let whole = object.as_ptr().cast::<Object<S>>();
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
    // We release the base's fields ourselves (see `dealloc`), which takes that they are the slots we know.
    Err(PyImportError::new_err(format!(
        "{base} has other fields than expected in this Python: not supported"
    )))
}

fn spec<S: State>(description: &Description) -> raw::TypeSpec {
    raw::TypeSpec {
        name: description.name,
        basicsize: size_of::<Object<S>>() as c_int,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            (ffi::Py_tp_dealloc, dealloc::<S> as *mut c_void),
            (ffi::Py_tp_finalize, finalize::<S> as *mut c_void),
            (ffi::Py_tp_traverse, traverse::<S> as *mut c_void),
            (ffi::Py_tp_clear, clear::<S> as *mut c_void),
            (ffi::Py_tp_repr, repr::<S> as *mut c_void),
            (ffi::Py_tp_doc, description.doc.as_ptr() as *mut c_void),
        ],
        methods: description.methods.clone(),
        getset: description.getset.clone(),
        members: vec![raw::weaklist_member(std::mem::offset_of!(Object<S>, weaklist))],
    }
}

/// What any thread may read of an object of a derived type with state `S`.
#[inline]
pub fn public_of<'a, S: State>(object: *mut ffi::PyObject) -> &'a S::Public {
    // SAFETY: objects are only made by `create`, which fills this in before anybody sees them; it stays until they go.
    match unsafe { &(*object.cast::<Object<S>>()).public } {
        Some(public) => public,
        None => unreachable!("set by create"),
    }
}

/// The state behind an object of a derived type with state `S`; touching it needs the loop's claim.
#[inline]
pub fn state_of<S: State>(object: *mut ffi::PyObject) -> *mut S {
    // SAFETY: objects are only made by `create`, which fills the state in before anybody sees them.
    match unsafe { &mut (*object.cast::<Object<S>>()).state } {
        Some(state) => state,
        None => unreachable!("set by create"),
    }
}

/// Says that an object was dropped while what is behind it was open.
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

unsafe extern "C" fn finalize<S: State>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python, attached, with an object of the type; an exception that is set is kept for the caller.
    unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        raw::enter(|py| {
            if (*object.cast::<Object<S>>()).state.is_some() {
                S::finalize(&Bound::from_borrowed_ptr(py, object));
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
    }
}

unsafe extern "C" fn dealloc<S: State>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference, in the order every GC type with a finaliser follows.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(object) != 0 {
            return; // The finaliser's warning brought it back to life.
        }
        let kind = ffi::Py_TYPE(object);
        ffi::PyObject_GC_UnTrack(object.cast());
        let whole = object.cast::<Object<S>>();
        if !(*whole).weaklist.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        raw::drop_bounded(((*whole).state.take(), (*whole).public.take()));
        // The functions of a Python base class must not be called: they look for the next base by comparing functions, and
        // find ours again. Its slots are released here.
        for slot in &mut (*whole).slots {
            ffi::Py_XDECREF(std::mem::replace(slot, std::ptr::null_mut()));
        }
        let free = (*kind).tp_free.expect("every type has one");
        free(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

unsafe extern "C" fn traverse<S: State>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector with the world stopped; only reads. No lock is held across a safe point.
    unsafe {
        let whole = &*object.cast::<Object<S>>();
        for reference in [ffi::Py_TYPE(object).cast()].into_iter().chain(whole.slots) {
            let result = raw::visit(reference, visit, arg);
            if result != 0 {
                return result;
            }
        }
        let Some(state) = &whole.state else { return 0 };
        let mut see = |object: &Owned| match raw::visit(object.as_ptr(), visit, arg) {
            0 => Ok(()),
            stopped => Err(stopped),
        };
        state.visit(&mut see).err().unwrap_or(0)
    }
}

unsafe extern "C" fn clear<S: State>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage: nobody else has it. What is left goes with the object.
    unsafe {
        if let Some(state) = &mut (*object.cast::<Object<S>>()).state {
            let py = Python::assume_attached();
            let garbage = state.clear(Owned::steal(raw::none(py)));
            drop(garbage);
        }
    }
    0
}
