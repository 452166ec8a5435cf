//! Protocol machinery without sockets and without a clock: bytes in, decisions out.

pub mod flow;
pub mod tls;
pub mod write_queue;
