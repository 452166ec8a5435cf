//! The contract of a TLS engine: ciphertext and plaintext in and out, no socket, no clock.
//!
//! An engine keeps the connection's cryptographic state and nothing else: what it reads and what it has to send
//! stand in the [`Wire`] that is lent to it for the time of a call. So no buffer belongs to an idle connection.

/// What is lent to an engine for a call.
pub struct Wire<'a> {
    /// Ciphertext that came in; the engine takes from its front what it uses.
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

/// How far a handshake came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    Done,
    /// It needs more input.
    Pending,
}

/// Why a read gave no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The memory is full; there may be more.
    Full,
    /// It needs more input.
    Drained,
    /// The peer said that it sends no more (close_notify).
    Closed,
}

/// One side of a TLS connection.
pub trait Engine {
    type Error;

    fn handshake(&mut self, wire: &mut Wire<'_>) -> Result<Handshake, Self::Error>;

    /// Decrypts into `plaintext`: how much, and why not more. An error comes after what was decrypted before it.
    fn read(&mut self, wire: &mut Wire<'_>, plaintext: &mut [u8]) -> Result<(usize, Stop), Self::Error>;

    /// Encrypts: how much was taken. Less than all of it means that the engine needs input first.
    fn write(&mut self, wire: &mut Wire<'_>, plaintext: &[u8]) -> Result<usize, Self::Error>;

    /// Says that nothing more will be sent (close_notify).
    fn close(&mut self, wire: &mut Wire<'_>) -> Result<(), Self::Error>;
}
