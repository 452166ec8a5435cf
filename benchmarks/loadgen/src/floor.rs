//! The floor: an echo server in plain Rust, the least a server on this kernel can spend.
//!
//! Edge-triggered epoll, one receive into one hot buffer, one send straight back. What the kernel does not take
//! waits in the connection's own buffer, and nothing more is read from that connection until it is sent. With
//! `Manner::Once` the server closes a connection after its first echo, as the row for short connections wants it; with
//! `Manner::Http` it answers each request's end with one fixed reply and looks at nothing else in it.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::json;

use crate::cpu;

pub enum Listen {
    /// On loopback; 0 lets the kernel choose the port.
    Port(u16),
    Unix(std::path::PathBuf),
    /// UDP on loopback.
    Datagrams(u16),
}

/// How a server treats received bytes.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Echo,
    Once,
    Http,
}

/// The end of a request without a body, and the reply, which is that of the row `http`.
const HEAD_END: &[u8; 4] = b"\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, World!\n";

const LISTENER: Token = Token(usize::MAX);
const END: Token = Token(usize::MAX - 1);

/// Serves until SIGTERM, SIGINT, the end of stdin or `limit`. Prints where it listens, and at the end its CPU time.
pub fn serve(listen: &Listen, manner: Manner, limit: Duration) -> io::Result<()> {
    let poll = Poll::new()?;
    let end = Arc::new(Waker::new(poll.registry(), END)?);
    cpu::hold_end_signals();
    let (at_signal, at_eof) = (Arc::clone(&end), end);
    thread::spawn(move || {
        cpu::wait_for_end();
        at_signal.wake()
    });
    thread::spawn(move || {
        let _ended_or_broken = io::copy(&mut io::stdin(), &mut io::sink());
        at_eof.wake()
    });
    match listen {
        Listen::Port(port) => {
            let mut listener = TcpListener::bind(([127, 0, 0, 1], *port).into())?;
            poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
            println!("{}", json!({"port": listener.local_addr()?.port(), "pid": std::process::id()}));
            run(poll, manner, limit, || {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
        }
        Listen::Unix(path) => {
            let mut listener = UnixListener::bind(path)?;
            poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
            println!("{}", json!({"unix": path, "pid": std::process::id()}));
            let ended = run(poll, manner, limit, || Ok(listener.accept()?.0));
            std::fs::remove_file(path).ok();
            ended
        }
        Listen::Datagrams(port) => {
            let mut socket = UdpSocket::bind(([127, 0, 0, 1], *port).into())?;
            let interests = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut socket, LISTENER, interests)?;
            println!("{}", json!({"port": socket.local_addr()?.port(), "pid": std::process::id()}));
            echo_datagrams(poll, &socket, limit)
        }
    }
}

/// Echoes datagrams one by one. A datagram that the kernel does not take at once is dropped, as UDP allows.
fn echo_datagrams(mut poll: Poll, socket: &UdpSocket, limit: Duration) -> io::Result<()> {
    let begun = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(16);
    let mut received = 0_u64;
    while begun.elapsed() < limit {
        match poll.poll(&mut events, Some(limit.saturating_sub(begun.elapsed()))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        if events.iter().any(|event| event.token() == END) {
            break;
        }
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((n, from)) => {
                    received += 1;
                    let _sent_or_dropped = socket.send_to(&buffer[..n], from);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A send to a client that has left is refused.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            }
        }
    }
    end(received)
}

/// The operations that the floor needs of a stream.
trait Stream: Read + Write + Source + Into<OwnedFd> {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

struct Connection<S> {
    stream: S,
    unsent: Vec<u8>,
    sent: usize,
    /// How many bytes of `HEAD_END` the last received bytes match.
    ending: usize,
}

fn run<S: Stream>(
    mut poll: Poll,
    manner: Manner,
    limit: Duration,
    mut accept: impl FnMut() -> io::Result<S>,
) -> io::Result<()> {
    let begun = Instant::now();
    let mut connections: Vec<Option<Connection<S>>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut closed: Vec<usize> = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Events::with_capacity(1024);
    let mut requests = 0_u64;
    'serve: while begun.elapsed() < limit {
        match poll.poll(&mut events, Some(limit.saturating_sub(begun.elapsed()))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                END => break 'serve,
                LISTENER => loop {
                    let mut stream = match accept() {
                        Ok(stream) => stream,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                        Err(error) => return Err(error),
                    };
                    let index = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    let interests = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(index), interests)?;
                    connections[index] = Some(Connection { stream, unsent: Vec::new(), sent: 0, ending: 0 });
                },
                Token(index) => {
                    let Some(connection) = &mut connections[index] else {
                        continue;
                    };
                    let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                    match connection.serve(&mut buffer, readable, manner) {
                        Ok(received) => {
                            requests += received;
                            if manner == Manner::Once && received > 0 && connection.unsent.is_empty() {
                                connections[index] = None;
                                closed.push(index);
                            }
                        }
                        Err(_closed_or_broken) => {
                            connections[index] = None;
                            closed.push(index);
                        }
                    }
                }
            }
        }
        // A slot is reused only in the next turn: later events of this turn may still name it.
        free.append(&mut closed);
    }
    end(requests)
}

fn end(receives: u64) -> io::Result<()> {
    println!("{}", json!({"cpu_s": cpu::own().as_secs_f64(), "receives": receives}));
    Ok(())
}

impl<S: Stream> Connection<S> {
    /// Sends waiting bytes, then echoes until the kernel has no more. Returns the number of receives.
    fn serve(&mut self, buffer: &mut [u8], readable: bool, manner: Manner) -> io::Result<u64> {
        let waited = !self.unsent.is_empty();
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        let mut received = 0;
        // There was no read while bytes waited, so an edge may have been missed.
        if !readable && !waited {
            return Ok(0);
        }
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            received += 1;
            let out = match manner {
                Manner::Echo | Manner::Once => Cow::Borrowed(&buffer[..n]),
                Manner::Http => answers(heads(&buffer[..n], &mut self.ending)),
            };
            if out.is_empty() {
                continue;
            }
            let sent = match self.stream.write(&out) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if sent < out.len() {
                self.unsent.extend_from_slice(&out[sent..]);
                break;
            }
            // A short read has drained the socket: later bytes cause a new edge.
            if n < buffer.len() {
                break;
            }
        }
        Ok(received)
    }
}

/// How many requests end within `received`; `ending` keeps the state of an end that comes in pieces.
fn heads(received: &[u8], ending: &mut usize) -> usize {
    let mut found = 0;
    for byte in received {
        *ending = match *ending {
            at if *byte == HEAD_END[at] => at + 1,
            _ => usize::from(*byte == HEAD_END[0]),
        };
        if *ending == HEAD_END.len() {
            *ending = 0;
            found += 1;
        }
    }
    found
}

fn answers(count: usize) -> Cow<'static, [u8]> {
    if count == 1 { Cow::Borrowed(RESPONSE) } else { Cow::Owned(RESPONSE.repeat(count)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_however_they_come() {
        let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\r\n\r\n";
        for size in 1..=requests.len() {
            let mut ending = 0;
            let found: usize = requests.chunks(size).map(|piece| heads(piece, &mut ending)).sum();
            assert_eq!((found, ending), (2, 0), "in pieces of {size}");
        }
    }
}
