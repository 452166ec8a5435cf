//! tokioloop: an asyncio event loop for free-threaded Python.
pub mod driver;
pub mod inbox;
pub mod metrics;
pub mod proto;
pub mod runtime;
pub mod sync;
pub mod sys;
pub mod timer;
