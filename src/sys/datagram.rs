//! Datagrams, several with one system call. No call blocks, whatever the descriptor is set to; EINTR is retried inside.

use std::io;
use std::os::fd::RawFd;

use socket2::{SockAddr, SockAddrStorage};

use super::check;

/// Room for the largest datagram of the Internet protocols, and the odd bytes that keep the beginnings of neighbouring
/// slots out of the same cache sets: most datagrams are short.
const SLOT: usize = 64 * 1024 + 17 * 64;

/// Room for a datagram of other families, which may be larger (Unix: as large as the sender's buffer); asyncio's limit.
const WIDE_SLOT: usize = 4 * SLOT;

/// How many datagrams one call takes. Pages that no datagram reached are never touched, so short ones stay within a
/// core's L2 cache.
const SLOTS: usize = 16;

/// The most datagrams given to one call of [`send_many`].
pub const MAX_SEND: usize = 32;

/// A socket address as the kernel writes it.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; Name::ROOM],
}

impl Name {
    /// The longest address that is kept: a Unix one.
    const ROOM: usize = size_of::<libc::sockaddr_un>();

    /// None for an address that is longer than any of the families known here.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut name = Self { len: bytes.len() as u8, bytes: [0; Self::ROOM] };
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(name)
    }

    pub fn from_address(address: &SockAddr) -> Option<Self> {
        // SAFETY: an address has `len` initialised bytes.
        Self::new(unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.len() as usize) })
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub fn to_address(self) -> SockAddr {
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the storage is larger than any name; it may hold whatever the kernel wrote.
        unsafe {
            let to =
                (storage.view_as::<libc::sockaddr_storage>() as *mut libc::sockaddr_storage).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.bytes.as_ptr(), to, usize::from(self.len));
            SockAddr::new(storage, libc::socklen_t::from(self.len))
        }
    }
}

/// Memory for the datagrams of one receive call, and those that have not been taken out yet.
pub struct Batch {
    memory: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    pieces: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    slots: usize,
    /// Filled by the last call.
    count: usize,
    /// Taken out.
    next: usize,
}

// SAFETY: the pointers inside lead to the batch's own heap memory.
unsafe impl Send for Batch {}

impl Batch {
    pub fn new() -> Self {
        // SAFETY: zeroed is valid for these plain C structs: null pointers and no lengths.
        let (names, pieces, headers) = unsafe {
            (
                vec![std::mem::zeroed::<libc::sockaddr_storage>(); SLOTS].into_boxed_slice(),
                vec![std::mem::zeroed::<libc::iovec>(); SLOTS].into_boxed_slice(),
                vec![std::mem::zeroed::<libc::mmsghdr>(); SLOTS].into_boxed_slice(),
            )
        };
        // Zeroed memory of this size comes from the kernel page by page, when it is first written to.
        let memory = vec![0; SLOTS * SLOT].into_boxed_slice();
        Self { memory, names, pieces, headers, slots: 0, count: 0, next: 0 }
    }

    /// Divides the memory; discards received datagrams.
    fn lay_out(&mut self, slots: usize) {
        let size = self.memory.len() / slots;
        let start = self.memory.as_mut_ptr();
        for slot in 0..slots {
            // SAFETY: `slots` pieces of `size` bytes lie within the memory.
            let base = unsafe { start.add(slot * size) };
            self.pieces[slot] = libc::iovec { iov_base: base.cast(), iov_len: size };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.pieces[slot];
            header.msg_iovlen = 1;
        }
        self.slots = slots;
        self.count = 0;
    }

    /// Receives all that has come, up to the number of slots; `wide` for families whose datagrams may pass 64 KiB. False when
    /// that was all of it.
    pub fn receive(&mut self, fd: RawFd, wide: bool) -> io::Result<bool> {
        let slots = if wide { SLOTS * SLOT / WIDE_SLOT } else { SLOTS };
        if slots != self.slots {
            self.lay_out(slots);
        }
        for header in &mut self.headers[..self.count] {
            // The call before wrote how long each name was.
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        (self.count, self.next) = (0, 0);
        self.count = super::retry(|| {
            // SAFETY: each of `slots` headers points to its name and its piece, and that to memory of its length, all of
            // which live in boxes of this batch; no timeout is given.
            check(unsafe {
                libc::recvmmsg(
                    fd,
                    self.headers.as_mut_ptr(),
                    slots as libc::c_uint,
                    (libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) as _,
                    std::ptr::null_mut(),
                )
            })
        })?;
        Ok(self.count == slots)
    }

    /// How many are left to be taken out.
    pub fn len(&self) -> usize {
        self.count - self.next
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next datagram out: its content, and the address of its sender as the kernel writes it.
    #[inline]
    pub fn take(&mut self) -> Option<(&[u8], &[u8])> {
        if self.next == self.count {
            return None;
        }
        let slot = self.next;
        self.next += 1;
        let header = &self.headers[slot];
        let len = (header.msg_len as usize).min(self.pieces[slot].iov_len);
        let name_len = (header.msg_hdr.msg_namelen as usize).min(size_of::<libc::sockaddr_storage>());
        // SAFETY: the kernel has filled in so many bytes of this slot's piece and name.
        unsafe {
            Some((
                std::slice::from_raw_parts(self.pieces[slot].iov_base.cast::<u8>(), len),
                std::slice::from_raw_parts((&raw const self.names[slot]).cast::<u8>(), name_len),
            ))
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Sends one datagram, to the connected peer or to `to`; never raises SIGPIPE.
#[inline]
pub fn send(fd: RawFd, data: &[u8], to: Option<&Name>) -> io::Result<()> {
    let (name, name_len) = to.map_or((std::ptr::null(), 0), |to| (to.bytes.as_ptr(), to.len));
    super::retry(|| {
        // SAFETY: both pointers are valid for their lengths; a null name has none.
        check(unsafe {
            libc::sendto(
                fd,
                data.as_ptr().cast(),
                data.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                name.cast(),
                libc::socklen_t::from(name_len),
            )
        } as i64)
    })
    .map(drop)
}

/// Sends up to [`MAX_SEND`] datagrams in order; how many the kernel took. An error is that of the first one.
pub fn send_many(fd: RawFd, datagrams: &[(&[u8], Option<&Name>)]) -> io::Result<usize> {
    let count = datagrams.len().min(MAX_SEND);
    // SAFETY: zeroed is valid for these plain C structs.
    let (mut pieces, mut headers): ([libc::iovec; MAX_SEND], [libc::mmsghdr; MAX_SEND]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    for ((header, piece), (data, to)) in headers.iter_mut().zip(&mut pieces).zip(datagrams) {
        // The kernel only reads.
        *piece = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let header = &mut header.msg_hdr;
        header.msg_iov = piece;
        header.msg_iovlen = 1;
        if let Some(to) = to {
            header.msg_name = to.bytes.as_ptr().cast_mut().cast();
            header.msg_namelen = libc::socklen_t::from(to.len);
        }
    }
    super::retry(|| {
        // SAFETY: `count` headers point to names and pieces that live until the call is over.
        check(unsafe {
            libc::sendmmsg(
                fd,
                headers.as_mut_ptr(),
                count as libc::c_uint,
                (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as _,
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn udp() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn name_of(socket: &UdpSocket) -> Name {
        Name::from_address(&socket.local_addr().unwrap().into()).unwrap()
    }

    #[test]
    fn a_batch_has_every_datagram_with_its_sender() {
        let (ours, first, second) = (udp(), udp(), udp());
        let to = name_of(&ours);
        let large = vec![7; 65507];
        send_many(first.as_raw_fd(), &[(b"one", Some(&to)), (b"", Some(&to)), (&large, Some(&to))]).unwrap();
        send(second.as_raw_fd(), b"four", Some(&to)).unwrap();
        let mut batch = Batch::new();
        assert!(!batch.receive(ours.as_raw_fd(), false).unwrap());
        assert_eq!(batch.len(), 4);
        for (data, from) in [(&b"one"[..], &first), (b"", &first), (&large, &first), (b"four", &second)] {
            let (got, sender) = batch.take().unwrap();
            assert_eq!(got, data);
            assert_eq!(sender, name_of(from).as_bytes());
            let address = Name::new(sender).unwrap().to_address();
            assert_eq!(address.as_socket(), from.local_addr().ok());
        }
        assert!(batch.take().is_none() && batch.is_empty());
        let error = batch.receive(ours.as_raw_fd(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_full_batch_says_that_there_may_be_more() {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut batch = Batch::new();
        for round in 0..2 {
            for number in 0..5 {
                far.send(&[number]).unwrap();
            }
            let mut got = Vec::new();
            while batch.receive(near.as_raw_fd(), true).is_ok_and(|more| more || !batch.is_empty()) {
                while let Some((data, from)) = batch.take() {
                    assert_eq!(from, b"", "an unnamed sender has no address");
                    got.extend_from_slice(data);
                }
            }
            assert_eq!(got, [0, 1, 2, 3, 4], "round {round}");
        }
        // From few wide slots to many and back.
        let (ours, theirs) = (udp(), udp());
        for _ in 0..SLOTS + 1 {
            send(theirs.as_raw_fd(), b"x", Some(&name_of(&ours))).unwrap();
        }
        assert!(batch.receive(ours.as_raw_fd(), false).unwrap());
        assert_eq!(batch.len(), SLOTS);
        assert!(!batch.receive(ours.as_raw_fd(), false).unwrap());
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_wide_slot_takes_more_than_64_kib() {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let large = vec![3; 150_000];
        far.send(&large).unwrap();
        let mut batch = Batch::new();
        batch.receive(near.as_raw_fd(), true).unwrap();
        assert_eq!(batch.take().unwrap().0, large);
    }

    #[test]
    fn the_error_of_the_first_datagram_is_told_those_before_an_error_are_sent() {
        let (ours, theirs) = (udp(), udp());
        let to = name_of(&ours);
        let too_large = vec![0; 65508];
        let fd = theirs.as_raw_fd();
        assert_eq!(
            send_many(fd, &[(b"a", Some(&to)), (&too_large, Some(&to)), (b"b", Some(&to))]).unwrap(),
            1
        );
        let error = send_many(fd, &[(&too_large, Some(&to)), (b"b", Some(&to))]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn names_longer_than_any_known_family_are_refused() {
        assert!(Name::new(&[0; Name::ROOM]).is_some());
        assert!(Name::new(&[0; Name::ROOM + 1]).is_none());
    }
}
