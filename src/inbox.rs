//! The way from any other thread to a loop: posts go through a [`Mailbox`], and a wake-up costs a system
//! call only when the loop is parked.
//!
//! [`Inbox`] belongs to the loop's thread; [`InboxSender`] is its cross-thread side, cheap to clone. The
//! waker is set when the loop's driver comes to life; before that the loop can't park, so no waker is needed.

use std::sync::{Arc, OnceLock};

use crate::sync::mailbox::{Drain, Linked, Mailbox, Pushed};

/// Interrupts the wait of the loop that owns the inbox. Any thread.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

struct Shared<T: Linked> {
    mailbox: Mailbox<T>,
    waker: OnceLock<Arc<dyn Wake>>,
}

pub struct Inbox<T: Linked> {
    shared: Arc<Shared<T>>,
}

pub struct InboxSender<T: Linked> {
    shared: Arc<Shared<T>>,
}

impl<T: Linked> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Linked> InboxSender<T> {
    /// Posts to the loop and wakes it when it sleeps; gives the post back when the loop is closed.
    pub fn post(&self, item: T) -> Result<(), T> {
        if self.shared.mailbox.push(item)? == Pushed::MustWake {
            self.shared.waker.get().expect("a loop parks only once its waker is set").wake();
        }
        Ok(())
    }

    /// As [`Inbox::close`], where the loop's thread is not there any more: in a forked child.
    pub fn close(&self) -> Drain<T> {
        self.shared.mailbox.close()
    }
}

impl<T: Linked> InboxSender<T> {
    /// Wakes the loop if it sleeps, or keeps it from sleeping once, without a message: for callers that queue work elsewhere. A loop
    /// without a waker has never slept.
    pub fn wake(&self) {
        if let Some(waker) = self.shared.waker.get() {
            waker.wake();
        }
    }
}

impl<T: Linked> Inbox<T> {
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared { mailbox: Mailbox::new(), waker: OnceLock::new() }) }
    }

    pub fn sender(&self) -> InboxSender<T> {
        InboxSender { shared: self.shared.clone() }
    }

    /// Sets how to interrupt the loop's wait. A second call is ignored.
    pub fn set_waker(&self, waker: Arc<dyn Wake>) {
        let _ = self.shared.waker.set(waker);
    }

    /// Runs `wait` unless something was posted; posts made meanwhile interrupt it through the waker.
    /// Returns None when it did not wait.
    pub fn park<R>(&self, wait: impl FnOnce() -> R) -> Option<R> {
        debug_assert!(self.shared.waker.get().is_some());
        if !self.shared.mailbox.park() {
            return None;
        }
        let result = wait();
        self.shared.mailbox.unpark();
        Some(result)
    }

    pub fn drain(&self) -> Drain<T> {
        self.shared.mailbox.drain()
    }

    /// The queued posts, to be visited in place.
    pub fn mailbox(&self) -> &Mailbox<T> {
        &self.shared.mailbox
    }

    /// Refuses further posts and returns the unread ones.
    pub fn close(&self) -> Drain<T> {
        self.shared.mailbox.close()
    }
}

impl<T: Linked> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Run with `cargo test --no-default-features --features loom --profile loom loom`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use crate::sync::mailbox::Boxed;

    type Number = Boxed<u32>;
    use loom::sync::{Condvar, Mutex};

    /// Stands in for the eventfd: a wake that comes before the wait is not lost.
    struct Event(loom::sync::Arc<(Mutex<bool>, Condvar)>);

    impl Wake for Event {
        fn wake(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    fn receive(inbox: &Inbox<Number>, event: &(Mutex<bool>, Condvar), count: usize) -> Vec<u32> {
        let mut seen = Vec::new();
        loop {
            seen.extend(inbox.drain().map(Boxed::into_inner));
            if seen.len() == count {
                return seen;
            }
            inbox.park(|| {
                let mut set = event.0.lock().unwrap();
                while !*set {
                    set = event.1.wait(set).unwrap();
                }
                *set = false;
            });
        }
    }

    fn inbox_with_event() -> (Inbox<Number>, loom::sync::Arc<(Mutex<bool>, Condvar)>) {
        let event = loom::sync::Arc::new((Mutex::new(false), Condvar::new()));
        let inbox = Inbox::new();
        inbox.set_waker(Arc::new(Event(event.clone())));
        (inbox, event)
    }

    /// A lost wake-up would leave the consumer waiting forever; loom reports that as a deadlock.
    #[test]
    fn loom_no_wakeup_is_lost_with_two_producers() {
        loom::model(|| {
            let (inbox, event) = inbox_with_event();
            for id in [1, 2] {
                let sender = inbox.sender();
                loom::thread::spawn(move || assert!(sender.post(Boxed::new(id)).is_ok()));
            }
            let mut seen = receive(&inbox, &event, 2);
            seen.sort_unstable();
            assert_eq!(seen, [1, 2]);
        });
    }

    #[test]
    fn loom_a_producer_keeps_its_order() {
        loom::model(|| {
            let (inbox, event) = inbox_with_event();
            let sender = inbox.sender();
            loom::thread::spawn(move || {
                for n in [1, 2, 3] {
                    assert!(sender.post(Boxed::new(n)).is_ok());
                }
            });
            assert_eq!(receive(&inbox, &event, 3), [1, 2, 3]);
        });
    }

    #[test]
    fn loom_a_post_is_delivered_or_given_back_when_the_loop_closes() {
        loom::model(|| {
            let (inbox, _event) = inbox_with_event();
            let sender = inbox.sender();
            let producer = loom::thread::spawn(move || sender.post(Boxed::new(7)).is_err());
            let mut seen: Vec<u32> = inbox.drain().map(Boxed::into_inner).collect();
            seen.extend(inbox.close().map(Boxed::into_inner));
            let given_back = producer.join().unwrap();
            assert_eq!(given_back, seen.is_empty());
        });
    }
}
