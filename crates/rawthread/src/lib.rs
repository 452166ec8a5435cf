//! What a thread knows of itself: its identity, how much of its stack is left, whether it may call Python now. Without Python, so that
//! the layers below it share this with those above.

mod identity;
pub mod quiet;
mod stack;

pub use identity::current_id;
pub use stack::is_stack_short;
