//! The state of one registered descriptor: the kernel's last report, and its owner's orders.

use std::io::{self, IoSlice};
use std::os::fd::{OwnedFd, RawFd};

use super::datagram::Datagram;
use super::epoll::Ready;
use super::{Completion, Interest, LARGE, RECEIVE_BUFFER, ReadMode};
use crate::sys;
use crate::sys::datagram::Batch;

pub struct Source<T> {
    pub fd: RawFd,
    /// Owns `fd` where that is a number of the driver's own.
    pub own: Option<OwnedFd>,
    pub kind: Kind,
    /// Is in the driver's queue.
    pub queued: bool,
    pub data: T,
}

pub enum Kind {
    Stream(Stream),
    Datagram(Datagram),
    Listener(Listener),
    Watch(Watch),
}

impl<T> Source<T> {
    /// Takes in the kernel's report; true when there is something to report now.
    pub fn notice(&mut self, ready: Ready) -> bool {
        match &mut self.kind {
            Kind::Stream(stream) => stream.notice(ready),
            Kind::Datagram(datagram) => datagram.notice(ready),
            Kind::Listener(listener) => listener.notice(),
            Kind::Watch(watch) => watch.notice(ready),
        }
        self.has_more()
    }

    pub fn has_more(&self) -> bool {
        match &self.kind {
            Kind::Stream(stream) => stream.can_write() || stream.can_read(),
            Kind::Datagram(datagram) => datagram.can_write() || datagram.can_read(),
            Kind::Listener(listener) => listener.ready && !listener.suspended,
            Kind::Watch(watch) => watch.ready.readable || watch.ready.writable,
        }
    }

    /// Does one operation that is ready, if its owner still wants it.
    pub fn complete(&mut self, buffer: &mut [u8], spare: &mut Option<Box<Batch>>) -> Option<Completion> {
        match &mut self.kind {
            Kind::Stream(stream) => stream.complete(self.fd, buffer),
            Kind::Datagram(datagram) => datagram.complete(self.fd, spare),
            Kind::Listener(listener) => listener.complete(self.fd),
            Kind::Watch(watch) => watch.complete(),
        }
    }
}

/// How a stream's bytes are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    Socket,
    UnixSocket,
    /// By read(2) and write(2). A read that is not filled does not mean that it is drained: a terminal hands out a line of
    /// several, and a pipe a packet if its writer wants that.
    File,
}

/// A connected socket or a pipe, edge-triggered: reported readiness holds until a call finds otherwise.
pub struct Stream {
    pub mode: ReadMode,
    io: Io,
    /// The kernel does not report on it, and its calls never block.
    always: bool,
    readable: bool,
    /// A short read does not mean that it is drained: the end is in sight, or urgent data was.
    more: bool,
    writable: bool,
    /// The kernel refused bytes; the owner waits for `Writable`.
    blocked: bool,
    /// The last read was large: it is worth asking for the amount.
    large: bool,
    /// The next read asks for all bytes that the kernel reported.
    whole: bool,
}

impl Stream {
    pub fn new(io: Io) -> Self {
        Self {
            mode: ReadMode::Paused,
            io,
            always: false,
            readable: false,
            more: false,
            writable: false,
            blocked: false,
            large: false,
            whole: false,
        }
    }

    /// The kernel does not report on this one: it counts as ready at any time.
    pub fn set_always_ready(&mut self) {
        self.always = true;
        self.readable = true;
        self.writable = true;
    }

    fn notice(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.more |= ready.more;
        self.writable |= ready.writable;
    }

    fn can_write(&self) -> bool {
        self.blocked && self.writable
    }

    fn can_read(&self) -> bool {
        self.readable && self.mode != ReadMode::Paused
    }

    fn complete(&mut self, fd: RawFd, buffer: &mut [u8]) -> Option<Completion> {
        self.whole = false;
        if self.can_write() {
            self.blocked = false;
            return Some(Completion::Writable);
        }
        if !self.can_read() {
            return None;
        }
        if self.mode == ReadMode::Readiness {
            return Some(Completion::Readable);
        }
        if self.large && self.mode == ReadMode::Objects {
            let waiting = sys::socket::waiting(fd).unwrap_or(0);
            self.large = waiting >= LARGE;
            if self.large {
                self.whole = waiting <= RECEIVE_BUFFER;
                return Some(Completion::Large(waiting.min(RECEIVE_BUFFER)));
            }
        }
        // SAFETY: the pointer and length describe `buffer`.
        match unsafe { self.receive(fd, buffer.as_mut_ptr(), buffer.len()) } {
            Ok(n) => {
                self.large = n >= LARGE && self.io != Io::File;
                Some(Completion::Received(n))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || sys::pipe::is_misplaced(&error) => {
                None
            }
            Err(error) => Some(Completion::ReadFailed(error)),
        }
    }

    /// Receives once and notes whether the stream is drained.
    ///
    /// # Safety
    /// `ptr` must be valid for writing `len` bytes for the time of the call.
    pub unsafe fn receive(&mut self, fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
        // SAFETY: promised by the caller.
        let result = unsafe {
            match self.io {
                Io::Socket => sys::socket::recv_raw(fd, ptr, len).map(|n| (n, false)),
                Io::UnixSocket => sys::socket::recv_unix(fd, ptr, len),
                Io::File => sys::pipe::read_raw(fd, ptr, len).map(|n| (n, n > 0)),
            }
        };
        let whole = std::mem::take(&mut self.whole);
        match result {
            Ok((n, cut)) => {
                // A read that the kernel could not fill has emptied the socket: the next byte is a new edge. So has a read of all
                // reported bytes: later bytes came after the edge that made the driver ask, and are another edge.
                self.readable = (n == len && !whole) || cut || (self.more && n > 0);
                Ok(n)
            }
            Err(error) => {
                self.readable = sys::pipe::is_misplaced(&error);
                Err(error)
            }
        }
    }

    /// The owner wants to meet the end again.
    pub fn report_readable(&mut self) {
        self.readable = true;
    }

    /// The owner has more to send; `full` says that the kernel refused bytes meanwhile.
    pub fn report_writable(&mut self, full: bool) {
        self.writable &= !full;
        self.blocked = true;
    }

    /// Sends; anything short of all means that the kernel is full and reports `Writable` later.
    pub fn send(&mut self, fd: RawFd, data: &[u8]) -> io::Result<usize> {
        let result = match self.io {
            Io::Socket | Io::UnixSocket => sys::socket::send(fd, data),
            Io::File => sys::pipe::write(fd, data),
        };
        self.sent(data.len(), result)
    }

    /// As [`send`](Self::send), from several pieces of `total` bytes.
    pub fn send_vectored(&mut self, fd: RawFd, pieces: &[IoSlice<'_>], total: usize) -> io::Result<usize> {
        let result = match self.io {
            Io::Socket | Io::UnixSocket => sys::socket::send_vectored(fd, pieces),
            Io::File => sys::pipe::write_vectored(fd, pieces),
        };
        self.sent(total, result)
    }

    fn sent(&mut self, total: usize, result: io::Result<usize>) -> io::Result<usize> {
        // A write that must not be tried here is tried in the loop's next turn.
        let mut untried = false;
        let result = match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if sys::pipe::is_misplaced(&error) => {
                untried = true;
                Ok(0)
            }
            other => other,
        };
        if let Ok(sent) = result
            && sent < total
        {
            self.writable = self.always || untried;
            self.blocked = true;
        }
        result
    }
}

/// A listening socket: edge-triggered, or level-triggered where other loops accept from it too.
#[derive(Default)]
pub struct Listener {
    shared: bool,
    ready: bool,
    /// Asked since the last event: it costs a system call, which connections that come together share.
    non_blocking: bool,
    /// The owner resumes it: the system is out of descriptors or memory, or only errors came.
    suspended: bool,
    /// Connections in a row that failed while they were accepted.
    failed: u32,
}

/// The meaning of an error of accept(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptError {
    /// There is no descriptor or memory for one more connection; the next attempt would fail too, and the connection waits.
    Exhausted,
    /// The socket does not listen (any more).
    Dead,
    /// One connection failed: its peer or its network, or a security rule forbids it. The next one is not
    /// affected.
    OfOne,
}

impl AcceptError {
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::Exhausted,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EFAULT) => Self::Dead,
            // accept(2) passes on errors that are pending on the new connection, and kernels differ in what that may be.
            _ => Self::OfOne,
        }
    }
}

/// How many waits in a row report a watch before the driver checks whether that is still the intended descriptor.
const SUSPECT: u32 = 1024;

/// How many connections in a row may fail: more than wait in most queues. A longer failure does not depend on the connection (a security rule
/// forbids the call itself), and would keep the loop busy forever.
const MOST_FAILED: u32 = 1024;

impl Listener {
    pub fn shared() -> Self {
        Self { shared: true, ..Self::default() }
    }

    pub fn is_shared(&self) -> bool {
        self.shared
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Whether it was suspended.
    pub fn resume(&mut self) -> bool {
        self.notice();
        self.failed = 0;
        std::mem::replace(&mut self.suspended, false)
    }

    fn notice(&mut self) {
        self.ready = true;
        self.non_blocking = false;
    }

    fn complete(&mut self, fd: RawFd) -> Option<Completion> {
        if self.suspended || !self.ready {
            return None;
        }
        match sys::socket::accept(fd, &mut self.non_blocking) {
            Ok((socket, address)) => {
                // The next wait reports whether there is more, unless another loop took it.
                self.ready = !self.shared;
                self.failed = 0;
                Some(Completion::Accepted(socket, address))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready = false;
                self.failed = 0;
                None
            }
            Err(error) if AcceptError::of(&error) == AcceptError::OfOne && self.failed < MOST_FAILED => {
                self.failed += 1;
                None
            }
            Err(error) => {
                self.suspended = true;
                Some(Completion::AcceptFailed(error))
            }
        }
    }
}

/// A descriptor that other code reads and writes.
#[derive(Default)]
pub struct Watch {
    interest: Interest,
    ready: Ready,
    /// The last wait that reported it, and how many in a row did.
    reported: (u64, u32),
}

impl Watch {
    pub fn interest(&self) -> Interest {
        self.interest
    }

    /// It was reported by that wait. True every so many waits in a row, while it is watched level-triggered: then perhaps
    /// no code can handle the event.
    pub fn is_suspect(&mut self, wait: u64) -> bool {
        let (last, count) = self.reported;
        let count = if last + 1 == wait { count + 1 } else { 0 };
        self.reported = (wait, count);
        count > 0
            && count % SUSPECT == 0
            && !self.interest.edge
            && !self.interest.oneshot
            && !self.is_silent()
    }

    pub fn set(&mut self, interest: Interest) {
        if self.interest.edge != interest.edge {
            // Armed again, it gets its readiness again; an edge may be past.
            self.ready = Ready::default();
        }
        self.interest = interest;
        self.ready.readable &= interest.readable;
        self.ready.writable &= interest.writable;
    }

    /// Whether the kernel is not going to report it.
    pub fn is_silent(&self) -> bool {
        !self.interest.readable && !self.interest.writable
    }

    fn notice(&mut self, ready: Ready) {
        self.ready.readable |= ready.readable && self.interest.readable;
        self.ready.writable |= ready.writable && self.interest.writable;
        self.ready.more |= ready.more;
        if self.interest.oneshot {
            self.interest = Interest::default();
        }
    }

    fn complete(&mut self) -> Option<Completion> {
        let Ready { readable, writable, more } = std::mem::take(&mut self.ready);
        (readable || writable).then_some(Completion::Polled { readable, writable, more })
    }
}
