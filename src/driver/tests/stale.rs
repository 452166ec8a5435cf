//! Numbers that are closed while their files live on.

use std::os::fd::OwnedFd;

use super::*;

const LEVEL: Interest = Interest { readable: true, writable: false, oneshot: false, edge: false };

/// Whether a wait with timeout 0 sees any event.
fn sees(driver: &mut Driver<&'static str>) -> bool {
    driver.look().expect("wait");
    let seen = driver.collect();
    for _ in 0..driver.pending() {
        driver.next_completion();
    }
    seen
}

/// After so many waits at most nothing is reported any more.
fn falls_silent(driver: &mut Driver<&'static str>, most: usize) -> bool {
    (0..most).any(|_| !sees(driver))
}

/// Closes a socket without telling the driver; its file lives on.
fn close_but_keep(socket: UnixStream) -> OwnedFd {
    let other = socket.try_clone().expect("dup").into();
    drop(socket);
    other
}

#[test]
fn a_watch_that_was_taken_away_after_its_number_was_closed() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, LEVEL).unwrap();
    theirs.write_all(b"x").unwrap();
    let _file = close_but_keep(ours);
    driver.deregister(token);
    assert!(sees(&mut driver), "the kernel reports a file without a descriptor: the premise of these tests");
    assert!(falls_silent(&mut driver, 4));
}

#[test]
fn a_watch_that_nobody_took_away() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, LEVEL).unwrap();
    theirs.write_all(b"x").unwrap();
    let _file = close_but_keep(ours);
    assert!(falls_silent(&mut driver, 2000));
    assert!(driver.data(token).is_some(), "it is its owner's to take away");
    driver.deregister(token);
}

#[test]
fn a_busy_watch_is_left_alone() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = driver.register_watch(ours.as_raw_fd(), "watch");
    driver.watch(token, LEVEL).unwrap();
    theirs.write_all(b"x").unwrap();
    let instance = driver.epoll.number();
    for _ in 0..5000 {
        assert!(sees(&mut driver));
    }
    assert_eq!(driver.epoll.number(), instance);
}

#[test]
fn a_number_that_is_watched_again_as_another_file() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let fd = ours.as_raw_fd();
    let token = driver.register_watch(fd, "watch");
    driver.watch(token, LEVEL).unwrap();
    theirs.write_all(b"x").unwrap();
    let _file = ours.try_clone().expect("dup");
    let (other, mut others) = pair();
    put_in_place_of(&other, &ours);
    let renewed = driver.watch(token, LEVEL).unwrap();
    assert_ne!(renewed, token);
    assert_eq!((driver.token(fd), driver.len()), (Some(renewed), 1));
    assert!(falls_silent(&mut driver, 4), "what comes of the former file is not its");
    others.write_all(b"x").unwrap();
    assert!(
        matches!(poll(&mut driver)[..], [(t, Completion::Polled { readable: true, .. })] if t == renewed)
    );
}

#[test]
fn everything_else_goes_on_under_a_new_instance() {
    let mut driver = Driver::new().unwrap();
    let waker = driver.waker();
    let (stale, mut stale_peer) = pair();
    let (streaming, mut stream_peer) = pair();
    let (watched, mut watched_peer) = pair();
    let (once, mut once_peer) = pair();
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for listener in [&listener, &shared] {
        listener.set_nonblocking(true).unwrap();
    }

    let stream = stream(&mut driver, &streaming, ReadMode::Bytes);
    let datagram = driver.register_datagram(ours.as_raw_fd(), libc::AF_UNIX, "datagram").unwrap();
    driver.set_read_mode(datagram, ReadMode::Bytes);
    let accepting = driver.register_listener(listener.as_raw_fd(), "listener").unwrap();
    let exclusive = driver.register_shared_listener(shared.as_raw_fd(), "shared").unwrap();
    let watch = driver.register_watch(watched.as_raw_fd(), "watch");
    driver.watch(watch, LEVEL).unwrap();
    let one = driver.register_watch(once.as_raw_fd(), "once");
    driver.watch(one, Interest { oneshot: true, ..LEVEL }).unwrap();
    let silent = driver.register_watch(stream_peer.as_raw_fd(), "silent");
    assert!(falls_silent(&mut driver, 3), "except the first edges");

    let token = driver.register_watch(stale.as_raw_fd(), "stale");
    driver.watch(token, LEVEL).unwrap();
    let _file = close_but_keep(stale);
    driver.deregister(token);
    stale_peer.write_all(b"x").unwrap();
    let instance = driver.epoll.number();
    assert!(falls_silent(&mut driver, 6));
    assert_ne!(driver.epoll.number(), instance);
    assert_eq!(driver.len(), 7);

    let only = |driver: &mut Driver<&'static str>, expected: Token| {
        detached(|token| driver.wait(token, None)).expect("wait");
        driver.collect();
        let mut seen = Vec::new();
        while let Some((token, completion)) = driver.next_completion() {
            if let Completion::Datagrams(batch) = completion {
                driver.spare = Some(batch);
            }
            seen.push(token);
        }
        assert_eq!(seen, [expected]);
    };
    stream_peer.write_all(b"x").unwrap();
    only(&mut driver, stream);
    theirs.send(b"x").unwrap();
    only(&mut driver, datagram);
    once_peer.write_all(b"x").unwrap();
    only(&mut driver, one);
    assert!(!sees(&mut driver), "it was to be reported once");
    let _first = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    only(&mut driver, accepting);
    let _second = std::net::TcpStream::connect(shared.local_addr().unwrap()).unwrap();
    only(&mut driver, exclusive);
    watched_peer.write_all(b"x").unwrap();
    only(&mut driver, watch);
    driver.deregister(watch);
    driver.deregister(silent);
    assert!(!sees(&mut driver));
    waker.wake();
    detached(|token| driver.wait(token, None)).unwrap();
    assert!(driver.collect(), "the waker is the same");
}

#[test]
fn a_listener_that_was_closed_and_pauses() {
    let mut driver: Driver<&'static str> = Driver::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    driver.register_shared_listener(listener.as_raw_fd(), "shared").unwrap();
    let _file: OwnedFd = listener.try_clone().unwrap().into();
    drop(listener);
    let _client = std::net::TcpStream::connect(address).unwrap();
    let seen = poll(&mut driver);
    assert!(matches!(seen[..], [(_, Completion::AcceptFailed(_))]), "{seen:?}");
    assert!(falls_silent(&mut driver, 4));
}
