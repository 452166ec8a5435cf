//! Socket calls on the data path. None of them blocks: each passes a flag for that, since a non-blocking descriptor may be made
//! blocking at any time, by any holder of it or of a duplicate. EINTR is retried inside.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};

use socket2::{SockAddr, SockAddrStorage, Socket};

use super::detached::{Detached, detached};
use super::{check, retry};

/// Never waits, never raises SIGPIPE.
const SEND: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Receives into `buf`; 0 is the end of the stream.
pub fn recv(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `buf`.
    unsafe { recv_raw(fd, buf.as_mut_ptr(), buf.len()) }
}

/// As [`recv`], into memory that is not a Rust slice (a Python buffer).
///
/// # Safety
/// `ptr` must be valid for writing `len` bytes for the time of the call.
pub unsafe fn recv_raw(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
    // SAFETY: promised by the caller.
    retry(|| check(unsafe { libc::recv(fd, ptr.cast(), len, libc::MSG_DONTWAIT) } as i64))
}

/// How many bytes wait to be received (FIONREAD).
pub fn waiting(fd: RawFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the call fills in an int.
    check(unsafe { libc::ioctl(fd, libc::FIONREAD, &mut count) } as i64)?;
    Ok(count as usize)
}

/// As [`recv_raw`]; also says whether ancillary data was cut off. A Unix stream ends a read at passed
/// descriptors or credentials, so a short read with that mark does not mean that the stream is drained.
///
/// # Safety
/// As for [`recv_raw`].
pub unsafe fn recv_unix(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<(usize, bool)> {
    let mut iov = libc::iovec { iov_base: ptr.cast(), iov_len: len };
    // SAFETY: a zeroed msghdr is valid: no name, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    let n = retry(|| {
        // SAFETY: the message points to `iov`, and that to the caller's memory.
        check(unsafe { libc::recvmsg(fd, &mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) } as i64)
    })?;
    Ok((n, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// Sends what fits; never raises SIGPIPE.
pub fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `data`.
    retry(|| check(unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), SEND) } as i64))
}

/// Sends what fits of several pieces; never raises SIGPIPE.
pub fn send_vectored(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a zeroed msghdr is valid; IoSlice has the layout of iovec; the kernel only reads it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len() as _;
    // SAFETY: as above.
    retry(|| check(unsafe { libc::sendmsg(fd, &message, SEND) } as i64))
}

/// Receives a datagram and where it came from; None where the kernel names no sender (a stream, an unnamed Unix socket).
///
/// # Safety
/// As for [`recv_raw`].
pub unsafe fn recv_from(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<(usize, Option<SockAddr>)> {
    let mut storage = SockAddrStorage::zeroed();
    let mut size = storage.size_of();
    let n = retry(|| {
        size = storage.size_of();
        // SAFETY: the storage is large enough for every address and `size` says how large; the buffer is promised.
        check(unsafe {
            let address: *mut libc::sockaddr_storage = storage.view_as::<libc::sockaddr_storage>();
            libc::recvfrom(fd, ptr.cast(), len, libc::MSG_DONTWAIT, address.cast(), &mut size) as i64
        })
    })?;
    // SAFETY: the kernel filled in an address of that size.
    let sender = (size > 0).then(|| unsafe { SockAddr::new(storage, size) });
    Ok((n, sender))
}

/// Sends a datagram to an address; never raises SIGPIPE.
pub fn send_to(fd: RawFd, data: &[u8], address: &SockAddr) -> io::Result<usize> {
    let (to, size) = (address.as_ptr().cast(), address.len());
    retry(|| {
        // SAFETY: pointers and lengths describe `data` and `address`.
        let sent = unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), SEND, to, size) };
        check(sent as i64)
    })
}

/// Takes a connection off a listening socket, if there is one; the new socket is non-blocking and close-on-exec.
///
/// There is no flag that would keep this call from waiting. So it is made detached, and on a blocking descriptor only where a connection
/// is there; it waits for the next if that goes meanwhile.
///
/// `non_blocking` says that the descriptor was non-blocking a moment ago, and is set where that was found out. A program that changes
/// it in that moment makes the calling thread wait for a connection, and no other thread.
pub fn accept(fd: RawFd, non_blocking: &mut bool) -> io::Result<(Connection, SockAddr)> {
    if !*non_blocking {
        *non_blocking = !super::is_blocking(fd)?;
    }
    if !*non_blocking && !super::is_ready(fd, libc::POLLIN)? {
        // The number may be another descriptor's by now.
        return Err(match borrow(fd).is_listener()? {
            true => io::ErrorKind::WouldBlock.into(),
            false => io::Error::from_raw_os_error(libc::EINVAL),
        });
    }
    detached(|token| accept_blocking(token, fd))
}

fn accept_blocking(_: &Detached, fd: RawFd) -> io::Result<(Connection, SockAddr)> {
    let mut storage = SockAddrStorage::zeroed();
    let mut len = storage.size_of();
    let new = retry(|| {
        len = storage.size_of();
        // SAFETY: the storage is large enough for every address and `len` says how large.
        check(unsafe {
            let address = storage.view_as::<libc::sockaddr_storage>();
            libc::accept4(
                fd,
                (address as *mut libc::sockaddr_storage).cast(),
                &mut len,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        })
    })?;
    // SAFETY: accept4 filled in the address.
    let peer = unsafe { SockAddr::new(storage, len) };
    Ok((Connection(new as RawFd), peer))
}

/// Takes the pending error off the socket (SO_ERROR).
pub fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    borrow(fd).take_error()
}

pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    borrow(fd).shutdown(std::net::Shutdown::Write)
}

pub fn local_address(fd: RawFd) -> io::Result<SockAddr> {
    borrow(fd).local_addr()
}

pub fn peer_address(fd: RawFd) -> io::Result<SockAddr> {
    borrow(fd).peer_addr()
}

pub fn set_nodelay(fd: RawFd) -> io::Result<()> {
    borrow(fd).set_tcp_nodelay(true)
}

/// The socket's address family.
pub fn family(fd: RawFd) -> io::Result<i32> {
    Ok(i32::from(borrow(fd).domain()?))
}

/// The socket's address family, type and protocol.
pub fn kind(fd: RawFd) -> io::Result<(i32, i32, i32)> {
    let socket = borrow(fd);
    let protocol = socket.protocol()?.map_or(0, i32::from);
    Ok((i32::from(socket.domain()?), i32::from(socket.r#type()?), protocol))
}

/// The fewest bytes that make a socket readable (SO_RCVLOWAT).
pub fn low_water_mark(fd: RawFd) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: pointers to a number and its size, valid for the call.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw mut value).cast(), &mut size)
    })?;
    Ok(value)
}

/// Whether `fd` is open in this process.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only looks the descriptor up.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Closes a descriptor that the caller owns. Detached: with SO_LINGER the call waits for the peer, on a non-blocking socket too.
pub fn close(fd: RawFd) {
    detached(|token| close_blocking(token, fd));
}

fn close_blocking(_: &Detached, fd: RawFd) {
    // SAFETY: the caller owns the descriptor and gives it up; errors of close leave it closed on Linux.
    unsafe { libc::close(fd) };
}

/// The descriptor of a connection that was accepted, closed when dropped.
#[derive(Debug)]
pub struct Connection(RawFd);

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl IntoRawFd for Connection {
    fn into_raw_fd(self) -> RawFd {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// A view of a descriptor with another owner; dropping it does not close.
fn borrow(fd: RawFd) -> std::mem::ManuallyDrop<Socket> {
    // SAFETY: only -1 would break the invariant of an owned descriptor, and it is replaced by a number that is never
    // open; ManuallyDrop keeps it from being closed. A descriptor that is not open makes the calls fail with EBADF.
    std::mem::ManuallyDrop::new(unsafe { Socket::from_raw_fd(if fd < 0 { RawFd::MAX } else { fd }) })
}
