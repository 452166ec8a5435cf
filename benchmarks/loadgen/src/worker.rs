//! One thread's share of the connections, driven by epoll (edge-triggered, through mio).
//!
//! A connection has at most one request under way. It is dropped at its first wrong reply; the run goes on
//! with the others, and the error is counted.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::exchange::Exchange;
use crate::shared::{MEASURE, STOP, Seen, Shared};
use crate::target::{Stream, Target};

/// What a connection does after a reply.
#[derive(Clone, Copy, PartialEq)]
pub enum After {
    Keep,
    /// Closes and connects again.
    Close,
    /// Waits for the server to close, then connects again.
    AwaitClose,
}

struct Connection {
    stream: Option<Stream>,
    connected: bool,
    exchange: Box<dyn Exchange>,
    sent: usize,
    replied: bool,
    started: Instant,
    warm: bool,
}

/// Why a step of a connection ended.
enum Step {
    /// It waits for the kernel.
    Waits,
    /// The reply is whole (and the server has closed, where the connection waits for that).
    Done,
}

pub struct Worker<'a> {
    pub target: &'a Target,
    pub after: After,
    /// Requests to make; u64::MAX when the window is bounded by time.
    pub quota: u64,
    pub shared: &'a Shared,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    seen: Seen,
    begun: u64,
    live: usize,
    done: u64,
}

/// A reply that takes longer than this is an error.
const STALL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);

impl<'a> Worker<'a> {
    pub fn new(
        target: &'a Target,
        after: After,
        quota: u64,
        shared: &'a Shared,
        exchanges: Vec<Box<dyn Exchange>>,
    ) -> io::Result<Worker<'a>> {
        let now = Instant::now();
        let connections = exchanges
            .into_iter()
            .map(|exchange| Connection {
                stream: None,
                connected: false,
                exchange,
                sent: 0,
                replied: false,
                started: now,
                warm: false,
            })
            .collect();
        Ok(Worker {
            target,
            after,
            quota,
            shared,
            poll: Poll::new()?,
            connections,
            buffer: vec![0; 256 * 1024],
            seen: Seen::default(),
            begun: 0,
            live: 0,
            done: 0,
        })
    }

    /// Runs until the coordinator stops it, the quota is reached, or no connection is left.
    pub fn run(mut self) -> Seen {
        for index in 0..self.connections.len() {
            self.live += 1;
            self.begin(index);
        }
        let mut events = Events::with_capacity(1024);
        let mut looked = Instant::now();
        while self.live > 0 && self.shared.phase.load(Ordering::Relaxed) != STOP {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.seen.fail(&error.to_string());
                    break;
                }
                Ok(()) => {}
            }
            for event in &events {
                self.advance(
                    event.token().0,
                    event.is_readable() || event.is_read_closed() || event.is_error(),
                );
            }
            if looked.elapsed() > TICK * 10 {
                looked = Instant::now();
                self.drop_stalled();
            }
        }
        self.shared.finished.fetch_add(1, Ordering::Relaxed);
        self.seen
    }

    /// Starts the next request of a connection, connecting first where it is not connected.
    fn begin(&mut self, index: usize) {
        if self.begun == self.quota {
            self.connections[index].stream = None;
            self.live -= 1;
            return;
        }
        self.begun += 1;
        let connection = &mut self.connections[index];
        connection.started = Instant::now();
        connection.exchange.next();
        connection.sent = 0;
        connection.replied = false;
        if connection.stream.is_none() {
            connection.connected = false;
            let opened = self.target.connect().and_then(|mut stream| {
                let interests = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(index), interests)?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => connection.stream = Some(stream),
                // The first event of a stream means that it is connected, so there is nothing to write yet.
                Err(error) => self.lose(index, &format!("connect: {error}")),
            }
        } else if let Err(error) = connection.write() {
            self.lose(index, &error);
        }
    }

    fn advance(&mut self, index: usize, readable: bool) {
        let connection = &mut self.connections[index];
        match connection.step(&mut self.buffer, readable, self.after) {
            Ok(Step::Waits) => {}
            Ok(Step::Done) => {
                self.count(index);
                if self.after != After::Keep {
                    self.connections[index].stream = None;
                }
                self.begin(index);
            }
            Err(error) => self.lose(index, &error),
        }
    }

    fn count(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !connection.warm {
            connection.warm = true;
            self.shared.warm.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.phase.load(Ordering::Relaxed) == MEASURE {
            self.done += 1;
            self.shared.replies.fetch_add(1, Ordering::Relaxed);
            self.seen.latency_ns.saturating_record(connection.started.elapsed().as_nanos() as u64);
        }
    }

    fn lose(&mut self, index: usize, why: &str) {
        let connection = &mut self.connections[index];
        connection.stream = None;
        self.live -= 1;
        if !connection.warm {
            connection.warm = true;
            self.shared.warm.fetch_add(1, Ordering::Relaxed);
        }
        self.seen.fail(why);
    }

    fn drop_stalled(&mut self) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.stream.is_some() && connection.started.elapsed() > STALL {
                self.lose(index, &format!("no whole reply within {} s", STALL.as_secs()));
            }
        }
    }
}

impl Connection {
    fn step(&mut self, buffer: &mut [u8], readable: bool, after: After) -> Result<Step, String> {
        let Some(stream) = &mut self.stream else {
            return Ok(Step::Waits);
        };
        if !self.connected {
            if !stream.connected().map_err(|error| format!("connect: {error}"))? {
                return Ok(Step::Waits);
            }
            self.connected = true;
        }
        self.write()?;
        if !readable {
            return Ok(Step::Waits);
        }
        loop {
            let stream = self.stream.as_mut().expect("checked above");
            match stream.read(buffer) {
                Ok(0) if self.replied => return Ok(Step::Done),
                Ok(0) => return Err("closed by the server before the reply was whole".into()),
                Ok(_) if self.replied => return Err("bytes after the reply".into()),
                Ok(n) => {
                    if self.exchange.reply(&buffer[..n])? {
                        if self.sent < self.exchange.request().len() {
                            return Err("reply before the whole request was sent".into());
                        }
                        self.replied = true;
                        if after != After::AwaitClose {
                            return Ok(Step::Done);
                        }
                        // The end of the stream may have come with it, so read until the kernel has no more.
                        continue;
                    }
                    self.write()?;
                    // A short read has drained the socket: later bytes cause a new edge.
                    if n < buffer.len() {
                        return Ok(Step::Waits);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }

    fn write(&mut self) -> Result<(), String> {
        let stream = self.stream.as_mut().ok_or("no stream")?;
        let request = self.exchange.request();
        loop {
            // Even when all of it is written, TLS may still hold some of it.
            let rest = &request[self.sent..];
            let wrote = if rest.is_empty() { stream.flush().map(|()| 0) } else { stream.write(rest) };
            match wrote {
                Ok(_) if rest.is_empty() => return Ok(()),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("write: {error}")),
            }
        }
    }
}
