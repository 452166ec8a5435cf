//! The readiness backend, on mio: one epoll instance and its event buffer.
//!
//! Streams and listeners are registered edge-triggered through mio, once for their whole life. Watches
//! (`add_reader` and the `sock_*` calls) are level-triggered or one-shot, which mio does not offer, or edge-triggered in
//! one direction and later in both; they are armed on mio's own instance through `sys::epoll`, and mio's wait reports them with
//! the rest.
//!
//! A registration is of a number and the file behind it, and goes with the file. Where a number is closed while its file lives on under
//! another (dup(2), a child that inherited it), the registration stays, and no number names it any more: only a
//! new instance gets rid of it ([`Epoll::anew`]).

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Poll};
use slotmap::{Key, KeyData};

use super::Token;
use crate::inbox::Wake;
use crate::sys::epoll::{self, Event as Wakeup, Interest};

/// The event buffer grows while waits fill it: an idle loop keeps it small, a busy one gets a large batch.
const EVENTS_MIN: usize = 4;
const EVENTS_MAX: usize = 1024;

const WAKER: mio::Token = mio::Token(usize::MAX);

/// The kernel's report on a descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The peer will send no more, sent urgent data, or is gone: a short read does not mean that there is no more to read.
    pub more: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        let broken = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        Self {
            readable: event.is_readable() || event.is_read_closed() || broken,
            writable: event.is_writable() || event.is_write_closed() || broken,
            more: event.is_read_closed() || event.is_priority() || broken,
        }
    }
}

pub struct Epoll {
    poll: Poll,
    events: Events,
    capacity: usize,
    waker: Arc<Wakeup>,
}

impl Wake for Wakeup {
    fn wake(&self) {
        Wakeup::wake(self);
    }
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        Self::with_waker(Wakeup::new()?.into())
    }

    /// A new instance, with nothing registered but the same waker. A wake that comes before the loop waits on this one is
    /// reported by it.
    pub fn anew(&self) -> io::Result<Self> {
        Self::with_waker(self.waker.clone())
    }

    fn with_waker(waker: Arc<Wakeup>) -> io::Result<Self> {
        let poll = Poll::new()?;
        waker.add_to(poll.as_raw_fd(), WAKER.0 as u64)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MIN), capacity: EVENTS_MIN, waker })
    }

    pub fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    /// Registers for edges of reading, of writing where asked, and of hang-up.
    pub fn register_edge(&mut self, fd: RawFd, token: Token, writable: bool) -> io::Result<()> {
        // Priority: a read that stops at urgent data is short, but there is more.
        let mut interest = mio::Interest::READABLE | mio::Interest::PRIORITY;
        if writable {
            interest |= mio::Interest::WRITABLE;
        }
        let registry = self.poll.registry();
        match registry.register(&mut SourceFd(&fd), encode(token), interest) {
            // Left over, disarmed, from a one-shot watch on the same socket (`sock_connect`, `sock_recv`).
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                registry.reregister(&mut SourceFd(&fd), encode(token), interest)
            }
            other => other,
        }
    }

    /// Registers again, with or without edges of writing. Present readiness counts as an edge.
    pub fn rearm_edge(&mut self, fd: RawFd, token: Token, writable: bool) -> io::Result<()> {
        let interest = match writable {
            true => mio::Interest::READABLE | mio::Interest::WRITABLE,
            false => mio::Interest::READABLE,
        };
        self.poll.registry().reregister(&mut SourceFd(&fd), encode(token), interest)
    }

    /// Returns whether it was added: as this file the number was not registered.
    pub fn arm(&mut self, fd: RawFd, token: Token, interest: Interest, new: bool) -> io::Result<bool> {
        epoll::arm(self.poll.as_raw_fd(), fd, interest, encode(token).0 as u64, new)
    }

    /// Registers a listening socket that other instances wait for too; one of those that sleep is woken.
    pub fn add_exclusive(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        epoll::add_exclusive(self.poll.as_raw_fd(), fd, encode(token).0 as u64)
    }

    #[cfg(test)]
    pub fn number(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Whether it was there.
    pub fn remove(&mut self, fd: RawFd) -> bool {
        epoll::remove(self.poll.as_raw_fd(), fd)
    }

    /// Whether an armed descriptor is still the file that it was armed as.
    pub fn knows(&self, fd: RawFd, token: Token, interest: Interest) -> bool {
        epoll::knows(self.poll.as_raw_fd(), fd, interest, encode(token).0 as u64)
    }

    /// Fills the event buffer. Touches nothing else.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Reports and clears the events of the last wait; false when there were none.
    pub fn drain(&mut self, mut report: impl FnMut(Token, Ready)) -> bool {
        let mut count = 0;
        for event in &self.events {
            count += 1;
            if event.token() != WAKER {
                report(decode(event.token()), Ready::from(event));
            }
        }
        if count == self.capacity && self.capacity < EVENTS_MAX {
            self.capacity *= 2;
            self.events = Events::with_capacity(self.capacity);
        } else if count > 0 {
            self.events.clear();
        }
        count > 0
    }
}

fn encode(token: Token) -> mio::Token {
    mio::Token(token.data().as_ffi() as usize)
}

fn decode(token: mio::Token) -> Token {
    KeyData::from_ffi(token.0 as u64).into()
}
