//! How native objects live and go: what the collector sees of one, what it takes apart, and the one deallocation of all types.
//!
//! A type says by [`Object`] what its instances refer to. The order in which one goes is that of CPython's own classes: no more
//! tracked; out of the lists in which others look; finalised, which may save it; its weak references cleared; what it refers to
//! released; freed. So no code that runs meanwhile can get a reference to an object whose fields are gone. Deallocations nest to
//! a small depth only, whatever the chain of objects and the stack of the thread; see [`nesting`](super::nesting).
//!
//! Python classes over a native type are given that type's deallocation too ([`Class::adopt`]). CPython's would release their
//! attributes before the weak references, if the list of these is the native type's or its base's.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::enter::enter;
use crate::spec::TypeSpec;
use crate::{Owned, counts, nesting, weak};

/// What a type's instances are behind their own fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Plain objects.
    Object,
    /// Instances of a Python class that have so many slots (`__slots__`), which come after the header. The functions of such a
    /// class must not be called: they look for the next base by comparing functions, and would find ours again.
    Slots(usize),
    /// Instances of a type in C, whose functions look after its fields and the instance's dict.
    C,
}

/// A native type's objects.
///
/// # Safety
/// What the constants say is true of the type that [`class`](Self::class) was initialised with, and `of` finds the state in every
/// instance of it that Python code can see.
pub unsafe trait Object: Sized + 'static {
    const BASE: Base = Base::Object;
    /// Whether the type has a finaliser.
    const FINALIZES: bool = false;

    /// The type. One that is derived from it natively names its base's.
    fn class() -> &'static Class<Self>;

    /// The state of an instance.
    ///
    /// # Safety
    /// `object` is an instance, and its memory stays as long as the result is used.
    #[inline]
    unsafe fn of<'a>(object: *mut ffi::PyObject) -> &'a Self {
        // SAFETY: promised; unless the type says otherwise, its struct begins with the object's header.
        unsafe { &*object.cast::<Self>() }
    }

    /// Shows every Python object that this one refers to. The collector has stopped all threads.
    fn visit(&self, see: &mut Visit);

    /// Takes out references that may close a cycle, for the caller to drop: for the collector, which found the object unreachable.
    /// What is left must be whole: finalisers of other garbage may still use it.
    ///
    /// # Safety
    /// Called by the collector, or when the object goes. No reference to the state is alive.
    unsafe fn take(object: *mut ffi::PyObject) -> impl Sized;

    /// Releases the rest, moved out or [in place](InPlace), when the object is freed: there is no other reference, and it is not read
    /// again.
    ///
    /// # Safety
    /// Called once, last of all.
    unsafe fn take_all(object: *mut ffi::PyObject) -> impl Sized;

    /// The last reference is gone: leaves the lists in which others look. Calls no Python.
    fn leave(&self, _object: *mut ffi::PyObject) {}

    /// Whether the finaliser has anything to do. Calls no Python.
    fn is_unfinished(&self) -> bool {
        true
    }

    /// The object has no reference left. Errors go to `sys.unraisablehook`.
    ///
    /// # Safety
    /// Attached; called by the object's finaliser, when this says that it is unfinished.
    unsafe fn finalize(_object: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(())
    }

    /// The finaliser made a new reference to it, when it was about to be freed.
    fn saved(&self, _object: *mut ffi::PyObject) {}

    /// Whether a [base in C](Base::C) has to free the object by its own deallocation. Otherwise its fields are cleared, and the object
    /// is freed here.
    ///
    /// # Safety
    /// The state is gone already; the base's fields are whole.
    #[inline]
    unsafe fn base_must_free(_object: *mut ffi::PyObject) -> bool {
        true
    }
}

/// For [`Object::take_all`]: state that is dropped where it stands, which saves moving it out.
pub struct InPlace<T>(*mut T);

impl<T> InPlace<T> {
    /// # Safety
    /// `state` belongs to an object that is being freed and whose memory outlives the result, and it is not read again.
    pub unsafe fn new(state: *mut T) -> Self {
        Self(state)
    }
}

impl<T> Drop for InPlace<T> {
    fn drop(&mut self) {
        // SAFETY: promised to `new`; once, since this is.
        unsafe { ptr::drop_in_place(self.0) }
    }
}

/// A type: made once by the module's init, never freed.
pub struct Class<T> {
    native: AtomicPtr<ffi::PyTypeObject>,
    /// The Python class that the package derives from it.
    derived: AtomicPtr<ffi::PyTypeObject>,
    /// Where the state begins, for types whose base is in C.
    offset: AtomicUsize,
    of: PhantomData<fn() -> T>,
}

impl<T: Object> Default for Class<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Object> Class<T> {
    pub const fn new() -> Self {
        Self {
            native: AtomicPtr::new(ptr::null_mut()),
            derived: AtomicPtr::new(ptr::null_mut()),
            offset: AtomicUsize::new(0),
            of: PhantomData,
        }
    }

    /// Makes the type: `spec`, and the functions for its objects' lives.
    pub fn init(
        &self,
        module: &Bound<'_, PyModule>,
        mut spec: TypeSpec,
        base: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        python::init(module.py())?;
        spec.flags |= ffi::Py_TPFLAGS_HAVE_GC;
        spec.slots.extend([
            (ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
            (ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
            (ffi::Py_tp_clear, clear::<T> as *mut c_void),
        ]);
        if T::FINALIZES {
            spec.slots.push((ffi::Py_tp_finalize, finalize::<T> as *mut c_void));
        }
        let made = spec.build(module, base)?;
        if T::BASE == Base::C {
            // SAFETY: the type just made; the call only adds an offset to the address.
            let offset = unsafe {
                let anywhere: *mut ffi::PyObject = made.cast();
                ffi::PyObject_GetTypeData(anywhere, made) as usize - anywhere as usize
            };
            self.offset.store(offset, Ordering::Relaxed);
        }
        self.native.store(made, Ordering::Release);
        Ok(())
    }

    /// As [`init`](Self::init), and adds the type to the module.
    pub fn init_and_add(
        &self,
        module: &Bound<'_, PyModule>,
        spec: TypeSpec,
        base: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let name = spec.name.to_str().ok().and_then(|name| name.rsplit('.').next());
        self.init(module, spec, base)?;
        // SAFETY: the type just made.
        let made = unsafe { Bound::<PyAny>::from_borrowed_ptr(module.py(), self.native().cast()) };
        module.add(name.expect("a dotted name of ours"), made)
    }

    /// The type itself.
    #[inline]
    pub fn native(&self) -> *mut ffi::PyTypeObject {
        // Relaxed: stored by the module's init, before any code could use what the type is for.
        let made = self.native.load(Ordering::Relaxed);
        debug_assert!(!made.is_null());
        made
    }

    /// Where the state begins in an instance, for types whose base is in C.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset.load(Ordering::Relaxed)
    }

    /// Names the class that the package derives from the type; the first call counts.
    pub fn set_derived(&self, class: &Bound<'_, PyType>) {
        // SAFETY: a live class over the type. If it becomes the one, it is never freed.
        unsafe {
            self.adopt(class.as_type_ptr());
            let former = self.derived.compare_exchange(
                ptr::null_mut(),
                class.as_type_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if former.is_ok() {
                let object = class.clone().into_ptr();
                counts::share_cheaply(object);
            }
        }
    }

    /// The class that the package derives from the type; null before it was named.
    #[inline]
    pub fn derived(&self) -> *mut ffi::PyTypeObject {
        // Acquire: pairs with the store in `set_derived`.
        self.derived.load(Ordering::Acquire)
    }

    /// Whether an object is of this very type, and not of one derived from it.
    ///
    /// # Safety
    /// `object` is alive.
    #[inline]
    pub unsafe fn is_exact(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: promised; only its type pointer is read.
        unsafe { ffi::Py_TYPE(object) == self.native() }
    }

    /// Whether an object is of this type or of one derived from it.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline]
    pub unsafe fn is_instance(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: promised.
        unsafe { ffi::PyObject_TypeCheck(object, self.native()) != 0 }
    }

    /// A new object of the very type, zeroed and tracked: to be filled before other Python code runs.
    #[inline]
    pub fn allocate(&self, py: Python<'_>) -> PyResult<Owned> {
        // SAFETY: attached; a live type.
        unsafe { Owned::steal_or_err(py, ffi::PyType_GenericAlloc(self.native(), 0)) }
    }

    /// Has a Python class over the type deallocate its instances as the type does. To be called before each instance is made by a
    /// class that may be new.
    ///
    /// # Safety
    /// Attached; `class` is a live class over the type.
    #[inline]
    pub unsafe fn adopt(&self, class: *mut ffi::PyTypeObject) {
        let native = self.native();
        // SAFETY: promised.
        unsafe {
            if class != native && python::dealloc(class) != python::dealloc(native) {
                self.adopt_new(class);
            }
        }
    }

    #[cold]
    unsafe fn adopt_new(&self, class: *mut ffi::PyTypeObject) {
        // SAFETY: promised. The bases of a live class are alive. Every thread that stores the function stores the same one, and no
        // instance exists that is not yet made.
        unsafe {
            let mut base = class;
            while !base.is_null() && python::deallocates(base) {
                base = (*base).tp_base;
            }
            // Not so if a C type of another author is in between: then its function is next, which calls ours.
            if !base.is_null() && base != class && python::dealloc(base) == python::dealloc(self.native()) {
                let place = (&raw mut (*class).tp_dealloc).cast::<*mut c_void>();
                AtomicPtr::from_ptr(place).store(python::dealloc(base) as *mut c_void, Ordering::Release);
            }
        }
    }
}

/// The functions that CPython gives to classes made in Python.
mod python {
    use super::*;

    static DEALLOC: AtomicUsize = AtomicUsize::new(0);
    static CLEAR: AtomicUsize = AtomicUsize::new(0);

    /// Reads them off a class.
    pub fn init(py: Python<'_>) -> PyResult<()> {
        if DEALLOC.load(Ordering::Relaxed) == 0 {
            let class = py.get_type::<PyType>().call1(("Any", PyTuple::empty(py), PyDict::new(py)))?;
            let class = class.as_ptr().cast::<ffi::PyTypeObject>();
            // SAFETY: a live type.
            unsafe {
                CLEAR.store((*class).tp_clear.map_or(0, |clear| clear as usize), Ordering::Relaxed);
                DEALLOC.store(dealloc(class), Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// A type's deallocation, to be compared: types have the same one if one has it from the other.
    ///
    /// # Safety
    /// A live type.
    #[inline]
    pub unsafe fn dealloc(class: *mut ffi::PyTypeObject) -> usize {
        // SAFETY: promised.
        unsafe { (*class).tp_dealloc }.map_or(0, |dealloc| dealloc as usize)
    }

    /// Whether a type has the deallocation of Python's classes.
    ///
    /// # Safety
    /// A live type.
    pub unsafe fn deallocates(class: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: promised.
        unsafe { dealloc(class) == DEALLOC.load(Ordering::Relaxed) }
    }

    /// Whether a type has the function of Python's classes that clears an instance.
    ///
    /// # Safety
    /// A live type.
    pub unsafe fn clears(class: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: promised.
        let function = unsafe { (*class).tp_clear };
        function.is_some_and(|clear| clear as usize == CLEAR.load(Ordering::Relaxed))
    }
}

/// What the collector is shown, until it has seen enough.
pub struct Visit {
    visit: ffi::visitproc,
    argument: *mut c_void,
    result: c_int,
}

impl Visit {
    /// Shows a reference, or null.
    ///
    /// # Safety
    /// The object that is visited holds the reference.
    #[inline]
    pub unsafe fn pointer(&mut self, object: *mut ffi::PyObject) {
        if self.result == 0 && !object.is_null() {
            // SAFETY: made in `traverse` from the collector's own arguments; the object is alive (the caller's promise).
            self.result = unsafe { (self.visit)(object, self.argument) };
        }
    }

    #[inline]
    pub fn object(&mut self, object: &Owned) {
        // SAFETY: a reference.
        unsafe { self.pointer(object.as_ptr()) };
    }

    /// For callers that show their references to a closure.
    #[inline]
    pub fn see(&mut self) -> impl FnMut(&Owned) -> Result<(), c_int> {
        |object| {
            self.object(object);
            if self.result == 0 { Ok(()) } else { Err(self.result) }
        }
    }
}

/// The slots of a Python base class.
unsafe fn slots<'a>(object: *mut ffi::PyObject, count: usize) -> &'a mut [*mut ffi::PyObject] {
    // SAFETY: they come after the header, as `Base::Slots` states; the caller may use them.
    unsafe { std::slice::from_raw_parts_mut(object.add(1).cast(), count) }
}

unsafe extern "C" fn traverse<T: Object>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let mut see = Visit { visit, argument, result: 0 };
    // SAFETY: called by the collector with the world stopped; only reads.
    unsafe {
        match T::BASE {
            // Shows the type too, and the instance's dict.
            Base::C => {
                if let Some(inherited) = (*(*T::class().native()).tp_base).tp_traverse {
                    see.result = inherited(object, visit, argument);
                }
            }
            // The functions of Python classes leave the type to ours, which is in the heap too.
            Base::Object => see.pointer(ffi::Py_TYPE(object).cast()),
            Base::Slots(count) => {
                see.pointer(ffi::Py_TYPE(object).cast());
                slots(object, count).iter().for_each(|&slot| see.pointer(slot));
            }
        }
        T::of(object).visit(&mut see);
    }
    see.result
}

unsafe extern "C" fn clear<T: Object>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on garbage, or by `go` through a derived class's function.
    unsafe {
        clear_base::<T>(object);
        drop(T::take(object));
    }
    0
}

/// Clears the fields of the base.
#[inline]
unsafe fn clear_base<T: Object>(object: *mut ffi::PyObject) {
    // SAFETY: the caller takes the object apart.
    unsafe {
        match T::BASE {
            Base::Object => {}
            Base::Slots(count) => {
                for slot in slots(object, count) {
                    ffi::Py_XDECREF(std::mem::replace(slot, ptr::null_mut()));
                }
            }
            Base::C => {
                if let Some(inherited) = (*(*T::class().native()).tp_base).tp_clear {
                    inherited(object);
                }
            }
        }
    }
}

unsafe extern "C" fn finalize<T: Object>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python, attached, with an object without references; an exception that is set is kept for the
    // caller.
    unsafe {
        if !T::of(object).is_unfinished() {
            return;
        }
        let raised = ffi::PyErr_GetRaisedException();
        enter(|py| {
            let object = Bound::from_borrowed_ptr(py, object);
            if let Err(error) = T::finalize(&object) {
                error.write_unraisable(py, Some(&object));
            }
            Ok(0)
        });
        ffi::PyErr_SetRaisedException(raised);
    }
}

unsafe extern "C" fn dealloc<T: Object>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with the last reference, or by the function of a class over the type, which does nothing after it.
    // A collection that begins from here on must not find the object.
    unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
    rawthread::quiet::check_over();
    // SAFETY: `go` is the rest of this function, for this object.
    unsafe { nesting::bounded(object, go::<T>) };
}

/// The object goes.
#[inline]
unsafe fn go<T: Object>(object: *mut ffi::PyObject) {
    // SAFETY: called by `dealloc` with an untracked object without references.
    unsafe {
        T::of(object).leave(object);
        let native = T::class().native();
        let kind = ffi::Py_TYPE(object);
        if (*kind).tp_finalize.is_some() && (kind != native || T::of(object).is_unfinished()) {
            // While it is called, the object is alive for all threads.
            ffi::PyObject_GC_Track(object.cast());
            if ffi::PyObject_CallFinalizerFromDealloc(object) != 0 {
                T::of(object).saved(object);
                return;
            }
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        // The finaliser may have changed it.
        let kind = ffi::Py_TYPE(object);
        if weak::has_weak_references(object) {
            ffi::PyObject_ClearWeakRefs(object);
        }
        // A class that was adopted: its slots, the instance's dict, and then `clear` above.
        if kind != native
            && python::dealloc(kind) == python::dealloc(native)
            && python::clears(kind)
            && let Some(clear_all) = (*kind).tp_clear
        {
            clear_all(object);
        }
        drop(T::take_all(object));
        if T::BASE == Base::C && T::base_must_free(object) {
            let base = (*native).tp_base;
            let inherited = (*base).tp_dealloc.expect("types in C have one");
            return inherited(object);
        }
        clear_base::<T>(object);
        let free = (*kind).tp_free.expect("every type has one");
        free(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
