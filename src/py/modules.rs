//! What a loaded extension module says of itself.

use pyo3::prelude::*;
use pyo3::{ffi, types::PyModule};

/// Whether a module's definition declares that it needs no GIL. None where that cannot be told: what is made in one phase says
/// it, if it does, by a call that leaves no trace to read, and a module written in Python has no definition.
#[pyfunction]
pub fn _needs_no_gil(module: &Bound<'_, PyAny>) -> Option<bool> {
    let module = module.cast::<PyModule>().ok()?;
    // SAFETY: a module, as checked. Definitions are static data of the extension, whose library is never unloaded, and their
    // slots end with an entry whose number is 0.
    unsafe {
        let definition = ffi::PyModule_GetDef(module.as_ptr()).as_ref()?;
        let mut slot = definition.m_slots.as_ref().map(std::ptr::from_ref)?;
        while (*slot).slot != 0 {
            if (*slot).slot == PY_MOD_GIL {
                // The value is a number in a pointer's place; 0 says that the GIL is used.
                return Some(!(*slot).value.is_null());
            }
            slot = slot.add(1);
        }
        Some(false)
    }
}

/// `Py_mod_gil`: in the stable ABI since 3.13.
const PY_MOD_GIL: std::ffi::c_int = 4;
