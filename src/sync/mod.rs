//! What the layers above use from `std::sync`, replaced by loom's under the `loom` feature so that the
//! cross-thread protocols can be model-checked. Nothing here is specific to event loops.

pub mod mailbox;
pub mod ownership;

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicPtr, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicPtr, Ordering};
