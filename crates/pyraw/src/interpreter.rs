//! The interpreter and the thread that this one runs in.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rawthread::current_id;

/// Whether this thread runs in the main interpreter. Touches nothing static of ours.
pub fn is_main_interpreter(_py: Python<'_>) -> bool {
    // SAFETY: attached; both calls only look.
    unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() }
}

/// Whether the calling thread is the one that Python calls the main thread, which handles signals. In a program that embeds Python
/// it need not be the process's.
pub fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static MAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let main: usize = MAIN.import(py, "_thread", "_get_main_thread_ident")?.call0()?.extract()?;
    Ok(main == current_id())
}
