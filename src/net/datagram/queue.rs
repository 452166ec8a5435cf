//! Datagrams that wait to be sent.

use std::collections::VecDeque;

use crate::py::{Owned, bytes};
use crate::sys::datagram::{MAX_SEND, Name};

/// What asyncio adds to each queued datagram's size, so that empty ones count as well.
const HEADER: usize = 8;

/// Where a datagram goes.
pub enum To {
    /// To the peer that the socket is connected to.
    Peer,
    Name(Name),
    /// To an address that only Python's socket can make sense of.
    Python(Owned),
}

/// A datagram, kept as the exact `bytes` object it is.
pub struct Outgoing {
    pub data: Owned,
    pub to: To,
}

impl Outgoing {
    fn bytes(&self) -> &[u8] {
        // SAFETY: only exact `bytes` are put into a queue; they are immutable and alive with the reference.
        unsafe { bytes::contents(&self.data) }
    }

    fn name(&self) -> Option<Option<&Name>> {
        match &self.to {
            To::Peer => Some(None),
            To::Name(name) => Some(Some(name)),
            To::Python(_) => None,
        }
    }
}

#[derive(Default)]
pub struct Queue {
    waiting: VecDeque<Outgoing>,
    size: usize,
}

impl Queue {
    pub fn push(&mut self, datagram: Outgoing) {
        self.size += datagram.bytes().len() + HEADER;
        self.waiting.push_back(datagram);
    }

    pub fn pop(&mut self) -> Option<Outgoing> {
        let first = self.waiting.pop_front()?;
        self.size -= first.bytes().len() + HEADER;
        Some(first)
    }

    pub fn unpop(&mut self, datagram: Outgoing) {
        self.size += datagram.bytes().len() + HEADER;
        self.waiting.push_front(datagram);
    }

    /// As asyncio counts: the bytes, and some for each datagram.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives `send` the first datagrams, as many as one call takes and as the kernel can address; it may be none.
    pub fn with_first<R>(&self, send: impl FnOnce(&[(&[u8], Option<&Name>)]) -> R) -> R {
        let mut first = [(&[][..], None); MAX_SEND];
        let mut count = 0;
        for (place, datagram) in first.iter_mut().zip(&self.waiting) {
            let Some(name) = datagram.name() else { break };
            *place = (datagram.bytes(), name);
            count += 1;
        }
        send(&first[..count])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Owned> {
        self.waiting.iter().flat_map(|datagram| {
            let address = match &datagram.to {
                To::Python(address) => Some(address),
                _ => None,
            };
            std::iter::once(&datagram.data).chain(address)
        })
    }

    /// Empties the queue and returns what was left.
    pub fn take(&mut self) -> VecDeque<Outgoing> {
        self.size = 0;
        std::mem::take(&mut self.waiting)
    }
}
