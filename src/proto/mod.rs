//! State machines without sockets, without a clock and without Python: of transports, bytes in, decisions out; of futures and tasks.

pub mod flow;
pub mod task;
pub mod tls;
pub mod write_queue;
