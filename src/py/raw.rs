//! Types made from C specs, for the few objects that are made per callback or touched per packet: a pyclass
//! instance costs more than twice as much to allocate, and pyo3 can't derive from a Python class.
//!
//! A raw object is a `#[repr(C)]` struct behind the object header (or behind its Python base's fields). Its
//! functions enter Rust through [`enter`] (slow paths) or [`enter_hot`].

use std::any::Any;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::exceptions::{PyRecursionError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::Owned;
use crate::sys::thread;

/// Adds a raw method to a type that pyo3 made.
pub fn add_method(class: &Bound<'_, PyAny>, definition: ffi::PyMethodDef) -> PyResult<()> {
    let definition = Box::leak(Box::new(definition));
    // SAFETY: the definition and its name live for ever; the class is a live type.
    unsafe {
        let name = CStr::from_ptr(definition.ml_name);
        let descriptor = ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition);
        let descriptor = Owned::steal_or_err(class.py(), descriptor)?;
        class.setattr(&*name.to_string_lossy(), descriptor.bind(class.py()))
    }
}

/// Gives a class method descriptors of its own for the methods in C that it inherits from `base`. A descriptor looks for its class
/// among all those an object's class is derived from, in their order, at each call: the first is found at once.
pub fn own_methods(class: &Bound<'_, PyType>, base: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    for entry in base.getattr("__dict__")?.call_method0("items")?.try_iter()? {
        let (name, inherited): (Bound<'_, PyString>, Bound<'_, PyAny>) = entry?.extract()?;
        if let Some(definition) = definition(&inherited)
            && class.getattr(&name)?.is(&inherited)
        {
            // SAFETY: attached; the class is a live type, and the definition lives as long as the base.
            let own = unsafe {
                Owned::steal_or_err(py, ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition))?
            };
            class.setattr(&name, own.bind(py))?;
        }
    }
    Ok(())
}

/// Whether two method descriptors are of one method, be it in different classes.
pub fn is_same_method(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
    definition(one).is_some_and(|method| definition(other) == Some(method))
}

/// The definition behind a method descriptor of a type in C, which lives as long as the type.
fn definition(descriptor: &Bound<'_, PyAny>) -> Option<*mut ffi::PyMethodDef> {
    // SAFETY: of the type with that layout, as is checked.
    unsafe {
        (ffi::Py_TYPE(descriptor.as_ptr()) == &raw mut ffi::PyMethodDescr_Type)
            .then(|| (*descriptor.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method)
    }
}

/// The C function behind a method descriptor of a type in C, if that takes no arguments.
pub fn method_without_arguments(descriptor: &Bound<'_, PyAny>) -> Option<ffi::PyCFunction> {
    let definition = definition(descriptor)?;
    // SAFETY: alive with its type; its flags say which of the kinds of function it is.
    unsafe {
        let method = &*definition;
        (method.ml_flags == ffi::METH_NOARGS).then_some(method.ml_meth.PyCFunction)
    }
}

/// The slot `am_send` (`Include/typeslots.h`), which pyo3 does not name.
pub const AM_SEND: c_int = 81;

/// What a C function pointer of a type returns; `FAILED` with an exception set means an error.
pub trait Returned: Copy {
    const FAILED: Self;
}

impl Returned for *mut ffi::PyObject {
    const FAILED: Self = ptr::null_mut();
}

impl Returned for c_int {
    const FAILED: Self = -1;
}

/// Tells pyo3 that the thread is attached, while `body` runs, which may then use and drop any of its types. For the few places
/// inside of [`enter_hot`] that need it.
///
/// # Safety
/// The thread is attached.
pub unsafe fn told<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    let mut body = Some(body);
    match Python::try_attach(|py| body.take().expect("called once")(py)) {
        Some(result) => result,
        // The interpreter is going down, and pyo3 attaches nobody any more. This thread is attached all the same, since Python
        // called us: a finaliser's report, or a repr in it, is as good as any.
        // SAFETY: attached, so that attaching again only counts.
        None => unsafe { Python::attach_unchecked(|py| body.take().expect("try_attach did not run it")(py)) },
    }
}

/// Runs the body of a C function: an error or a panic becomes a Python exception.
///
/// # Safety
/// The thread is attached. Tells pyo3 so, which makes every pyo3 type usable inside.
pub unsafe fn enter<R: Returned>(body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: promised.
    unsafe { told(|_| enter_hot(body)) }
}

/// As [`enter`], without telling pyo3: the body must not drop a `Py` or a `PyErr`.
///
/// # Safety
/// The thread is attached.
#[inline]
pub unsafe fn enter_hot<R: Returned>(body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: promised by the caller.
    let py = unsafe { Python::assume_attached() };
    crate::sync::quiet::check_over();
    match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => fail(error),
        Err(payload) => panicked(payload),
    }
}

/// Raises what says where Rust panicked.
#[cold]
fn panicked<R: Returned>(payload: Box<dyn Any + Send>) -> R {
    fail(super::panic::error(&*payload))
}

/// Raises the error.
#[cold]
fn fail<R: Returned>(error: PyErr) -> R {
    // SAFETY: attached, since Python called us. Raising may drop pyo3's references.
    unsafe { told(|py| error.restore(py)) };
    R::FAILED
}

/// RecursionError where little of the thread's stack is left. For whatever may come back to itself by what it calls, without a
/// function in Python in between to be counted: or with one, in a thread whose stack does not hold as many as Python counts.
#[inline]
pub fn check_stack() -> PyResult<()> {
    if thread::is_stack_short() { Err(stack_is_short()) } else { Ok(()) }
}

#[cold]
fn stack_is_short() -> PyErr {
    PyRecursionError::new_err("maximum recursion depth exceeded: the thread's stack is nearly full")
}

/// A new reference to None.
#[inline]
pub fn none(py: Python<'_>) -> *mut ffi::PyObject {
    py.None().into_ptr()
}

pub fn boolean(py: Python<'_>, value: bool) -> *mut ffi::PyObject {
    value.into_pyobject(py).map_or(ptr::null_mut(), |object| object.to_owned().into_any().into_ptr())
}

/// Checks a `nargs` count given to a fast-call method.
pub fn expect_args(name: &str, nargs: isize, min: isize, max: isize) -> PyResult<()> {
    if nargs < min || nargs > max {
        let wanted = if min == max { format!("{min}") } else { format!("{min} to {max}") };
        return Err(PyTypeError::new_err(format!(
            "{name}() takes {wanted} positional arguments but {nargs} were given"
        )));
    }
    Ok(())
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
        // SAFETY: the spec is complete and lives for ever; the module is alive.
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

/// A weak reference without a callback.
pub fn weak_reference(object: &Bound<'_, PyAny>) -> PyResult<Owned> {
    // SAFETY: attached and alive; a new reference or null with an exception set.
    unsafe { Owned::steal_or_err(object.py(), ffi::PyWeakref_NewRef(object.as_ptr(), ptr::null_mut())) }
}

/// What a weak reference refers to, while that lives. Runs no Python code.
pub fn referent(_py: Python<'_>, reference: &Owned) -> Option<Owned> {
    let mut object = ptr::null_mut();
    // SAFETY: attached; a live weak reference. GetRef gives a new reference or null.
    unsafe {
        ffi::compat::PyWeakref_GetRef(reference.as_ptr(), &mut object);
        (!object.is_null()).then(|| Owned::steal(object))
    }
}

/// Whether anybody made a weak reference to the object.
///
/// # Safety
/// Attached; the object is alive, and nobody makes one meanwhile.
#[inline]
pub(super) unsafe fn has_weak_references(object: *mut ffi::PyObject) -> bool {
    // SAFETY: promised; the list stands where the type says, if it has one.
    unsafe {
        let offset = (*ffi::Py_TYPE(object)).tp_weaklistoffset;
        offset != 0 && !(*object.byte_offset(offset).cast::<*mut ffi::PyObject>()).is_null()
    }
}

/// Whether a weak reference refers to `object`, which is alive. Counts nothing and takes no lock.
pub fn refers_to(reference: &Owned, object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live weak reference; the field is a word, emptied before the memory of what it names is used again. So whatever
    // other threads do meanwhile, it names an object that somebody holds only if it refers to that.
    unsafe {
        let field = &raw mut (*reference.as_ptr().cast::<ffi::PyWeakReference>()).wr_object;
        let field = std::sync::atomic::AtomicPtr::from_ptr(field);
        field.load(std::sync::atomic::Ordering::Relaxed) == object.as_ptr()
    }
}

/// Whether what a weak reference referred to is gone. Runs no Python code and drops nothing.
pub fn is_dead(reference: &Owned) -> bool {
    // SAFETY: as above. None stands for what is gone.
    unsafe {
        let field = &raw mut (*reference.as_ptr().cast::<ffi::PyWeakReference>()).wr_object;
        let field = std::sync::atomic::AtomicPtr::from_ptr(field);
        field.load(std::sync::atomic::Ordering::Relaxed) == ffi::Py_None()
    }
}

/// Takes a type's reference count out of the allocation path. Every instance holds a reference to its heap type;
/// with several threads that count is the one cache line they all fight for. On free-threaded 3.13 there is no
/// API for it, so the type is made immortal, as CPython itself does with its static types; 3.14 has a call.
///
/// # Safety
/// `object` is alive and not yet shared with another thread. It is never freed afterwards.
pub unsafe fn share_cheaply(object: *mut ffi::PyObject) {
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    // SAFETY: nobody else sees the object yet; the two stores are what CPython's own immortalisation does.
    unsafe {
        use std::sync::atomic::Ordering;
        (*object).ob_ref_local.store(u32::MAX, Ordering::Relaxed);
        (*object).ob_ref_shared.store(0, Ordering::Relaxed);
    }
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: a live object; the call returns 0 where it does not apply.
    unsafe {
        unsafe extern "C" {
            fn PyUnstable_Object_EnableDeferredRefcount(object: *mut ffi::PyObject) -> c_int;
        }
        PyUnstable_Object_EnableDeferredRefcount(object);
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}

/// Whether the caller holds the only reference, and on free-threaded builds no weak reference was made.
///
/// # Safety
/// `object` is alive; the caller holds a reference.
#[inline]
unsafe fn is_unique(object: *mut ffi::PyObject) -> bool {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: alive. Owned by this thread, counted once here and nowhere else: nobody else has it.
    unsafe {
        use std::sync::atomic::Ordering;
        (*object).ob_tid == thread_tag()
            && (*object).ob_ref_local.load(Ordering::Relaxed) == 1
            && (*object).ob_ref_shared.load(Ordering::Relaxed) == 0
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: alive; the GIL orders the count.
    unsafe {
        ffi::Py_REFCNT(object) == 1
    }
}

/// Whether the caller holds the only reference, and nobody can come to have one but through the collector.
///
/// # Safety
/// `object` is alive, and the caller holds a reference. Attached.
#[inline]
pub unsafe fn is_nobody_elses(object: *mut ffi::PyObject) -> bool {
    // SAFETY: promised. On free-threaded builds a weak reference has left a mark in the counts.
    unsafe { is_unique(object) && (cfg!(Py_GIL_DISABLED) || !has_weak_references(object)) }
}

/// What CPython stores in `ob_tid` of this thread's objects: the thread pointer, which stands at a fixed distance from
/// pthread_self() (0 on x86-64).
#[cfg(Py_GIL_DISABLED)]
#[inline]
fn thread_tag() -> usize {
    crate::sys::thread::current_id().wrapping_add(TAG_DISTANCE.load(std::sync::atomic::Ordering::Relaxed))
}

#[cfg(Py_GIL_DISABLED)]
static TAG_DISTANCE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Whether this thread runs in the main interpreter. Touches nothing static of ours.
pub fn is_main_interpreter(_py: Python<'_>) -> bool {
    // SAFETY: attached; both calls only look.
    unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() }
}

/// Measures the distance on an object just made; called once by the module's init.
pub fn init(py: Python<'_>) {
    #[cfg(Py_GIL_DISABLED)]
    {
        let object = pyo3::types::PyList::empty(py);
        // SAFETY: alive, and this thread's own.
        let tag = unsafe { (*object.as_ptr()).ob_tid };
        let distance = tag.wrapping_sub(crate::sys::thread::current_id());
        TAG_DISTANCE.store(distance, std::sync::atomic::Ordering::Relaxed);
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = py;
}

/// Whether the collector has found that nothing refers to the object, and is about to finalise and take it apart. It decides
/// that with every thread stopped, and takes it back so for those that a finaliser saves.
///
/// # Safety
/// Attached; the memory is still the object's, which is of a type that the collector knows.
#[inline]
pub unsafe fn is_garbage(object: *mut ffi::PyObject) -> bool {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: promised; other threads change other bits of the byte by atomic operations.
    unsafe {
        const UNREACHABLE: u8 = 4;
        let bits = std::sync::atomic::AtomicU8::from_ptr(&raw mut (*object).ob_gc_bits);
        bits.load(std::sync::atomic::Ordering::Relaxed) & UNREACHABLE != 0
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: promised; a tracked object has two words for the collector before it, the second of which marks what is being
    // collected. With the GIL held the mark is seen by the collection's own finalisers only.
    unsafe {
        const COLLECTING: usize = 2;
        *object.cast::<usize>().sub(1) & COLLECTING != 0
    }
}

/// Prepares an object just made for [`try_incref`] by other threads than its own.
///
/// # Safety
/// `object` is alive.
#[inline]
pub unsafe fn enable_try_incref(object: *mut ffi::PyObject) {
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    // SAFETY: promised. The lowest bit says that the object may be reached without a reference, as weakly referenced
    // ones are: its last reference is then given up by a compare-exchange.
    unsafe {
        use std::sync::atomic::Ordering;
        const FLAGS: isize = 3;
        let count = &(*object).ob_ref_shared;
        // Any flag serves. Two of them together mean a third thing, so none is added to another.
        let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |shared| {
            (shared & FLAGS == 0).then_some(shared | 1)
        });
    }
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: promised.
    unsafe {
        unsafe extern "C" {
            fn PyUnstable_EnableTryIncRef(object: *mut ffi::PyObject);
        }
        PyUnstable_EnableTryIncRef(object);
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}

/// Takes a reference to an object that may be about to go; false if it is. As for weak references, in CPython's own way.
///
/// # Safety
/// Attached; the memory is still the object's, which the caller sees to, and [`enable_try_incref`] was called when it
/// was made.
#[inline]
pub unsafe fn try_incref(object: *mut ffi::PyObject) -> bool {
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    // SAFETY: promised; the counts are atomic.
    unsafe {
        use std::sync::atomic::Ordering;
        const MERGED: isize = 3;
        let local = (*object).ob_ref_local.load(Ordering::Relaxed);
        if local == u32::MAX {
            return true; // Immortal.
        }
        // A finaliser that did not save the object leaves it to its thread with no references: that one is going.
        if local != 0 && (*object).ob_tid == thread_tag() {
            (*object).ob_ref_local.store(local + 1, Ordering::Relaxed);
            return true;
        }
        let mut shared = (*object).ob_ref_shared.load(Ordering::Relaxed);
        loop {
            if shared == 0 || shared == MERGED {
                return false;
            }
            // AcqRel: pairs with whoever gives up the last reference.
            let next = shared + 4;
            match (*object).ob_ref_shared.compare_exchange_weak(
                shared,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => shared = now,
            }
        }
    }
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: promised.
    unsafe {
        use std::sync::atomic::Ordering;
        unsafe extern "C" {
            fn PyUnstable_TryIncRef(object: *mut ffi::PyObject) -> c_int;
        }
        // A finaliser that did not save the object leaves it to its thread with no references, which the call takes for alive.
        let left = (*object).ob_ref_local.load(Ordering::Relaxed) == 0 && (*object).ob_tid == thread_tag();
        !left && PyUnstable_TryIncRef(object) != 0
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: promised; the GIL orders the count.
    unsafe {
        if ffi::Py_REFCNT(object) == 0 {
            return false;
        }
        ffi::Py_INCREF(object);
        true
    }
}
