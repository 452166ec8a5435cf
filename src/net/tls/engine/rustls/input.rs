//! Ciphertext that waits to be complete.
//!
//! rustls decrypts in place, and keeps the parts of a handshake message there until the last one is in. So bytes that
//! it still needs are kept here, and none while records come in whole.

use std::cell::Cell;

use crate::proto::tls::Wire;

/// A record's header, in bytes; the length of what follows is in the last two.
const HEADER: usize = 5;

#[derive(Default)]
pub struct Input {
    held: Vec<u8>,
    /// How many bytes at the end of the ciphertext belong to a record that is not complete.
    partial: usize,
}

/// The most memory that a thread keeps for ciphertext between calls, in bytes.
const KEPT: usize = 512 * 1024;

thread_local! {
    /// Memory for ciphertext, lent to one connection after the other.
    static MEMORY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Input {
    /// What is held, for a call that takes in little.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    pub fn put_held(&mut self, ciphertext: Vec<u8>) {
        if !ciphertext.is_empty() {
            self.held = ciphertext;
        }
    }

    /// What is held, in memory for `more` bytes. Copies no more than that, so that a record in many small pieces costs no
    /// more than one in large ones.
    pub fn lend(&mut self, more: usize) -> Vec<u8> {
        if self.held.len() > more {
            return self.take_held();
        }
        let mut ciphertext = MEMORY.take();
        ciphertext.extend_from_slice(&self.held);
        self.held = Vec::new();
        ciphertext
    }

    /// Keeps what is left of what was lent.
    pub fn give_back(&mut self, mut ciphertext: Vec<u8>) {
        // Lent memory, or grown beyond what is worth keeping with a connection.
        if ciphertext.capacity() > 2 * ciphertext.len() {
            self.held = ciphertext.as_slice().to_vec();
            ciphertext.clear();
            if ciphertext.capacity() <= KEPT {
                MEMORY.set(ciphertext);
            }
        } else {
            self.held = ciphertext;
        }
    }

    /// Takes whole records from the wire, as many as surely fit into `room` when decrypted but at least one; of the last one
    /// also a part. False if there was nothing.
    pub fn take(&mut self, ciphertext: &mut Vec<u8>, wire: &mut Wire<'_>, mut room: usize) -> bool {
        let mut taken = 0;
        while taken < wire.input.len() {
            let coming = &wire.input[taken..];
            let begun = &ciphertext[ciphertext.len() - self.partial..];
            let at = |index: usize| begun.get(index).or_else(|| coming.get(index - begun.len()));
            let size = match (at(3), at(4)) {
                (Some(&high), Some(&low)) => HEADER + usize::from(u16::from_be_bytes([high, low])),
                _ => usize::MAX,
            };
            let missing = size - self.partial;
            if missing > coming.len() {
                self.partial += coming.len();
                taken = wire.input.len();
                break;
            }
            if taken > 0 && size > room {
                break;
            }
            self.partial = 0;
            taken += missing;
            room = room.saturating_sub(size);
        }
        ciphertext.extend_from_slice(wire.take(taken));
        taken > 0
    }
}
