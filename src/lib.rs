//! tokioloop: an asyncio event loop for free-threaded Python.
//!
//! The layers, from the bottom; each uses only those before it:
//!
//! | layer | modules                                   | what it is                                             |
//! |-------|-------------------------------------------|--------------------------------------------------------|
//! | L0    | [`sync`], [`sys`], [`metrics`]            | atomics and queues, system calls, counters             |
//! | L1    | [`driver`], [`timer`], [`inbox`], [`runtime`] | I/O, deadlines, messages from other threads, Tokio |
//! | L2    | [`proto`]                                 | write queue and flow control, without sockets          |
//! | L3    | `py`                                      | CPython's C API                                        |
//! | L4    | `event_loop`                              | the loop itself                                        |
//! | L5    | `net`                                     | transports, listeners, descriptors, names, signals     |
//! | L6    | `pool`                                    | worker threads with a loop each, work across loops     |
//! | L6    | `executor`                                | threads for blocking calls                             |
//! | L6    | `streams`                                 | stream readers, writers and their protocol             |
//! | L7    | `observe`                                 | tracing                                                |
//!
//! L0 to L2 know nothing of Python: `cargo test --no-default-features` builds and tests them alone.

pub mod driver;
pub mod inbox;
pub mod metrics;
pub mod proto;
pub mod runtime;
pub mod sync;
pub mod sys;
pub mod timer;

#[cfg(feature = "python")]
mod event_loop;
#[cfg(feature = "python")]
mod executor;
#[cfg(feature = "python")]
mod module;
#[cfg(feature = "python")]
mod net;
#[cfg(feature = "python")]
mod observe;
#[cfg(feature = "python")]
mod pool;
#[cfg(feature = "python")]
mod py;
#[cfg(feature = "python")]
mod streams;
