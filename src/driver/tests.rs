use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::sys::detached::detached;

mod large;
mod stale;

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    ours.set_nonblocking(true).expect("non-blocking");
    (ours, theirs)
}

/// The second one's number becomes the first one's file, in one step: other tests make descriptors too.
fn put_in_place_of(file: &UnixStream, number: &UnixStream) {
    // SAFETY: two open descriptors, both the test's.
    let result = unsafe { libc::dup2(file.as_raw_fd(), number.as_raw_fd()) };
    assert_eq!(result, number.as_raw_fd());
}

fn stream(driver: &mut Driver<&'static str>, socket: &UnixStream, mode: ReadMode) -> Token {
    let token = driver.register_stream(socket.as_raw_fd(), libc::AF_UNIX, "data").expect("register");
    driver.set_read_mode(token, mode);
    token
}

fn poll(driver: &mut Driver<&'static str>) -> Vec<(Token, Completion)> {
    driver.look().expect("wait");
    driver.collect();
    let mut seen = Vec::new();
    for _ in 0..driver.pending() {
        seen.extend(driver.next_completion());
    }
    seen
}

#[test]
fn bytes_are_received_once_and_the_end_is_seen() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = stream(&mut driver, &ours, ReadMode::Bytes);
    assert!(poll(&mut driver).is_empty());
    theirs.write_all(b"hello").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Received(5))] if t == token));
    assert_eq!(driver.received(5), b"hello");
    assert!(poll(&mut driver).is_empty());
    theirs.write_all(b"x").unwrap();
    drop(theirs);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(poll(&mut driver).into_iter().map(|(_, completion)| match completion {
            Completion::Received(n) => n,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(seen, [1, 0]);
}

#[test]
fn a_paused_stream_reports_what_came_meanwhile_when_it_resumes() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = stream(&mut driver, &ours, ReadMode::Paused);
    theirs.write_all(b"early").unwrap();
    assert!(poll(&mut driver).is_empty());
    driver.set_read_mode(token, ReadMode::Bytes);
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Received(5))]));
}

#[test]
fn a_full_socket_reports_writable_once_there_is_room() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = stream(&mut driver, &ours, ReadMode::Paused);
    poll(&mut driver);
    let chunk = vec![0; 65536];
    let mut queued = 0;
    loop {
        let sent = driver.send(token, &chunk).unwrap();
        queued += sent;
        if sent < chunk.len() {
            break;
        }
    }
    assert!(poll(&mut driver).is_empty());
    let mut sink = vec![0; queued];
    theirs.read_exact(&mut sink).unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Writable)]));
    assert!(poll(&mut driver).is_empty());
}

#[test]
fn a_reused_descriptor_does_not_get_its_predecessors_events() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let old = stream(&mut driver, &ours, ReadMode::Bytes);
    theirs.write_all(b"for the old one").unwrap();
    driver.look().unwrap();
    assert_eq!(driver.deregister(old), Some("data"));
    let new = stream(&mut driver, &ours, ReadMode::Paused);
    assert_ne!(old, new);
    driver.collect();
    assert!(driver.next_completion().is_none());
    assert_eq!(driver.data(old), None);
}

#[test]
fn a_level_watch_repeats_and_a_oneshot_does_not() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    theirs.write_all(b"x").unwrap();
    driver.watch(token, Interest { readable: true, ..Interest::default() }).unwrap();
    for _ in 0..3 {
        assert!(matches!(
            poll(&mut driver)[..],
            [(_, Completion::Polled { readable: true, writable: false, .. })]
        ));
    }
    driver.watch(token, Interest { readable: true, writable: true, oneshot: true, edge: false }).unwrap();
    assert!(matches!(
        poll(&mut driver)[..],
        [(_, Completion::Polled { readable: true, writable: true, .. })]
    ));
    assert!(poll(&mut driver).is_empty());
    driver.watch(token, Interest { readable: true, oneshot: true, ..Interest::default() }).unwrap();
    assert!(matches!(
        poll(&mut driver)[..],
        [(_, Completion::Polled { readable: true, writable: false, .. })]
    ));
}

#[test]
fn a_oneshot_watch_leaves_the_descriptor_free_for_a_stream() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, Interest { writable: true, oneshot: true, ..Interest::default() }).unwrap();
    assert_eq!(poll(&mut driver).len(), 1);
    driver.deregister(token);
    stream(&mut driver, &ours, ReadMode::Bytes);
    theirs.write_all(b"abc").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Received(3))]));
}

const EDGES: Interest = Interest { readable: true, writable: false, oneshot: false, edge: true };

#[test]
fn an_edge_watch_reports_each_arrival_once_and_stays() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"early").unwrap();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, EDGES).unwrap();
    for _ in 0..3 {
        let seen = poll(&mut driver);
        let [(t, Completion::Polled { readable: true, writable: false, more: false })] = seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(t, token);
        assert!(poll(&mut driver).is_empty(), "nothing new came");
        theirs.write_all(b"x").unwrap();
    }
    assert_eq!(poll(&mut driver).len(), 1);
    drop(theirs);
    let seen = poll(&mut driver);
    assert!(matches!(seen[..], [(_, Completion::Polled { readable: true, more: true, .. })]), "{seen:?}");
}

#[test]
fn an_edge_watch_that_is_widened_reports_what_is_ready() {
    let mut driver = Driver::new().unwrap();
    let (ours, _theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, EDGES).unwrap();
    assert!(poll(&mut driver).is_empty());
    driver.watch(token, Interest { writable: true, ..EDGES }).unwrap();
    let seen = poll(&mut driver);
    assert!(
        matches!(seen[..], [(_, Completion::Polled { readable: false, writable: true, .. })]),
        "{seen:?}"
    );
    assert!(poll(&mut driver).is_empty());
}

#[test]
fn an_edge_that_is_past_is_not_reported_once_levels_are_watched() {
    let mut driver = Driver::new().unwrap();
    let (mut ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, EDGES).unwrap();
    theirs.write_all(b"x").unwrap();
    driver.look().unwrap();
    driver.collect();
    ours.read_exact(&mut [0]).unwrap();
    driver.watch(token, Interest { edge: false, ..EDGES }).unwrap();
    assert!(driver.next_completion().is_none());
    assert!(poll(&mut driver).is_empty());
    theirs.write_all(b"x").unwrap();
    assert_eq!((poll(&mut driver).len(), poll(&mut driver).len()), (1, 1));
}

#[test]
fn an_edge_watch_leaves_the_descriptor_free_for_a_stream_and_for_the_next_owner_of_its_number() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, EDGES).unwrap();
    let stream = stream(&mut driver, &ours, ReadMode::Bytes);
    theirs.write_all(b"abc").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Received(3))] if t == stream));
    assert_eq!(driver.deregister(token), Some("watch"));
    theirs.write_all(b"abc").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Received(3))] if t == stream));
    driver.deregister(stream);

    let old = driver.register_watch(ours.as_raw_fd(), "old");
    driver.watch(old, EDGES).unwrap();
    let (next, mut far) = pair();
    // SAFETY: two open descriptors; the second becomes the first's file, as when it is closed and its number used again.
    assert!(unsafe { libc::dup2(next.as_raw_fd(), ours.as_raw_fd()) } >= 0);
    assert_eq!(driver.abandon(old), Some("old"));
    let new = driver.register_watch(ours.as_raw_fd(), "new");
    driver.watch(new, EDGES).unwrap();
    far.write_all(b"x").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Polled { readable: true, .. })] if t == new));
}

#[test]
fn useless_watches_are_swept_when_there_are_many() {
    let mut driver = Driver::new().unwrap();
    let mut pairs = Vec::new();
    let (kept, mut theirs) = pair();
    let lasting = driver.register_watch(kept.as_raw_fd(), "lasting");
    driver.watch(lasting, EDGES).unwrap();
    let mut swept = 0;
    for _ in 0..500 {
        let (ours, far) = pair();
        let token = driver.register_watch(ours.as_raw_fd(), "useless");
        driver.watch(token, EDGES).unwrap();
        swept += driver.sweep(|&data, current| current && data == "useless").len();
        assert!(driver.len() <= 70, "{}", driver.len());
        pairs.push((ours, far));
    }
    assert!(swept > 400);
    theirs.write_all(b"x").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Polled { .. })] if t == lasting));
}

#[test]
fn one_busy_stream_does_not_starve_another() {
    let mut driver = Driver::new().unwrap();
    let (busy, mut busy_peer) = pair();
    let (calm, mut calm_peer) = pair();
    let busy_token = stream(&mut driver, &busy, ReadMode::Readiness);
    let calm_token = stream(&mut driver, &calm, ReadMode::Bytes);
    busy_peer.write_all(&[0; 1000]).unwrap();
    calm_peer.write_all(b"x").unwrap();
    driver.look().unwrap();
    driver.collect();
    let mut order = Vec::new();
    for _ in 0..4 {
        if let Some((token, _)) = driver.next_completion() {
            order.push(token);
            if token == busy_token {
                let mut byte = 0;
                // SAFETY: one byte of memory.
                unsafe { driver.recv_into(token, &mut byte, 1) }.unwrap();
            }
        }
    }
    assert_eq!(order, [busy_token, calm_token, busy_token, busy_token]);
}

#[test]
fn accepts_and_wakes() {
    let mut driver = Driver::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    driver.register_listener(listener.as_raw_fd(), "listener").unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let mut peers = Vec::new();
    for _ in 0..4 {
        for (_, completion) in poll(&mut driver) {
            match completion {
                Completion::Accepted(_, peer) => peers.push(peer.as_socket().unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
    let expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    assert_eq!(peers, expected);

    let waker = driver.waker();
    std::thread::spawn(move || waker.wake());
    detached(|token| driver.wait(token, None)).unwrap();
    assert!(driver.collect());
}

/// Both ends of a pipe, non-blocking.
#[test]
fn a_shared_listener_leaves_the_rest_of_the_queue_to_the_next_wait_and_to_others() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let duplicate = listener.try_clone().unwrap();
    let (mut one, mut other) = (Driver::new().unwrap(), Driver::new().unwrap());
    one.register_shared_listener(listener.as_raw_fd(), "one").unwrap();
    other.register_shared_listener(duplicate.as_raw_fd(), "other").unwrap();
    let address = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let accepted = |driver: &mut Driver<&'static str>| {
        let seen = poll(driver);
        assert!(
            seen.iter().all(|(_, completion)| matches!(completion, Completion::Accepted(..))),
            "{seen:?}"
        );
        seen.len()
    };
    // No instance sleeps, so each gets a report; the level is reported until the queue is empty.
    assert_eq!([accepted(&mut one), accepted(&mut one), accepted(&mut other)], [1, 1, 1]);
    assert_eq!([accepted(&mut one), accepted(&mut other)], [0, 0]);
}

fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (read, write) = std::io::pipe().expect("pipe");
    sys::pipe::set_nonblocking(read.as_raw_fd()).expect("non-blocking");
    sys::pipe::set_nonblocking(write.as_raw_fd()).expect("non-blocking");
    (read, write)
}

#[test]
fn a_pipe_is_read_to_its_end() {
    let mut driver = Driver::new().unwrap();
    let (read, mut write) = pipe();
    let token = driver.register_pipe(read.as_raw_fd(), "read").unwrap();
    driver.set_read_mode(token, ReadMode::Bytes);
    write.write_all(b"hello").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Received(5))] if t == token));
    drop(write);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(poll(&mut driver));
    }
    assert!(matches!(seen[0], (_, Completion::Received(0))));
}

#[test]
fn a_full_pipe_reports_when_it_takes_more_and_when_nobody_reads() {
    let mut driver = Driver::new().unwrap();
    let (mut read, write) = pipe();
    let token = driver.register_pipe(write.as_raw_fd(), "write").unwrap();
    driver.set_read_mode(token, ReadMode::Readiness);
    let data = vec![1; 1 << 20];
    let sent = driver.send(token, &data).unwrap();
    assert!(sent < data.len());
    poll(&mut driver);
    assert!(poll(&mut driver).is_empty());
    read.read_exact(&mut vec![0; sent]).unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Writable)]));
    drop(read);
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Readable)]));
}

#[test]
fn a_descriptor_that_another_source_has_gets_a_number_of_its_own() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let reading = driver.register_pipe(ours.as_raw_fd(), "reads").unwrap();
    let writing = driver.register_pipe(ours.as_raw_fd(), "writes").unwrap();
    driver.set_read_mode(reading, ReadMode::Bytes);
    assert_eq!(driver.send(writing, b"out").unwrap(), 3);
    theirs.write_all(b"in").unwrap();
    let seen = poll(&mut driver);
    assert!(matches!(seen[..], [(t, Completion::Received(2))] if t == reading));
    assert_eq!(driver.deregister(writing), Some("writes"));
    theirs.write_all(b"more").unwrap();
    let seen = poll(&mut driver);
    assert!(seen.iter().any(|(_, completion)| matches!(completion, Completion::Received(4))), "{seen:?}");
}

#[test]
fn a_descriptor_that_epoll_refuses_is_always_ready_and_starves_nobody() {
    let mut driver = Driver::new().unwrap();
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let endless = driver.register_pipe(zero.as_raw_fd(), "zero").unwrap();
    driver.set_read_mode(endless, ReadMode::Bytes);
    let (ours, mut theirs) = pair();
    let calm = stream(&mut driver, &ours, ReadMode::Bytes);
    theirs.write_all(b"x").unwrap();
    let tokens: Vec<_> = (0..3).flat_map(|_| poll(&mut driver)).map(|(token, _)| token).collect();
    assert!(tokens.contains(&calm) && tokens.iter().filter(|&&token| token == endless).count() == 3);
    driver.set_read_mode(endless, ReadMode::Paused);
    poll(&mut driver);
    assert_eq!(driver.pending(), 0);
}
