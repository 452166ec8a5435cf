//! Detaching a thread from the interpreter for the time of a call that may wait.

use pyo3::ffi;
use rawthread::quiet;

/// While it lives the thread is detached; it is attached again when this is dropped.
#[must_use]
pub struct Away(*mut ffi::PyThreadState);

impl Away {
    /// # Safety
    /// The thread is attached, and does nothing before the drop that needs it to be.
    pub unsafe fn begin() -> Self {
        quiet::check_no_lock();
        // SAFETY: promised.
        Self(unsafe { ffi::PyEval_SaveThread() })
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // SAFETY: the state that this thread had.
        unsafe { ffi::PyEval_RestoreThread(self.0) };
    }
}

/// Runs `call` with the thread detached, if it is attached.
pub fn detach(call: &mut dyn FnMut()) {
    // SAFETY: may be asked by any thread.
    if unsafe { ffi::PyThreadState_GetUnchecked() }.is_null() {
        return call();
    }
    // SAFETY: attached; `call` has only what is `Send`.
    let _away = unsafe { Away::begin() };
    call();
}
