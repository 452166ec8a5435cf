//! A lock-free queue with many producers and one consumer, whose single atomic also says whether the
//! consumer is parked.
//!
//! The head is one of four things:
//!
//! | head     | meaning                                                        |
//! |----------|----------------------------------------------------------------|
//! | null     | nothing is queued; the consumer is awake                       |
//! | `PARKED` | nothing is queued; the consumer sleeps or is about to          |
//! | `CLOSED` | the consumer is gone for good; pushes fail                     |
//! | a node   | the newest item; each node points to the one pushed before it  |
//!
//! Because emptiness and sleep are one word there is no window between "the queue is empty" and "I sleep":
//! the push that replaces `PARKED` learns in the same compare-exchange that it, and only it, must wake the
//! consumer. A burst therefore costs one wake.
//!
//! Threads: [`push`](Mailbox::push) may be called from any. All other methods belong to the consumer, which
//! must be one thread at a time (the loop's ownership guard keeps this).

use std::ptr;

use super::{AtomicPtr, Ordering};

struct Node<T> {
    next: *mut Node<T>,
    item: T,
}

/// What the producer has to do after a push.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The consumer is awake and will look by itself.
    Quiet,
    /// The consumer was parked; the caller must wake it.
    MustWake,
}

pub struct Mailbox<T> {
    head: AtomicPtr<Node<T>>,
}

// SAFETY: items are moved from the producer to the consumer and never shared; the head is atomic.
unsafe impl<T: Send> Send for Mailbox<T> {}
// SAFETY: as above; `&Mailbox` only lets a thread move an item in, or (the one consumer) out.
unsafe impl<T: Send> Sync for Mailbox<T> {}

impl<T> Mailbox<T> {
    fn parked() -> *mut Node<T> {
        ptr::without_provenance_mut(align_of::<usize>())
    }

    fn closed() -> *mut Node<T> {
        ptr::without_provenance_mut(2 * align_of::<usize>())
    }

    pub fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Queues `item`, or gives it back when the mailbox is closed. Any thread.
    pub fn push(&self, item: T) -> Result<Pushed, T> {
        let node = Box::into_raw(Box::new(Node { next: ptr::null_mut(), item }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == Self::closed() {
                // SAFETY: the node was made above and never published.
                return Err(unsafe { Box::from_raw(node) }.item);
            }
            let next = if head == Self::parked() { ptr::null_mut() } else { head };
            // SAFETY: the node is still ours alone; it is published by the exchange below.
            unsafe { (*node).next = next };
            // Release: pairs with the Acquire in `drain` and hands the item over. Acquire: pairs with the Release in
            // `park`; whoever must wake sees what the consumer set up before it slept.
            match self.head.compare_exchange_weak(head, node, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(was) if was == Self::parked() => return Ok(Pushed::MustWake),
                Ok(_) => return Ok(Pushed::Quiet),
                Err(now) => head = now,
            }
        }
    }

    /// Takes all items, oldest first. Consumer only.
    pub fn drain(&self) -> Drain<T> {
        let head = self.head.load(Ordering::Relaxed);
        if head.is_null() || head == Self::closed() {
            return Drain { next: ptr::null_mut() };
        }
        // Acquire: pairs with the Release in `push`. Only the consumer stores CLOSED, so it can't be replaced here.
        let head = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        Drain { next: if head == Self::parked() { ptr::null_mut() } else { reverse(head) } }
    }

    /// Announces that the consumer is going to sleep; false when there is something to drain first.
    pub fn park(&self) -> bool {
        self.head
            .compare_exchange(ptr::null_mut(), Self::parked(), Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the announcement back after waking. A producer that already took it wakes us once for nothing.
    pub fn unpark(&self) {
        let _ =
            self.head.compare_exchange(Self::parked(), ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Closes the mailbox and returns what was queued. Consumer only; further pushes fail.
    pub fn close(&self) -> Drain<T> {
        let head = self.head.swap(Self::closed(), Ordering::Acquire);
        let none = head.is_null() || head == Self::parked() || head == Self::closed();
        Drain { next: if none { ptr::null_mut() } else { reverse(head) } }
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

/// Newest-first to oldest-first, in place.
fn reverse<T>(mut node: *mut Node<T>) -> *mut Node<T> {
    let mut oldest = ptr::null_mut();
    while !node.is_null() {
        // SAFETY: the chain was taken off the head, so this thread owns every node of it.
        let next = unsafe { std::mem::replace(&mut (*node).next, oldest) };
        oldest = node;
        node = next;
    }
    oldest
}

/// The items taken by [`Mailbox::drain`]; those not iterated over are dropped with it.
pub struct Drain<T> {
    next: *mut Node<T>,
}

impl<T> Iterator for Drain<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: the chain is owned by this iterator and each node is freed exactly once.
        let node = unsafe { Box::from_raw(self.next) };
        self.next = node.next;
        Some(node.item)
    }
}

impl<T> Drop for Drain<T> {
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn keeps_the_order_of_each_producer() {
        let mailbox = Arc::new(Mailbox::new());
        let producers: Vec<_> = (0..4)
            .map(|id| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for n in 0..10_000 {
                        mailbox.push((id, n)).map(|_| ()).expect("nobody closes it");
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        let mut seen = 0;
        while seen < 40_000 {
            for (id, n) in mailbox.drain() {
                assert_eq!(n, next[id]);
                next[id] += 1;
                seen += 1;
            }
            std::thread::yield_now();
        }
        for producer in producers {
            producer.join().expect("producers do not panic");
        }
    }

    #[test]
    fn one_wake_for_a_burst() {
        let mailbox = Mailbox::new();
        assert!(mailbox.park());
        assert_eq!(mailbox.push(1), Ok(Pushed::MustWake));
        assert_eq!(mailbox.push(2), Ok(Pushed::Quiet));
        assert!(!mailbox.park(), "two items wait");
        assert_eq!(mailbox.drain().collect::<Vec<_>>(), [1, 2]);
        assert!(mailbox.park());
        mailbox.unpark();
        assert_eq!(mailbox.push(3), Ok(Pushed::Quiet));
    }

    #[test]
    fn a_closed_mailbox_gives_items_back() {
        let mailbox = Mailbox::new();
        assert_eq!(mailbox.push("early"), Ok(Pushed::Quiet));
        assert_eq!(mailbox.close().collect::<Vec<_>>(), ["early"]);
        assert_eq!(mailbox.push("late"), Err("late"));
        assert_eq!(mailbox.drain().count(), 0);
        assert_eq!(mailbox.push("later"), Err("later"));
    }

    #[test]
    fn undrained_items_are_dropped_once() {
        let item = Arc::new(());
        let mailbox = Mailbox::new();
        for _ in 0..3 {
            mailbox.push(item.clone()).map(|_| ()).expect("open");
        }
        let mut drain = mailbox.drain();
        drop(drain.next());
        mailbox.push(item.clone()).map(|_| ()).expect("open");
        drop(drain);
        drop(mailbox);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
