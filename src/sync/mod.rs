//! What the layers above use from `std::sync`, replaced by loom's under the `loom` feature so that the
//! cross-thread protocols can be model-checked. Nothing here is specific to event loops.

pub mod biased;
pub mod idle;
pub mod mailbox;
pub mod ownership;

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};
#[cfg(feature = "loom")]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "loom"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};
