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
//! Items bring the [`Link`] by which they are strung up, so that pushing one takes no memory: the items of `call_soon_threadsafe`
//! are allocated in one thread and freed in the other, which is their greatest cost.
//!
//! Threads: [`push`](Mailbox::push) may be called from any. All other methods belong to the consumer, which
//! must be one thread at a time (the loop's ownership guard keeps this).

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use super::{AtomicPtr, Ordering};

/// Where an item points to the one pushed before it.
#[repr(C)]
pub struct Link {
    /// Written by the pusher and by the consumer, while others may read the rest of the item.
    next: UnsafeCell<*mut Link>,
}

// SAFETY: it goes where its item goes, and is only followed by the mailbox that the item is in.
unsafe impl Send for Link {}

impl Default for Link {
    fn default() -> Self {
        Self { next: UnsafeCell::new(ptr::null_mut()) }
    }
}

/// An owning pointer to something that has a [`Link`] in it.
///
/// # Safety
/// `into_link` gives a pointer to a link that no other code touches until `from_link` has made the item of it again.
pub unsafe trait Linked: Sized {
    fn into_link(self) -> NonNull<Link>;

    /// # Safety
    /// The link is one of `into_link`'s, whose item was not made again yet.
    unsafe fn from_link(link: NonNull<Link>) -> Self;
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

pub struct Mailbox<T: Linked> {
    head: AtomicPtr<Link>,
    items: PhantomData<T>,
}

// SAFETY: items are moved from the producer to the consumer and never shared; the head is atomic.
unsafe impl<T: Linked + Send> Send for Mailbox<T> {}
// SAFETY: as above; `&Mailbox` only lets a thread move an item in, or (the one consumer) out.
unsafe impl<T: Linked + Send> Sync for Mailbox<T> {}

impl<T: Linked> Mailbox<T> {
    fn parked() -> *mut Link {
        ptr::without_provenance_mut(align_of::<usize>())
    }

    fn closed() -> *mut Link {
        ptr::without_provenance_mut(2 * align_of::<usize>())
    }

    pub fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), items: PhantomData }
    }

    /// Queues `item`, or gives it back when the mailbox is closed. Any thread.
    pub fn push(&self, item: T) -> Result<Pushed, T> {
        let node = item.into_link();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == Self::closed() {
                // SAFETY: the link is from above and was never published.
                return Err(unsafe { T::from_link(node) });
            }
            let next = if head == Self::parked() { ptr::null_mut() } else { head };
            // SAFETY: the link is still ours alone; it is published by the exchange below.
            unsafe { *node.as_ref().next.get() = next };
            // Release: pairs with the Acquire in `drain` and hands the item over. Acquire: pairs with the Release in
            // `park`; a thread that must wake sees what the consumer set up before it slept.
            match self.head.compare_exchange_weak(head, node.as_ptr(), Ordering::AcqRel, Ordering::Relaxed) {
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
            return Drain::of(ptr::null_mut());
        }
        // Acquire: pairs with the Release in `push`. Only the consumer stores CLOSED, so it can't be replaced here.
        let head = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        Drain::of(if head == Self::parked() { ptr::null_mut() } else { reverse(head) })
    }

    /// Shows what is queued, newest first.
    ///
    /// # Safety
    /// Nothing is taken out meanwhile: the consumer is the caller, or stopped. Pushes may go on; what they bring may be missed.
    pub unsafe fn each(&self, mut see: impl FnMut(NonNull<Link>)) {
        // Acquire: pairs with the Release in `push`.
        let mut node = self.head.load(Ordering::Acquire);
        if node == Self::parked() || node == Self::closed() {
            return;
        }
        while let Some(link) = NonNull::new(node) {
            see(link);
            // SAFETY: in the queue (the caller's promise), and not changed while it is.
            node = unsafe { *link.as_ref().next.get() };
        }
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
        Drain::of(if none { ptr::null_mut() } else { reverse(head) })
    }
}

impl<T: Linked> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Linked> Drop for Mailbox<T> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

/// Newest-first to oldest-first, in place.
fn reverse(mut node: *mut Link) -> *mut Link {
    let mut oldest = ptr::null_mut();
    while !node.is_null() {
        // SAFETY: the chain was taken off the head, so this thread owns every node of it.
        let next = unsafe { ptr::replace((*node).next.get(), oldest) };
        oldest = node;
        node = next;
    }
    oldest
}

/// The items taken by [`Mailbox::drain`]; those not iterated over are dropped with it.
pub struct Drain<T: Linked> {
    next: *mut Link,
    items: PhantomData<T>,
}

impl<T: Linked> Drain<T> {
    fn of(next: *mut Link) -> Self {
        Self { next, items: PhantomData }
    }
}

impl<T: Linked> Iterator for Drain<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let link = NonNull::new(self.next)?;
        // SAFETY: the chain is owned by this iterator, and each of its links becomes an item again exactly once.
        unsafe {
            self.next = *link.as_ref().next.get();
            Some(T::from_link(link))
        }
    }
}

impl<T: Linked> Drop for Drain<T> {
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
    }
}

/// An item without a link of its own, in memory with one.
#[cfg(test)]
pub struct Boxed<T>(Box<Inside<T>>);

#[cfg(test)]
#[repr(C)]
struct Inside<T> {
    link: Link,
    item: T,
}

#[cfg(test)]
impl<T> Boxed<T> {
    pub fn new(item: T) -> Self {
        Self(Box::new(Inside { link: Link::default(), item }))
    }

    pub fn into_inner(self) -> T {
        self.0.item
    }
}

// SAFETY: the box is away as long as its link is.
#[cfg(test)]
unsafe impl<T> Linked for Boxed<T> {
    fn into_link(self) -> NonNull<Link> {
        NonNull::from(Box::leak(self.0)).cast()
    }

    unsafe fn from_link(link: NonNull<Link>) -> Self {
        // SAFETY: promised; the link is the first field.
        Self(unsafe { Box::from_raw(link.cast().as_ptr()) })
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn push<T>(mailbox: &Mailbox<Boxed<T>>, item: T) -> Result<Pushed, T> {
        mailbox.push(Boxed::new(item)).map_err(Boxed::into_inner)
    }

    fn items<T>(drain: Drain<Boxed<T>>) -> Vec<T> {
        drain.map(Boxed::into_inner).collect()
    }

    #[test]
    fn keeps_the_order_of_each_producer() {
        let mailbox = Arc::new(Mailbox::new());
        let producers: Vec<_> = (0..4)
            .map(|id| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for n in 0..10_000 {
                        push(&mailbox, (id, n)).map(|_| ()).expect("it is not closed");
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        let mut seen = 0;
        while seen < 40_000 {
            for (id, n) in items(mailbox.drain()) {
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
        assert_eq!(push(&mailbox, 1), Ok(Pushed::MustWake));
        assert_eq!(push(&mailbox, 2), Ok(Pushed::Quiet));
        assert!(!mailbox.park(), "two items wait");
        assert_eq!(items(mailbox.drain()), [1, 2]);
        assert!(mailbox.park());
        mailbox.unpark();
        assert_eq!(push(&mailbox, 3), Ok(Pushed::Quiet));
    }

    #[test]
    fn a_closed_mailbox_gives_items_back() {
        let mailbox = Mailbox::new();
        assert_eq!(push(&mailbox, "early"), Ok(Pushed::Quiet));
        assert_eq!(items(mailbox.close()), ["early"]);
        assert_eq!(push(&mailbox, "late"), Err("late"));
        assert_eq!(mailbox.drain().count(), 0);
        assert_eq!(push(&mailbox, "later"), Err("later"));
    }

    #[test]
    fn undrained_items_are_dropped_once() {
        let item = Arc::new(());
        let mailbox = Mailbox::new();
        for _ in 0..3 {
            push(&mailbox, item.clone()).map(|_| ()).expect("open");
        }
        let mut drain = mailbox.drain();
        drop(drain.next());
        push(&mailbox, item.clone()).map(|_| ()).expect("open");
        drop(drain);
        drop(mailbox);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
