//! The layer between the loop's driver and Python: transports, listeners, watched descriptors, name resolution.
//!
//! Each of them registers its descriptors with an [`Endpoint`](crate::event_loop::endpoint::Endpoint) that says where
//! completions go. Threads: all of it runs on the loop's thread.

pub mod address;
pub mod balance;
pub mod child;
mod connection;
pub mod datagram;
pub mod dns;
pub mod listener;
pub mod native;
pub mod sock;
pub mod stream;
pub mod tls;
mod transport;
pub mod watch;
