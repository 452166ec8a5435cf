//! What travels through a loop's inbox.

use crate::event_loop::core::PendingKey;
use crate::py::Owned;
use crate::sys::dns::{AddrInfo, ResolveError};

/// A message to a loop. Posted by Python threads (which are attached) or by the runtime's threads (which never
/// are); only the former may post Python objects.
pub enum Post {
    /// A Handle to run.
    Call(Owned),
    /// `loop.stop()` from another thread.
    Stop,
    /// Work done outside; its future waits under the key.
    Finished(PendingKey, Outcome),
}

/// The result of work that the runtime did for a loop. Plain Rust data: the loop makes the Python objects.
pub enum Outcome {
    Resolved(Result<Vec<AddrInfo>, ResolveError>),
    Named(Result<(std::ffi::CString, std::ffi::CString), ResolveError>),
}
