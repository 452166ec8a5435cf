//! Bytes that the kernel did not take yet, as the chunks they came in.

use std::collections::VecDeque;
use std::io::IoSlice;

/// The most pieces given to one vectored send (Linux takes 1024; more than this gains nothing).
pub const MAX_SLICES: usize = 64;

/// A queue of owned chunks. It never copies; its user chooses the type of chunks (a Rust vector, a Python bytes object).
pub struct WriteQueue<B> {
    chunks: VecDeque<B>,
    /// Bytes of the first chunk that are sent already.
    offset: usize,
    len: usize,
}

impl<B> Default for WriteQueue<B> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), offset: 0, len: 0 }
    }
}

impl<B: AsRef<[u8]>> WriteQueue<B> {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues a chunk of which the first `sent` bytes are gone already.
    pub fn push(&mut self, chunk: B, sent: usize) {
        let len = chunk.as_ref().len();
        debug_assert!(sent <= len && (sent == 0 || self.chunks.is_empty()));
        if sent == len {
            return;
        }
        if self.chunks.is_empty() {
            self.offset = sent;
        }
        self.len += len - sent;
        self.chunks.push_back(chunk);
    }

    /// Fills `slices` with the first pieces and returns how many there are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut skip = self.offset;
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&chunk.as_ref()[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// `sent` bytes are gone: moves the finished chunks to `done`, for the caller to drop when it suits it.
    pub fn advance(&mut self, sent: usize, done: &mut Vec<B>) {
        debug_assert!(sent <= self.len);
        self.len -= sent;
        self.offset += sent;
        while let Some(first) = self.chunks.front() {
            let len = first.as_ref().len();
            if self.offset < len {
                break;
            }
            self.offset -= len;
            done.extend(self.chunks.pop_front());
        }
    }

    /// The first chunk, and how much of it is sent.
    pub fn first(&self) -> Option<(&B, usize)> {
        self.chunks.front().map(|chunk| (chunk, self.offset))
    }

    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.chunks.iter()
    }

    /// Empties the queue and returns the remaining chunks.
    pub fn take(&mut self) -> VecDeque<B> {
        self.offset = 0;
        self.len = 0;
        std::mem::take(&mut self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(queue: &WriteQueue<&'static [u8]>) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = queue.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn any_split_of_sends_keeps_the_bytes_in_order() {
        for step in 1..12 {
            let mut queue = WriteQueue::default();
            queue.push(&b"hello "[..], 2);
            queue.push(b"", 0);
            queue.push(b"wor", 0);
            queue.push(b"ld", 0);
            assert_eq!(queue.len(), 9);
            let mut sent = Vec::new();
            while !queue.is_empty() {
                let all = content(&queue);
                let n = step.min(all.len());
                sent.extend_from_slice(&all[..n]);
                queue.advance(n, &mut Vec::new());
            }
            assert_eq!(sent, b"llo world");
            assert_eq!(queue.iter().count(), 0);
        }
    }

    #[test]
    fn finished_chunks_are_handed_back() {
        let mut queue = WriteQueue::default();
        queue.push(&b"ab"[..], 0);
        queue.push(b"cd", 0);
        let mut done = Vec::new();
        queue.advance(3, &mut done);
        assert_eq!(done, [b"ab"]);
        assert_eq!(content(&queue), b"d");
        assert_eq!(queue.take().len(), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_vectored_send_is_bounded() {
        let mut queue = WriteQueue::default();
        for _ in 0..MAX_SLICES + 10 {
            queue.push(&b"x"[..], 0);
        }
        assert_eq!(content(&queue).len(), MAX_SLICES);
        assert_eq!(queue.len(), MAX_SLICES + 10);
    }
}
