//! One thread's share of the UDP sockets: each keeps a number of datagrams under way and checks every echo.
//!
//! A lost datagram is counted and replaced by another; its echo does not count if it still comes. A socket that
//! receives nothing for long, or receives what it never sent, is an error and is not used any more.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::shared::{MEASURE, STOP, Seen, Shared};

/// A datagram without a reply for this long is lost.
const LOST: Duration = Duration::from_millis(200);
/// A socket without any reply for this long is an error.
const SILENT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);
/// Each datagram begins with its number.
pub const MIN_SIZE: usize = 8;

#[derive(Clone, Copy)]
pub struct Plan {
    pub server: SocketAddr,
    pub size: usize,
    /// Datagrams of one socket under way at a time.
    pub under_way: usize,
}

/// The datagrams of one socket that have no reply yet.
struct Flight {
    /// Number and time of sending; `None` is a free place.
    places: Vec<Option<(u64, Instant)>>,
    next: u64,
    bytes: Vec<u8>,
}

impl Flight {
    fn new(plan: &Plan, seed: u64) -> Flight {
        // No two sockets send the same, so that a reply to the wrong one is noticed.
        let bytes = (0..plan.size).map(|i| (i as u64 * 31 + seed * 97) as u8).collect();
        Flight { places: vec![None; plan.under_way], next: 0, bytes }
    }

    /// The next datagram to send, where a place is free.
    fn next(&mut self) -> Option<&[u8]> {
        self.places.iter().any(Option::is_none).then(|| {
            self.bytes[..8].copy_from_slice(&self.next.to_le_bytes());
            &self.bytes[..]
        })
    }

    /// What `next` gave was sent.
    fn sent(&mut self, now: Instant) {
        if let Some(place) = self.places.iter_mut().find(|place| place.is_none()) {
            *place = Some((self.next, now));
            self.next += 1;
        }
    }

    /// When the datagram was sent whose echo this is; Ok(None) for one that was given up.
    fn reply(&mut self, bytes: &[u8]) -> Result<Option<Instant>, String> {
        if bytes.len() != self.bytes.len() {
            return Err(format!("echo of {} bytes where {} were sent", bytes.len(), self.bytes.len()));
        }
        let (number, rest) = bytes.split_first_chunk().expect("a datagram is at least that long");
        let number = u64::from_le_bytes(*number);
        if number >= self.next || *rest != self.bytes[8..] {
            return Err(format!("datagram {number} differs from what was sent"));
        }
        let mine = self.places.iter_mut().find(|place| place.is_some_and(|(sent, _)| sent == number));
        Ok(mine.and_then(Option::take).map(|(_, at)| at))
    }

    /// Gives up datagrams that have waited too long.
    fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        for place in &mut self.places {
            if place.is_some_and(|(_, at)| now.saturating_duration_since(at) > LOST) {
                *place = None;
                lost += 1;
            }
        }
        lost
    }
}

struct Socket {
    /// None after an error.
    udp: Option<UdpSocket>,
    flight: Flight,
    heard: Instant,
    warm: bool,
}

pub struct Worker<'a> {
    /// Replies to wait for; u64::MAX when the window is bounded by time.
    quota: u64,
    shared: &'a Shared,
    poll: Poll,
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
    seen: Seen,
    done: u64,
}

impl<'a> Worker<'a> {
    /// `numbers` number its sockets among all sockets of the run.
    pub fn new(
        plan: &Plan,
        numbers: impl Iterator<Item = usize>,
        quota: u64,
        shared: &'a Shared,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let own = match plan.server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let mut sockets = Vec::new();
        for (index, number) in numbers.enumerate() {
            let mut udp = UdpSocket::bind(own)?;
            // Connected, so that the kernel drops datagrams from other addresses.
            udp.connect(plan.server)?;
            poll.registry().register(&mut udp, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            let flight = Flight::new(plan, number as u64 + 1);
            sockets.push(Socket { udp: Some(udp), flight, heard: Instant::now(), warm: false });
        }
        // One byte more than is sent, so that a longer reply is noticed.
        let buffer = vec![0; plan.size + 1];
        Ok(Worker { quota, shared, poll, sockets, buffer, seen: Seen::default(), done: 0 })
    }

    /// Runs until the coordinator stops it, the quota is reached, or no socket is left.
    pub fn run(mut self) -> Seen {
        for index in 0..self.sockets.len() {
            self.sockets[index].heard = Instant::now();
            self.advance(index);
        }
        let mut events = Events::with_capacity(1024);
        let mut looked = Instant::now();
        while self.done < self.quota
            && self.sockets.iter().any(|socket| socket.udp.is_some())
            && self.shared.phase.load(Ordering::Relaxed) != STOP
        {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.seen.fail(&error.to_string());
                    break;
                }
                Ok(()) => {}
            }
            for event in &events {
                self.advance(event.token().0);
            }
            if looked.elapsed() > TICK {
                looked = Instant::now();
                self.give_up(looked);
            }
        }
        self.shared.finished.fetch_add(1, Ordering::Relaxed);
        self.seen
    }

    /// Receives all that has come and fills the free places.
    fn advance(&mut self, index: usize) {
        let exchanged = self.receive(index).and_then(|()| self.sockets[index].send());
        if let Err(why) = exchanged {
            self.lose(index, &why);
        }
    }

    fn receive(&mut self, index: usize) -> Result<(), String> {
        let socket = &mut self.sockets[index];
        let Some(udp) = &socket.udp else {
            return Ok(());
        };
        loop {
            let n = match udp.recv(&mut self.buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("receive: {error}")),
            };
            let Some(sent) = socket.flight.reply(&self.buffer[..n])? else {
                continue;
            };
            socket.heard = Instant::now();
            if !socket.warm {
                socket.warm = true;
                self.shared.warm.fetch_add(1, Ordering::Relaxed);
            }
            if self.shared.phase.load(Ordering::Relaxed) == MEASURE {
                self.done += 1;
                self.shared.replies.fetch_add(1, Ordering::Relaxed);
                let took = socket.heard.saturating_duration_since(sent);
                self.seen.latency_ns.saturating_record(took.as_nanos() as u64);
            }
        }
    }

    fn give_up(&mut self, now: Instant) {
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            if socket.udp.is_none() {
                continue;
            }
            let lost = socket.flight.expire(now);
            if self.shared.phase.load(Ordering::Relaxed) == MEASURE {
                self.seen.lost += lost;
            }
            if now.saturating_duration_since(socket.heard) > SILENT {
                self.lose(index, &format!("no reply within {} s", SILENT.as_secs()));
            } else if let Err(why) = socket.send() {
                self.lose(index, &why);
            }
        }
    }

    fn lose(&mut self, index: usize, why: &str) {
        let socket = &mut self.sockets[index];
        socket.udp = None;
        if !socket.warm {
            socket.warm = true;
            self.shared.warm.fetch_add(1, Ordering::Relaxed);
        }
        self.seen.fail(why);
    }
}

impl Socket {
    fn send(&mut self) -> Result<(), String> {
        let Some(udp) = &self.udp else {
            return Ok(());
        };
        while let Some(bytes) = self.flight.next() {
            match udp.send(bytes) {
                Ok(_) => self.flight.sent(Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(under_way: usize, seed: u64) -> Flight {
        let server = SocketAddr::from(([127, 0, 0, 1], 9));
        Flight::new(&Plan { server, size: 20, under_way }, seed)
    }

    fn send(flight: &mut Flight, at: Instant) -> Vec<u8> {
        let bytes = flight.next().expect("a free place").to_vec();
        flight.sent(at);
        bytes
    }

    #[test]
    fn replies_come_in_any_order_and_make_room() {
        let (mut flight, now) = (flight(2, 1), Instant::now());
        let (one, two) = (send(&mut flight, now), send(&mut flight, now));
        assert_ne!(one, two);
        assert!(flight.next().is_none());
        assert_eq!(flight.reply(&two), Ok(Some(now)));
        assert_eq!(flight.reply(&one), Ok(Some(now)));
        assert_ne!(send(&mut flight, now), two);
    }

    #[test]
    fn what_is_lost_makes_room_and_may_still_come() {
        let (mut flight, now) = (flight(1, 1), Instant::now());
        let late = send(&mut flight, now);
        assert_eq!(flight.expire(now + LOST), 0);
        assert_eq!(flight.expire(now + LOST * 2), 1);
        let other = send(&mut flight, now + LOST * 2);
        assert_eq!(flight.reply(&late), Ok(None));
        assert_eq!(flight.reply(&other), Ok(Some(now + LOST * 2)));
        assert_eq!(flight.reply(&other), Ok(None), "a second copy counts for nothing");
    }

    /// One socket receives `replies` replies from a server that answers datagram `i` with `answer(i, it)`.
    fn run(replies: u64, answer: impl Fn(u64, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> Seen {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let plan = Plan { server: server.local_addr().expect("bound"), size: 20, under_way: 1 };
        let shared = Shared::default();
        shared.phase.store(MEASURE, Ordering::Relaxed);
        let end = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let served = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            for number in 0.. {
                let (n, from) = server.recv_from(&mut buffer).expect("a socket");
                if n == 0 {
                    return;
                }
                if let Some(reply) = answer(number, &buffer[..n]) {
                    server.send_to(&reply, from).expect("loopback");
                }
            }
        });
        let seen = Worker::new(&plan, 0..1, replies, &shared).expect("sockets").run();
        end.send_to(&[], plan.server).expect("loopback");
        served.join().expect("no panic");
        seen
    }

    #[test]
    fn a_lost_datagram_is_counted_and_the_run_goes_on() {
        let seen = run(5, |number, bytes| (number != 2).then(|| bytes.to_vec()));
        assert_eq!((seen.latency_ns.len(), seen.lost, seen.errors), (5, 1, 0), "{:?}", seen.first_error);
    }

    #[test]
    fn a_wrong_echo_ends_the_socket() {
        let seen = run(5, |number, bytes| Some(bytes[usize::from(number == 2)..].to_vec()));
        assert_eq!((seen.latency_ns.len(), seen.errors), (2, 1));
        assert_eq!(seen.first_error.as_deref(), Some("echo of 19 bytes where 20 were sent"));
    }

    #[test]
    fn what_was_never_sent_is_refused() {
        let (mut one, mut other, now) = (flight(2, 1), flight(2, 2), Instant::now());
        let sent = send(&mut one, now);
        let foreign = send(&mut other, now);
        assert!(one.reply(&foreign).is_err());
        assert!(one.reply(&sent[..19]).is_err());
        let mut ahead = sent.clone();
        ahead[0] += 1;
        assert!(one.reply(&ahead).is_err());
        assert_eq!(one.reply(&sent), Ok(Some(now)));
    }
}
