//! The deadline queue: a binary heap of nanosecond deadlines with lazy cancellation.
//!
//! A cancelled timer stays in the heap, marked by its owner, until it comes due or until more than half of
//! the heap is cancelled; then one pass removes them all. Cancelling is therefore O(1) amortised and the
//! heap never holds more than twice the live timers (plus a small constant). Timers with equal deadlines
//! fire in the order they were set.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Below this many entries a clean-up pass is not worth its cost.
const CLEANUP_MIN: usize = 64;

struct Entry<T> {
    deadline: u64,
    sequence: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    /// Reversed: `BinaryHeap` is a max-heap and the earliest deadline must be on top.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.sequence).cmp(&(self.deadline, self.sequence))
    }
}

pub struct DeadlineQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
    cancelled: usize,
}

impl<T> Default for DeadlineQueue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0, cancelled: 0 }
    }
}

impl<T> DeadlineQueue<T> {
    /// Adds a timer that is due when the monotonic clock reads `deadline` nanoseconds.
    pub fn push(&mut self, deadline: u64, item: T) {
        self.sequence += 1;
        self.heap.push(Entry { deadline, sequence: self.sequence, item });
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.deadline)
    }

    /// Removes the earliest timer if its deadline has come. Cancelled ones come out too: call
    /// [`forget_cancelled`](Self::forget_cancelled) for those.
    pub fn pop_due(&mut self, now: u64) -> Option<T> {
        if self.heap.peek()?.deadline > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.item)
    }

    /// Removes cancelled timers from the top, so that the next deadline is that of a live one.
    pub fn pop_cancelled(&mut self, is_cancelled: impl Fn(&T) -> bool) -> Option<T> {
        if self.cancelled == 0 || !is_cancelled(&self.heap.peek()?.item) {
            return None;
        }
        self.cancelled -= 1;
        self.heap.pop().map(|entry| entry.item)
    }

    /// Counts a timer that was cancelled while queued; true when a clean-up is due.
    #[must_use]
    pub fn note_cancelled(&mut self) -> bool {
        self.cancelled += 1;
        self.cancelled > CLEANUP_MIN && self.cancelled * 2 > self.heap.len()
    }

    /// A cancelled timer left the queue by coming due.
    pub fn forget_cancelled(&mut self) {
        self.cancelled = self.cancelled.saturating_sub(1);
    }

    /// Takes out all cancelled timers and returns them.
    pub fn take_cancelled(&mut self, is_cancelled: impl Fn(&T) -> bool) -> Vec<T> {
        let entries = std::mem::take(&mut self.heap).into_vec();
        let (dead, live): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| is_cancelled(&entry.item));
        self.heap = live.into();
        self.cancelled = 0;
        dead.into_iter().map(|entry| entry.item).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.item)
    }

    /// Empties the queue.
    pub fn take_all(&mut self) -> Vec<T> {
        self.cancelled = 0;
        std::mem::take(&mut self.heap).into_iter().map(|entry| entry.item).collect()
    }
}

/// The first nanosecond at which a clock read as float seconds (`ns / 1e9`) is no earlier than `when`.
/// Deadlines before the clock's epoch are 0, those beyond its range never come.
#[inline]
pub fn deadline_from_seconds(when: f64) -> u64 {
    let ns = (when * 1e9).ceil() as u64;
    if is_earlier(ns, when) { first_after(ns, when) } else { ns }
}

#[inline]
fn is_earlier(ns: u64, when: f64) -> bool {
    ns < u64::MAX && (ns as f64) / 1e9 < when
}

/// The product was rounded down; a double's step at this size may exceed one nanosecond. A function of its own: inlined, the
/// compiler would unroll a search that hardly ever takes one step.
#[cold]
#[inline(never)]
fn first_after(mut ns: u64, when: f64) -> u64 {
    while is_earlier(ns, when) {
        ns += 1;
    }
    ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_stable_for_equal_deadlines() {
        let mut queue = DeadlineQueue::default();
        for (deadline, item) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(deadline, item);
        }
        assert_eq!(queue.pop_due(0), None);
        assert_eq!(queue.next_deadline(), Some(1));
        let mut order = String::new();
        while let Some(item) = queue.pop_due(5) {
            order.push(item);
        }
        assert_eq!(order, "abcd");
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let mut queue = DeadlineQueue::default();
        let mut cancelled = std::collections::HashSet::new();
        for n in 0..100_000u64 {
            queue.push(1_000_000 + n, n);
            cancelled.insert(n);
            if queue.note_cancelled() {
                queue.take_cancelled(|n| cancelled.contains(n));
            }
            assert!(queue.len() <= 2 * CLEANUP_MIN);
        }
    }

    #[test]
    fn cancelled_timers_on_top_do_not_hide_the_next_deadline() {
        let mut queue = DeadlineQueue::default();
        queue.push(1, "dead");
        queue.push(2, "live");
        assert!(!queue.note_cancelled());
        assert_eq!(queue.pop_cancelled(|item| *item == "dead"), Some("dead"));
        assert_eq!(queue.pop_cancelled(|item| *item == "dead"), None);
        assert_eq!(queue.next_deadline(), Some(2));
    }

    #[test]
    fn a_deadline_is_never_early() {
        for when in [0.1, 1.0 / 3.0, 12_345.678_901_2, 9_000_000.123_456_8, 31_536_000.000_000_4] {
            let ns = deadline_from_seconds(when);
            assert!(ns as f64 / 1e9 >= when, "{when}");
            assert!((ns as f64) / 1e9 - when < 1e-6, "{when}");
        }
        assert_eq!(deadline_from_seconds(-1.0), 0);
        assert_eq!(deadline_from_seconds(f64::INFINITY), u64::MAX);
        assert_eq!(deadline_from_seconds(f64::NAN), 0);
    }
}
