//! The live loops of the process: a lock-free map that every thread may read at any time.
//!
//! An entry holds a weak reference, a Python object, and the map frees entries late, by whichever thread uses it. So an entry
//! that is freed only moves its reference into a list, which the next caller empties. Every thread that uses the map is attached.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyWeakrefReference};

use crate::event_loop::EventLoop;
use crate::event_loop::shared::Shared;
use crate::py::{Attached, Owned};

static LOOPS: LazyLock<papaya::HashMap<u64, Entry>> = LazyLock::new(papaya::HashMap::new);
static GRAVEYARD: Attached<Vec<Owned>> = Attached::new(Vec::new());

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
        // SAFETY: entries are freed by threads that use the map, and all that do are attached.
        let py = unsafe { Python::assume_attached() };
        // Moved, not released, in the middle of the map's own work.
        GRAVEYARD.lock(py).extend(self.reference.take());
    }
}

/// Releases the references of loops that are gone. Attached.
fn bury(py: Python<'_>) {
    let dead = std::mem::take(&mut *GRAVEYARD.lock(py));
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
