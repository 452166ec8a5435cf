//! Makes pyo3's view of the interpreter (`Py_GIL_DISABLED`, `Py_3_14`) known to this crate as well.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
