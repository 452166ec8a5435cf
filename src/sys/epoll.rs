//! Registrations that mio does not offer: level-triggered and one-shot ones, and edge-triggered ones that grow, made on
//! mio's own epoll instance, so that one wait reports all kinds.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The events to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    pub readable: bool,
    pub writable: bool,
    /// Report once, then stay silent until armed again.
    pub oneshot: bool,
    /// Report changes only: once for readiness at arming, then for each new event.
    pub edge: bool,
}

impl Interest {
    fn events(self) -> u32 {
        let mut events = 0;
        if self.readable {
            events |= libc::EPOLLIN | libc::EPOLLRDHUP;
        }
        if self.writable {
            events |= libc::EPOLLOUT;
        }
        if self.oneshot {
            events |= libc::EPOLLONESHOT;
        }
        if self.edge {
            events |= libc::EPOLLET;
            if self.readable {
                // A read that stops at urgent data is short, but there is more.
                events |= libc::EPOLLPRI;
            }
        }
        events as u32
    }
}

/// Adds `fd`, or changes its registration if the instance knows it already (left over, disarmed, from an earlier watch). `new`
/// says which of the two to try first. Returns whether it was added.
pub fn arm(epoll: RawFd, fd: RawFd, interest: Interest, data: u64, new: bool) -> io::Result<bool> {
    let mut event = libc::epoll_event { events: interest.events(), u64: data };
    let mut control = |op| {
        // SAFETY: `event` is valid for the call; the kernel checks both descriptors.
        super::check(unsafe { libc::epoll_ctl(epoll, op, fd, &mut event) })
    };
    let (first, wrong, second) = match new {
        true => (libc::EPOLL_CTL_ADD, libc::EEXIST, libc::EPOLL_CTL_MOD),
        false => (libc::EPOLL_CTL_MOD, libc::ENOENT, libc::EPOLL_CTL_ADD),
    };
    match control(first) {
        Err(error) if error.raw_os_error() == Some(wrong) => control(second).map(|_| !new),
        other => other.map(|_| new),
    }
}

/// Whether the instance has `fd` as the file that this number stands for now. Leaves the registration as `arm` made it.
pub fn knows(epoll: RawFd, fd: RawFd, interest: Interest, data: u64) -> bool {
    let mut event = libc::epoll_event { events: interest.events(), u64: data };
    // SAFETY: `event` is valid for the call; the kernel checks both descriptors.
    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, &mut event) == 0 }
}

/// Adds `fd` for reading, so that of several instances that wait for the same socket only one is woken. Level-triggered:
/// the woken loop may take one connection and leave the rest, which an edge would not report again.
pub fn add_exclusive(epoll: RawFd, fd: RawFd, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: data };
    // SAFETY: `event` is valid for the call; the kernel checks both descriptors.
    super::check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
}

/// Removes `fd`. False where the instance does not have it: it was closed, and the kernel has dropped it by itself, or still has it,
/// under a number that it can't be named by any more, because the file is open under another one.
pub fn remove(epoll: RawFd, fd: RawFd) -> bool {
    // SAFETY: a null event is allowed for DEL.
    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) == 0 }
}

/// An event that any thread may trigger, and that needs no re-arming: each wake is an edge of its own.
pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes two numbers.
        let fd = super::check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: a new descriptor without another owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Has an instance report each wake under `data`.
    pub fn add_to(&self, epoll: RawFd, data: u64) -> io::Result<()> {
        let interest = Interest { readable: true, edge: true, ..Interest::default() };
        arm(epoll, self.0.as_raw_fd(), interest, data, true).map(drop)
    }

    /// Any thread. A counter that is full means that a wake is under way already.
    pub fn wake(&self) {
        let one: u64 = 1;
        // SAFETY: eight readable bytes.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}
