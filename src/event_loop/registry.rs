//! The live loops of the process: a lock-free map that every thread may read at any time.
//!
//! An entry holds a weak reference, a Python object, and the map frees entries late and on any thread. So an entry
//! that is freed only drops its reference into a queue, and the next caller that is attached buries it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyWeakrefReference};

use super::EventLoop;
use super::shared::Shared;
use crate::py::Owned;

static LOOPS: LazyLock<papaya::HashMap<u64, Entry>> = LazyLock::new(papaya::HashMap::new);
static GRAVEYARD: Mutex<Vec<Owned>> = Mutex::new(Vec::new());

struct Entry {
    /// 0 once the loop is closed.
    bound_thread: Arc<AtomicUsize>,
    reference: Option<Owned>,
}

// SAFETY: the reference is only used attached, where increments are thread-safe, and is dropped by `bury`.
unsafe impl Sync for Entry {}

impl Entry {
    /// The loop, if it lives.
    fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, EventLoop>> {
        let reference = self.reference.as_ref()?;
        let mut object = std::ptr::null_mut();
        // SAFETY: a live weak reference to a loop; GetRef gives a new reference or null.
        unsafe {
            ffi::compat::PyWeakref_GetRef(reference.as_ptr(), &mut object);
            Some(Bound::from_owned_ptr_or_opt(py, object)?.cast_into_unchecked())
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Moved, not released: this thread may be one that never attaches.
        GRAVEYARD.lock().extend(self.reference.take());
    }
}

/// Releases the references of loops that are gone. Attached.
fn bury(_py: Python<'_>) {
    let dead = std::mem::take(&mut *GRAVEYARD.lock());
    drop(dead);
}

/// Adds a loop that was just made.
pub fn add(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    bury(event_loop.py());
    let shared = &event_loop.get().shared;
    let reference = PyWeakrefReference::new(event_loop)?;
    let id = shared.id;
    LOOPS
        .pin()
        .insert(id, Entry { bound_thread: shared.bound_thread.clone(), reference: Some(reference.into()) });
    Ok(())
}

/// Removes a loop that is closed or gone.
pub fn remove(shared: &Shared) {
    LOOPS.pin().remove(&shared.id);
}

/// All live loops, bound to a thread or not.
pub fn all(py: Python<'_>) -> Vec<Bound<'_, EventLoop>> {
    LOOPS.pin().values().filter_map(|entry| entry.event_loop(py)).collect()
}

/// Takes all loops out, in a forked child: they are the parent's.
pub fn take_all(py: Python<'_>) -> Vec<Bound<'_, EventLoop>> {
    let found = all(py);
    LOOPS.pin().clear();
    found
}

/// This process's live loops by the ident of the thread they run in or are bound to: a snapshot, from any thread.
#[pyfunction]
pub fn loops(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let answer = PyDict::new(py);
    let live: Vec<(usize, Bound<'_, EventLoop>)> = LOOPS
        .pin()
        .values()
        .filter_map(|entry| {
            let thread = entry.bound_thread.load(Ordering::Relaxed);
            let event_loop = entry.event_loop(py)?;
            (thread != 0).then_some((thread, event_loop))
        })
        .collect();
    for (thread, event_loop) in live {
        answer.set_item(thread, event_loop)?;
    }
    Ok(answer)
}
