//! The contract of a TLS engine: ciphertext and plaintext in and out, no socket, no clock.
//!
//! An engine keeps only the connection's cryptographic state: its input and output
//! are in the [`Wire`] that is lent to it for the time of a call. So an idle connection has no buffer.

/// The buffers lent to an engine for a call.
pub struct Wire<'a> {
    /// Received ciphertext; the engine consumes from its front.
    pub input: &'a [u8],
    /// Ciphertext to be sent; the engine appends.
    pub output: Vec<u8>,
}

impl Wire<'_> {
    /// Takes up to `len` bytes from the front of the input.
    pub fn take(&mut self, len: usize) -> &[u8] {
        let (taken, rest) = self.input.split_at(len.min(self.input.len()));
        self.input = rest;
        taken
    }
}

/// The progress of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    Done,
    /// It needs more input.
    Pending,
}

/// Why a read returned no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The memory is full; there may be more.
    Full,
    /// It needs more input.
    Drained,
    /// The peer sent close_notify: no more follows.
    Closed,
}

/// One side of a TLS connection.
pub trait Engine {
    type Error;

    fn handshake(&mut self, wire: &mut Wire<'_>) -> Result<Handshake, Self::Error>;

    /// Decrypts into `plaintext`: how much, and why not more. An error comes after the bytes decrypted before it.
    fn read(&mut self, wire: &mut Wire<'_>, plaintext: &mut [u8]) -> Result<(usize, Stop), Self::Error>;

    /// Encrypts: how much was taken. Less than all of it means that the engine needs input first.
    fn write(&mut self, wire: &mut Wire<'_>, plaintext: &[u8]) -> Result<usize, Self::Error>;

    /// Sends close_notify: no more follows.
    fn close(&mut self, wire: &mut Wire<'_>) -> Result<(), Self::Error>;
}
