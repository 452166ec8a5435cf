//! Datagram sockets: batches in, batches out.
//!
//! Edge-triggered like streams, but registered for writing only while the kernel refuses: every datagram that leaves the
//! socket's buffer would be an edge.

use std::io;
use std::os::fd::RawFd;

use super::epoll::{Epoll, Ready};
use super::source::{Kind, Source};
use super::{Completion, Driver, ReadMode, Refused, Token};
use crate::sys::datagram::{self, Batch, Name};

/// A datagram socket: reported readiness holds until a call finds otherwise.
pub struct Datagram {
    pub mode: ReadMode,
    readable: bool,
    writable: bool,
    /// The kernel refused a datagram; the owner waits for `Writable`.
    blocked: bool,
    /// Registered for writing.
    armed: bool,
    /// Its datagrams may be larger than those of the Internet protocols.
    wide: bool,
    /// Given back with datagrams in it, to be handed out again.
    returned: Option<Box<Batch>>,
    /// The owner will fetch the batch that was given back.
    held: bool,
}

impl Datagram {
    fn new(wide: bool) -> Self {
        Self {
            mode: ReadMode::Paused,
            readable: false,
            writable: false,
            blocked: false,
            armed: false,
            wide,
            returned: None,
            held: false,
        }
    }

    /// Whether it is registered for writing.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    pub fn notice(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
    }

    pub fn can_write(&self) -> bool {
        self.blocked && self.writable
    }

    pub fn can_read(&self) -> bool {
        self.mode != ReadMode::Paused && !self.held && (self.readable || self.returned.is_some())
    }

    /// Receives a batch, into `spare` if there is one.
    pub fn complete(&mut self, fd: RawFd, spare: &mut Option<Box<Batch>>) -> Option<Completion> {
        if self.can_write() {
            self.blocked = false;
            return Some(Completion::Writable);
        }
        if !self.can_read() {
            return None;
        }
        if let Some(batch) = self.returned.take() {
            return Some(Completion::Datagrams(batch));
        }
        if self.mode == ReadMode::Readiness {
            return Some(Completion::Readable);
        }
        let mut batch = spare.take().unwrap_or_default();
        match batch.receive(fd, self.wide) {
            Ok(more) => {
                self.readable = more;
                return Some(Completion::Datagrams(batch));
            }
            Err(error) => {
                *spare = Some(batch);
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => self.readable = false,
                    // Closed by other code: it would fail forever.
                    Some(libc::EBADF | libc::ENOTSOCK) => {
                        self.readable = false;
                        return Some(Completion::ReadFailed(error));
                    }
                    // The error of a datagram sent before; received datagrams are queued after it.
                    _ => return Some(Completion::ReadFailed(error)),
                }
            }
        }
        None
    }

    /// Records the result of a send; after a refusal the socket waits until it is writable.
    fn sent<R>(
        &mut self,
        fd: RawFd,
        token: Token,
        epoll: &mut Epoll,
        result: io::Result<R>,
    ) -> io::Result<Option<R>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                self.blocked = true;
                self.armed = true;
                // Even when it is armed: that makes the kernel report again. A Unix socket counts as writable though the receiver it
                // refused is full.
                epoll.rearm_edge(fd, token, true)?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

impl<T> Driver<T> {
    /// Registers a non-blocking datagram socket; it starts paused. In [`ReadMode::Bytes`] it reports
    /// [`Completion::Datagrams`].
    pub fn register_datagram(&mut self, fd: RawFd, family: i32, data: T) -> Result<Token, Refused<T>> {
        let datagram = Datagram::new(!matches!(family, libc::AF_INET | libc::AF_INET6));
        self.register(fd, Kind::Datagram(datagram), data, |epoll, token| {
            epoll.register_edge(fd, token, false)
        })
    }

    /// Gives the memory of a [`Completion::Datagrams`] back. What is left in it is handed out again, first of all.
    pub fn give_back(&mut self, token: Token, batch: Box<Batch>) {
        match self.sources.get_mut(token).map(|source| &mut source.kind) {
            Some(Kind::Datagram(datagram)) if !batch.is_empty() => {
                datagram.returned = Some(batch);
                self.requeue(token);
            }
            // Empty, or its source is gone.
            _ => self.spare = Some(batch),
        }
    }

    /// Keeps a batch, and receives no more, until its owner [comes for it](Self::take_held).
    pub fn hold(&mut self, token: Token, batch: Box<Batch>) {
        if let Some(Source { kind: Kind::Datagram(datagram), .. }) = self.sources.get_mut(token) {
            datagram.held = true;
            datagram.returned = Some(batch);
        }
    }

    /// The batch that was held, if its socket is still registered.
    pub fn take_held(&mut self, token: Token) -> Option<Box<Batch>> {
        let Some(Source { kind: Kind::Datagram(datagram), .. }) = self.sources.get_mut(token) else {
            return None;
        };
        datagram.held = false;
        let batch = datagram.returned.take();
        self.requeue(token);
        batch
    }

    /// A socket in [`ReadMode::Readiness`] was read until there was nothing more.
    pub fn drained(&mut self, token: Token) {
        if let Some(Source { kind: Kind::Datagram(datagram), .. }) = self.sources.get_mut(token) {
            datagram.readable = false;
        }
    }

    /// Sends one datagram, to the connected peer or to `to`. None when the kernel does not take it now: `Writable` follows.
    #[inline]
    pub fn send_datagram(&mut self, token: Token, data: &[u8], to: Option<&Name>) -> io::Result<Option<()>> {
        self.with_datagram(token, |fd| datagram::send(fd, data, to))
    }

    /// As [`send_datagram`](Self::send_datagram), for several: how many were sent. An error is that of the first.
    pub fn send_datagrams(
        &mut self,
        token: Token,
        datagrams: &[(&[u8], Option<&Name>)],
    ) -> io::Result<Option<usize>> {
        self.with_datagram(token, |fd| datagram::send_many(fd, datagrams))
    }

    /// A send past the driver was refused: `Writable` follows.
    pub fn await_writable(&mut self, token: Token) -> io::Result<()> {
        self.with_datagram(token, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into())).map(drop)
    }

    /// Nothing waits to be sent any more.
    pub fn rest_writing(&mut self, token: Token) {
        if let Some(Source { fd, kind: Kind::Datagram(datagram), .. }) = self.sources.get_mut(token)
            && std::mem::take(&mut datagram.armed)
        {
            datagram.blocked = false;
            // It can fail only if other code closed the descriptor, and then the user's next call fails.
            let _ = self.epoll.rearm_edge(*fd, token, false);
        }
    }

    #[inline]
    fn with_datagram<R>(
        &mut self,
        token: Token,
        call: impl FnOnce(RawFd) -> io::Result<R>,
    ) -> io::Result<Option<R>> {
        match self.sources.get_mut(token) {
            Some(Source { fd, kind: Kind::Datagram(datagram), .. }) => {
                datagram.sent(*fd, token, &mut self.epoll, call(*fd))
            }
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn pair() -> (UnixDatagram, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().expect("socketpair");
        ours.set_nonblocking(true).expect("non-blocking");
        theirs.set_nonblocking(true).expect("non-blocking");
        (ours, theirs)
    }

    fn register(driver: &mut Driver<()>, socket: &UnixDatagram, mode: ReadMode) -> Token {
        let token = driver.register_datagram(socket.as_raw_fd(), libc::AF_UNIX, ()).expect("register");
        driver.set_read_mode(token, mode);
        token
    }

    fn poll(driver: &mut Driver<()>) -> Vec<(Token, Completion)> {
        driver.look().expect("wait");
        driver.collect();
        (0..driver.pending()).filter_map(|_| driver.next_completion()).collect()
    }

    /// The only completion, which must be a batch.
    fn batch(driver: &mut Driver<()>) -> Box<Batch> {
        match poll(driver).pop() {
            Some((_, Completion::Datagrams(batch))) => batch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_given_back_comes_again_first() {
        let mut driver = Driver::new().unwrap();
        let (ours, theirs) = pair();
        let token = register(&mut driver, &ours, ReadMode::Bytes);
        for data in [b"a", b"b", b"c"] {
            theirs.send(data).unwrap();
        }
        let mut first = batch(&mut driver);
        assert_eq!(first.take().unwrap().0, b"a");
        driver.set_read_mode(token, ReadMode::Paused);
        driver.give_back(token, first);
        theirs.send(b"d").unwrap();
        assert!(poll(&mut driver).is_empty(), "paused");
        driver.set_read_mode(token, ReadMode::Bytes);
        let mut rest = batch(&mut driver);
        assert_eq!(rest.len(), 2);
        assert_eq!(rest.take().unwrap().0, b"b");
        driver.hold(token, rest);
        assert!(poll(&mut driver).is_empty(), "held");
        let mut rest = driver.take_held(token).unwrap();
        assert_eq!(rest.take().unwrap().0, b"c");
        assert!(rest.is_empty());
        driver.give_back(token, rest);
        assert_eq!(batch(&mut driver).take().unwrap().0, b"d");
        assert!(poll(&mut driver).is_empty());
    }

    #[test]
    fn a_datagram_that_leaves_is_no_event() {
        let mut driver = Driver::new().unwrap();
        let (ours, theirs) = pair();
        let token = register(&mut driver, &ours, ReadMode::Bytes);
        for _ in 0..3 {
            assert!(driver.send_datagram(token, b"x", None).unwrap().is_some());
            theirs.recv(&mut [0]).unwrap();
            driver.look().unwrap();
            assert!(!driver.collect());
        }
    }

    #[test]
    fn a_refused_datagram_is_followed_by_writable_and_then_silence() {
        let mut driver = Driver::new().unwrap();
        let (ours, theirs) = pair();
        let token = register(&mut driver, &ours, ReadMode::Bytes);
        let mut sent = 0;
        while driver.send_datagram(token, &[7; 1000], None).unwrap().is_some() {
            sent += 1;
        }
        assert!(poll(&mut driver).is_empty());
        for _ in 0..sent {
            theirs.recv(&mut [0; 1000]).unwrap();
        }
        assert!(matches!(poll(&mut driver)[..], [(t, Completion::Writable)] if t == token));
        assert_eq!(driver.send_datagrams(token, &[(b"a", None), (b"b", None)]).unwrap(), Some(2));
        driver.rest_writing(token);
        theirs.recv(&mut [0; 10]).unwrap();
        theirs.recv(&mut [0; 10]).unwrap();
        poll(&mut driver);
        assert!(driver.send_datagram(token, b"x", None).unwrap().is_some());
        theirs.recv(&mut [0; 10]).unwrap();
        driver.look().unwrap();
        assert!(!driver.collect(), "registered for writing still");
    }

    #[test]
    fn a_busy_socket_does_not_starve_another() {
        let mut driver = Driver::new().unwrap();
        let (busy, busy_peer) = pair();
        let (calm, calm_peer) = pair();
        let busy_token = register(&mut driver, &busy, ReadMode::Bytes);
        let calm_token = register(&mut driver, &calm, ReadMode::Bytes);
        for _ in 0..10 {
            busy_peer.send(b"x").unwrap();
        }
        calm_peer.send(b"x").unwrap();
        driver.look().unwrap();
        driver.collect();
        let mut order = Vec::new();
        while let Some((token, completion)) = driver.next_completion() {
            let Completion::Datagrams(mut batch) = completion else { panic!("{completion:?}") };
            while batch.take().is_some() {}
            driver.give_back(token, batch);
            order.push(token);
        }
        assert_eq!(order, [busy_token, calm_token, busy_token, busy_token]);
    }
}
