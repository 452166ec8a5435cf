//! Types made from C specs, for the few objects that are made per callback or touched per packet: a pyclass
//! instance costs more than twice as much to allocate, and pyo3 can't derive from a Python class.
//!
//! An object of such a type is a `#[repr(C)]` struct behind the object header (or behind its Python base's fields). Its
//! functions enter Rust as [`enter`](mod@crate::enter) says.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::counts::share_cheaply;
use crate::enter::enter;
use crate::result::boolean;

/// The slot `am_send` (`Include/typeslots.h`), which pyo3 does not name.
pub const AM_SEND: c_int = 81;

/// The layout, functions and flags of a type to be made.
pub struct TypeSpec {
    pub name: &'static CStr,
    /// Size of the whole struct, the base's fields included.
    pub basicsize: c_int,
    pub flags: std::ffi::c_ulong,
    pub slots: Vec<(c_int, *mut c_void)>,
    pub methods: Vec<ffi::PyMethodDef>,
    pub getset: Vec<ffi::PyGetSetDef>,
    pub members: Vec<ffi::PyMemberDef>,
}

impl TypeSpec {
    /// Makes the type. What the spec points to lives as long as the process, as the type does.
    pub fn build(
        self,
        module: &Bound<'_, PyModule>,
        base: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<*mut ffi::PyTypeObject> {
        let mut slots: Vec<ffi::PyType_Slot> =
            self.slots.iter().map(|&(slot, pfunc)| ffi::PyType_Slot { slot, pfunc }).collect();
        let mut table = |slot, start: *mut c_void| slots.push(ffi::PyType_Slot { slot, pfunc: start });
        // C tables end with a zeroed entry.
        table(ffi::Py_tp_methods, leak(self.methods, ffi::PyMethodDef::zeroed()).cast());
        table(ffi::Py_tp_getset, leak(self.getset, ffi::PyGetSetDef::default()).cast());
        table(ffi::Py_tp_members, leak(self.members, member(ptr::null(), 0, 0, 0)).cast());
        table(0, ptr::null_mut());
        let spec = Box::leak(Box::new(ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: self.basicsize,
            itemsize: 0,
            flags: self.flags as c_uint,
            slots: slots.leak().as_mut_ptr(),
        }));
        let base = base.map_or(ptr::null_mut(), |base| base.as_ptr());
        // SAFETY: the spec is complete and lives forever; the module is alive.
        let made = unsafe { ffi::PyType_FromModuleAndSpec(module.as_ptr(), spec, base) };
        if made.is_null() {
            return Err(PyErr::fetch(module.py()));
        }
        // SAFETY: a live type, not yet seen by another thread.
        unsafe { share_cheaply(made) };
        Ok(made.cast())
    }
}

fn leak<T>(mut table: Vec<T>, end: T) -> *mut T {
    table.push(end);
    table.leak().as_mut_ptr()
}

/// A member entry; used for `__weaklistoffset__`.
pub fn member(name: *const std::ffi::c_char, kind: c_int, offset: isize, flags: c_int) -> ffi::PyMemberDef {
    ffi::PyMemberDef { name, type_code: kind, offset, flags, doc: ptr::null() }
}

/// Where the list of weak references stands, from the start of the object. (3.13 ignores Py_RELATIVE_OFFSET here.)
pub fn weaklist_member(offset: usize) -> ffi::PyMemberDef {
    member(c"__weaklistoffset__".as_ptr(), ffi::Py_T_PYSSIZET, offset as isize, ffi::Py_READONLY)
}

pub fn method(
    name: &'static CStr,
    function: ffi::PyMethodDefPointer,
    flags: c_int,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: function, ml_flags: flags, ml_doc: doc.as_ptr() }
}

pub fn no_args(
    name: &'static CStr,
    function: unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    method(name, ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_NOARGS, doc)
}

pub fn one_arg(
    name: &'static CStr,
    function: unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    method(name, ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_O, doc)
}

pub type FastKeywords = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

pub fn fast_keywords(name: &'static CStr, function: FastKeywords, doc: &'static CStr) -> ffi::PyMethodDef {
    method(
        name,
        ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        doc,
    )
}

pub fn getter(name: &'static CStr, get: ffi::getter, doc: &'static CStr) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: None,
        doc: doc.as_ptr(),
        closure: ptr::null_mut(),
    }
}

/// An attribute that can be set too.
pub fn property(
    name: &'static CStr,
    get: ffi::getter,
    set: ffi::setter,
    doc: &'static CStr,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef { set: Some(set), ..getter(name, get, doc) }
}

/// A getter whose answer is True.
pub unsafe extern "C" fn get_true(_: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: called by Python, attached.
    unsafe { enter(|py| Ok(boolean(py, true))) }
}
