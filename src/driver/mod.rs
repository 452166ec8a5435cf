//! The loop's own I/O driver: it waits, reads, accepts and reports completions.
//!
//! The contract is completion-shaped. A descriptor is registered once and becomes a [`Token`] (slot and
//! generation, so that a reused descriptor is never mistaken for its predecessor). Standing orders ("read
//! whenever there is something", "accept", "watch") are given per token; [`Driver::next_completion`] then hands out
//! one [`Completion`] at a time, the system call already made. A second backend (io_uring) can answer the same
//! calls from its completion queue; only `epoll.rs` knows that readiness exists.
//!
//! One pass of the loop: [`wait`](Driver::wait) (touches nothing but the kernel's event buffer, so it may run
//! detached from the interpreter) → [`collect`](Driver::collect) → [`next_completion`](Driver::next_completion), at most
//! [`pending`](Driver::pending) times, so that a busy source goes to the back of the queue and does not starve others.
//!
//! Threads: a driver belongs to its loop's thread. Only the waker made by [`Driver::waker`] is shared.

mod anew;
mod datagram;
mod epoll;
mod source;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use slotmap::{SlotMap, new_key_type};
use socket2::SockAddr;

use crate::inbox::Wake;
use crate::sys;
use crate::sys::datagram::Batch;
use crate::sys::detached::Detached;
pub use crate::sys::epoll::Interest;
pub use crate::sys::socket::Connection;
use epoll::Epoll;
use source::{Io, Kind, Listener, Source, Stream, Watch};

new_key_type! {
    /// Identity of a registered descriptor: slot and generation.
    pub struct Token;
}

/// What a stream or a datagram socket does with arriving data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// Nothing: reading is paused, bytes stay in the kernel.
    Paused,
    /// Receives into the driver's buffer and reports [`Completion::Received`].
    Bytes,
    /// The same, except that it reports large amounts as [`Completion::Large`]. Streams only.
    Objects,
    /// Reports [`Completion::Readable`]; the owner then calls [`Driver::recv_into`].
    Readiness,
}

/// One completed operation. The data of a `Received` is in [`Driver::received`] until the next call.
#[derive(Debug)]
pub enum Completion {
    /// This many bytes came in; 0 is the end of the stream.
    Received(usize),
    ReadFailed(io::Error),
    /// A stream in [`ReadMode::Readiness`] has something to read. It is reported again after [`Driver::recv_into`] or
    /// [`Driver::set_read_mode`].
    Readable,
    /// This many bytes wait in the kernel: the owner receives them into memory of its own with [`Driver::recv_into`], which saves a
    /// copy. As for `Readable`, it is the owner's turn.
    Large(usize),
    /// A stream that refused bytes takes them again.
    Writable,
    /// Datagrams came in. The memory goes back with [`Driver::give_back`].
    Datagrams(Box<Batch>),
    Accepted(Connection, SockAddr),
    AcceptFailed(io::Error),
    /// A watched descriptor is ready.
    Polled {
        readable: bool,
        writable: bool,
        /// The peer will send no more, sent urgent data, or is gone: a short read does not mean that there is no more to read.
        more: bool,
    },
}

/// Size of the buffer that all streams of a loop receive into: stays within a core's L2 cache.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// From how many bytes on a read counts as large: below, a copy costs less than asking the kernel for the amount.
const LARGE: usize = 16 * 1024;

/// The fewest registrations after which it is worth looking for unused sources.
const SWEEP_AFTER: usize = 64;

/// Descriptors are small numbers that the kernel hands out: spreading them is enough.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_i32(byte.into()));
    }

    fn write_i32(&mut self, number: i32) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub struct Driver<T> {
    epoll: Epoll,
    sources: SlotMap<Token, Source<T>>,
    by_fd: HashMap<RawFd, Token, BuildHasherDefault<NumberHasher>>,
    /// How many more registrations until the next search for unused sources.
    until_sweep: usize,
    queue: VecDeque<Token>,
    /// Waits so far.
    waits: u64,
    stale: anew::Stale,
    buffer: Box<[u8]>,
    /// For the next batch of datagrams; None while one is out.
    spare: Option<Box<Batch>>,
}

/// Why a descriptor is not registered, and its owner's data: to be dropped outside the loop's claim.
#[derive(Debug)]
pub struct Refused<T> {
    pub error: io::Error,
    pub data: T,
}

impl<T> Refused<T> {
    pub fn into_error(self) -> io::Error {
        self.error
    }
}

impl<T> Driver<T> {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            sources: SlotMap::with_key(),
            by_fd: HashMap::default(),
            until_sweep: SWEEP_AFTER,
            queue: VecDeque::new(),
            waits: 0,
            stale: anew::Stale::default(),
            buffer: Box::default(),
            spare: None,
        })
    }

    /// The cross-thread side: interrupts [`wait`](Self::wait).
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.epoll.waker()
    }

    // ---- registration -------------------------------------------------------------------------------

    /// Registers a connected, non-blocking stream socket; it starts paused.
    pub fn register_stream(&mut self, fd: RawFd, family: i32, data: T) -> Result<Token, Refused<T>> {
        self.need_buffer();
        let stream = Stream::new(if family == libc::AF_UNIX { Io::UnixSocket } else { Io::Socket });
        self.register(fd, Kind::Stream(stream), data, |epoll, token| epoll.register_edge(fd, token, true))
    }

    /// Registers a non-blocking pipe, terminal or the like as a stream; it starts paused. A descriptor that another source
    /// has (a terminal that is read and written) gets a second number, and one that epoll refuses (`/dev/null`) counts as
    /// ready at any time.
    pub fn register_pipe(&mut self, fd: RawFd, data: T) -> Result<Token, Refused<T>> {
        self.need_buffer();
        let own = match self.by_fd.contains_key(&fd).then(|| sys::pipe::duplicate(fd)).transpose() {
            Ok(own) => own,
            Err(error) => return Err(Refused { error, data }),
        };
        let fd = own.as_ref().map_or(fd, AsRawFd::as_raw_fd);
        let mut refused = false;
        let stream = Kind::Stream(Stream::new(Io::File));
        let token = self.register(fd, stream, data, |epoll, token| {
            match epoll.register_edge(fd, token, true) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = true,
                other => other?,
            }
            Ok(())
        })?;
        let source = self.sources.get_mut(token).expect("registered above");
        source.own = own;
        if let Kind::Stream(stream) = &mut source.kind
            && refused
        {
            stream.set_always_ready();
        }
        Ok(token)
    }

    fn need_buffer(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; RECEIVE_BUFFER].into_boxed_slice();
        }
    }

    /// Registers a listening, non-blocking socket and starts accepting.
    pub fn register_listener(&mut self, fd: RawFd, data: T) -> Result<Token, Refused<T>> {
        let listener = Kind::Listener(Listener::default());
        self.register(fd, listener, data, |epoll, token| epoll.register_edge(fd, token, false))
    }

    /// As [`register_listener`](Self::register_listener), for a socket that other loops accept from too: one connection wakes
    /// one of those that sleep. Reports one connection a wait, so that others that were woken get theirs.
    pub fn register_shared_listener(&mut self, fd: RawFd, data: T) -> Result<Token, Refused<T>> {
        let listener = Kind::Listener(Listener::shared());
        self.register(fd, listener, data, |epoll, token| epoll.add_exclusive(fd, token))
    }

    /// Registers a descriptor to be watched for readiness; silent until [`watch`](Self::watch).
    pub fn register_watch(&mut self, fd: RawFd, data: T) -> Token {
        let kind = Kind::Watch(Watch::default());
        let token = self.insert(Source { fd, own: None, kind, queued: false, data });
        self.note(fd, token);
        token
    }

    fn register(
        &mut self,
        fd: RawFd,
        kind: Kind,
        data: T,
        attach: impl FnOnce(&mut Epoll, Token) -> io::Result<()>,
    ) -> Result<Token, Refused<T>> {
        let token = self.insert(Source { fd, own: None, kind, queued: false, data });
        if let Err(error) = attach(&mut self.epoll, token) {
            let source = self.sources.remove(token).expect("inserted above");
            return Err(Refused { error, data: source.data });
        }
        self.note(fd, token);
        Ok(token)
    }

    fn insert(&mut self, source: Source<T>) -> Token {
        if self.sources.capacity() == 0 {
            // The first: room for it alone, where to grow would make room for three. Many a loop has one source, for signals.
            self.sources = SlotMap::with_capacity_and_key(1);
        }
        self.sources.insert(source)
    }

    fn note(&mut self, fd: RawFd, token: Token) {
        self.by_fd.insert(fd, token);
        self.until_sweep = self.until_sweep.saturating_sub(1);
    }

    /// Removes a source and returns its owner's data. The descriptor stays open.
    pub fn deregister(&mut self, token: Token) -> Option<T> {
        let source = self.sources.remove(token)?;
        // A watch may outlive its descriptor, whose number may be another source's by now: that one stays registered. And a
        // watch that fired once is disarmed already.
        if self.by_fd.get(&source.fd) == Some(&token) {
            self.by_fd.remove(&source.fd);
            if !matches!(&source.kind, Kind::Watch(watch) if watch.is_silent()) {
                self.epoll.remove(source.fd);
            }
        }
        Some(source.data)
    }

    /// As [`deregister`](Self::deregister), for a descriptor that is closed with its last owner: the kernel forgets it by itself.
    /// Makes no system call: in a forked child that would change the parent's registrations.
    pub fn abandon(&mut self, token: Token) -> Option<T> {
        let source = self.sources.remove(token)?;
        if self.by_fd.get(&source.fd) == Some(&token) {
            self.by_fd.remove(&source.fd);
        }
        Some(source.data)
    }

    /// Removes watches that their owner declares unused, and returns its data. Searches only after as
    /// many registrations as sources were left the last time, so that it costs little, and the number of sources stays in
    /// proportion to those in use.
    pub fn sweep(&mut self, is_useless: impl Fn(&T, bool) -> bool) -> Vec<T> {
        if self.until_sweep > 0 {
            return Vec::new();
        }
        let by_fd = &self.by_fd;
        let useless = |(token, source): (Token, &Source<T>)| {
            let current = by_fd.get(&source.fd) == Some(&token);
            (matches!(source.kind, Kind::Watch(_)) && is_useless(&source.data, current)).then_some(token)
        };
        let tokens: Vec<_> = self.sources.iter().filter_map(useless).collect();
        let swept = tokens.into_iter().filter_map(|token| self.deregister(token)).collect();
        self.until_sweep = self.sources.len().max(SWEEP_AFTER);
        swept
    }

    pub fn token(&self, fd: RawFd) -> Option<Token> {
        self.by_fd.get(&fd).copied()
    }

    pub fn data(&self, token: Token) -> Option<&T> {
        self.sources.get(token).map(|source| &source.data)
    }

    pub fn data_mut(&mut self, token: Token) -> Option<&mut T> {
        self.sources.get_mut(token).map(|source| &mut source.data)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.sources.values().map(|source| &source.data)
    }

    /// A source whose data is the one looked for.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Token> {
        self.sources.iter().find(|(_, source)| is_it(&source.data)).map(|(token, _)| token)
    }

    /// How many descriptors are registered. With none, a wait can only end by a wake or the timeout.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    // ---- waiting ------------------------------------------------------------------------------------

    /// Waits until something happens, a wake, or the timeout. A signal ends the wait.
    pub fn wait(&mut self, _: &Detached, timeout: Option<Duration>) -> io::Result<()> {
        self.waits += 1;
        self.epoll.wait(timeout)
    }

    /// As [`wait`](Self::wait), without waiting: only for events that have happened already.
    pub fn look(&mut self) -> io::Result<()> {
        self.waits += 1;
        self.epoll.wait(Some(Duration::ZERO))
    }

    /// Records the events of the last wait. Returns whether there were any.
    pub fn collect(&mut self) -> bool {
        let Self { epoll, sources, queue, stale, waits, .. } = self;
        let happened = epoll.drain(|token, ready| {
            let Some(source) = sources.get_mut(token) else { return stale.count() };
            if let Kind::Watch(watch) = &mut source.kind
                && watch.is_suspect(*waits)
            {
                stale.suspect(token);
            }
            if source.notice(ready) && !std::mem::replace(&mut source.queued, true) {
                queue.push_back(token);
            }
        });
        if self.stale.is_any() {
            self.deal_with_stale();
        }
        happened
    }

    /// How many sources have something to report.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// The next completion. None does not mean that the queue is empty: a source may have been paused or drained meanwhile.
    pub fn next_completion(&mut self) -> Option<(Token, Completion)> {
        let token = self.queue.pop_front()?;
        let source = self.sources.get_mut(token)?;
        source.queued = false;
        let completion = source.complete(&mut self.buffer, &mut self.spare);
        if let (Kind::Listener(listener), Some(Completion::AcceptFailed(_))) = (&source.kind, &completion)
            && listener.is_shared()
        {
            // It is level-triggered: while it pauses it would end every wait at once.
            if !self.epoll.remove(source.fd) {
                self.stale.certain();
            }
        }
        let owners_turn = matches!(source.kind, Kind::Stream(_))
            && matches!(completion, Some(Completion::Readable | Completion::Large(_)));
        if !owners_turn && source.has_more() && !std::mem::replace(&mut source.queued, true) {
            self.queue.push_back(token);
        }
        Some((token, completion?))
    }

    /// The first `len` bytes of the receive buffer: the data of the last `Received(len)`.
    pub fn received(&self, len: usize) -> &[u8] {
        &self.buffer[..len]
    }

    // ---- orders -------------------------------------------------------------------------------------

    /// Sets what a stream or a datagram socket does with arriving data.
    pub fn set_read_mode(&mut self, token: Token, mode: ReadMode) {
        match self.sources.get_mut(token).map(|source| &mut source.kind) {
            Some(Kind::Stream(stream)) => stream.mode = mode,
            Some(Kind::Datagram(datagram)) => datagram.mode = mode,
            _ => return,
        }
        self.requeue(token);
    }

    /// Reads from a stream that was reported `Readable` or `Large`, into the owner's memory; 0 is the end of the stream.
    ///
    /// # Safety
    /// `ptr` must be valid for writing `len` bytes for the time of the call.
    pub unsafe fn recv_into(&mut self, token: Token, ptr: *mut u8, len: usize) -> io::Result<usize> {
        let Some(Source { fd, kind: Kind::Stream(stream), .. }) = self.sources.get_mut(token) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        // SAFETY: promised by the caller.
        let result = unsafe { stream.receive(*fd, ptr, len) };
        self.requeue(token);
        result
    }

    /// Sends what the kernel takes now. When that is less than all, `Writable` follows.
    pub fn send(&mut self, token: Token, data: &[u8]) -> io::Result<usize> {
        self.with_stream(token, data.len(), |fd, stream| stream.send(fd, data))
    }

    /// As [`send`](Self::send), from several pieces.
    pub fn send_vectored(&mut self, token: Token, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        self.with_stream(token, total, |fd, stream| stream.send_vectored(fd, pieces, total))
    }

    /// The last report of a stream must come again: its end, which every further read finds.
    pub fn report_readable(&mut self, token: Token) {
        if let Some(Source { kind: Kind::Stream(stream), .. }) = self.sources.get_mut(token) {
            stream.report_readable();
            self.requeue(token);
        }
    }

    /// The owner sends on a stream past the driver and has more: `Writable` follows, after the kernel took bytes again if it is
    /// `full`.
    pub fn report_writable(&mut self, token: Token, full: bool) {
        if let Some(Source { kind: Kind::Stream(stream), .. }) = self.sources.get_mut(token) {
            stream.report_writable(full);
            self.requeue(token);
        }
    }

    #[inline]
    fn with_stream(
        &mut self,
        token: Token,
        total: usize,
        call: impl FnOnce(RawFd, &mut Stream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = match self.sources.get_mut(token) {
            Some(Source { fd, kind: Kind::Stream(stream), .. }) => call(*fd, stream)?,
            _ => return Err(io::ErrorKind::NotConnected.into()),
        };
        if sent < total {
            // For a descriptor that the kernel does not report on.
            self.requeue(token);
        }
        Ok(sent)
    }

    /// Sets the events that a descriptor is watched for. An empty interest silences it. Returns its token, which is a new one where
    /// the number is another file by now: events of the former file must not reach it.
    pub fn watch(&mut self, token: Token, interest: Interest) -> io::Result<Token> {
        let Some(Source { fd, kind: Kind::Watch(watch), .. }) = self.sources.get_mut(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let was_silent = watch.is_silent();
        if interest.readable || interest.writable {
            let added = self.epoll.arm(*fd, token, interest, interest.edge && was_silent)?;
            if added && !was_silent {
                return self.renew(token, interest);
            }
        } else if !was_silent {
            self.epoll.remove(*fd);
        }
        watch.set(interest);
        Ok(token)
    }

    /// Accepts again after a failure for lack of descriptors or memory.
    pub fn resume_listener(&mut self, token: Token) -> io::Result<()> {
        if let Some(Source { fd, kind: Kind::Listener(listener), .. }) = self.sources.get_mut(token)
            && listener.resume()
        {
            if listener.is_shared() {
                self.epoll.add_exclusive(*fd, token)?;
            }
            self.requeue(token);
        }
        Ok(())
    }

    fn requeue(&mut self, token: Token) {
        if let Some(source) = self.sources.get_mut(token)
            && source.has_more()
            && !std::mem::replace(&mut source.queued, true)
        {
            self.queue.push_back(token);
        }
    }
}

#[cfg(test)]
mod tests;
