//! Streams with much data: received into the owner's memory, of the size that the kernel reports.

use super::*;

/// A stream whose last read was large.
fn large_stream(driver: &mut Driver<&'static str>, mode: ReadMode) -> (UnixStream, UnixStream, Token) {
    let (ours, mut theirs) = pair();
    let token = stream(driver, &ours, mode);
    theirs.write_all(&vec![1; LARGE]).unwrap();
    assert!(matches!(poll(driver)[..], [(_, Completion::Received(LARGE))]));
    (ours, theirs, token)
}

fn take(driver: &mut Driver<&'static str>, token: Token, len: usize) -> Vec<u8> {
    let mut memory = vec![0; len];
    // SAFETY: so much memory.
    let received = unsafe { driver.recv_into(token, memory.as_mut_ptr(), len) }.unwrap();
    memory.truncate(received);
    memory
}

#[test]
fn the_exact_amount_is_named_and_taking_it_drains_the_stream() {
    let mut driver = Driver::new().unwrap();
    let (_ours, mut theirs, token) = large_stream(&mut driver, ReadMode::Objects);
    theirs.write_all(&vec![2; LARGE + 3]).unwrap();
    assert!(matches!(poll(&mut driver)[..], [(t, Completion::Large(len))] if t == token && len == LARGE + 3));
    assert_eq!(driver.pending(), 0, "it is the owner's turn");
    assert_eq!(take(&mut driver, token, LARGE + 3), vec![2; LARGE + 3]);
    assert_eq!(driver.pending(), 0, "no read that would find nothing");
    theirs.write_all(b"x").unwrap();
    assert!(
        matches!(poll(&mut driver)[..], [(_, Completion::Received(1))]),
        "a little goes through the buffer"
    );
}

#[test]
fn what_comes_between_the_answer_and_the_read_is_not_lost() {
    let mut driver = Driver::new().unwrap();
    let (_ours, mut theirs, token) = large_stream(&mut driver, ReadMode::Objects);
    theirs.write_all(&vec![2; LARGE]).unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Large(LARGE))]));
    theirs.write_all(b"late").unwrap();
    assert_eq!(take(&mut driver, token, LARGE).len(), LARGE);
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Received(4))]));
    assert_eq!(driver.received(4), b"late");
}

#[test]
fn the_end_behind_a_large_read_is_seen() {
    let mut driver = Driver::new().unwrap();
    let (_ours, mut theirs, token) = large_stream(&mut driver, ReadMode::Objects);
    theirs.write_all(&vec![2; LARGE]).unwrap();
    drop(theirs);
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Large(LARGE))]));
    assert_eq!(take(&mut driver, token, LARGE).len(), LARGE);
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Received(0))]));
}

#[test]
fn an_owner_that_did_not_read_is_told_again_when_it_sets_the_mode() {
    let mut driver = Driver::new().unwrap();
    let (_ours, mut theirs, token) = large_stream(&mut driver, ReadMode::Objects);
    theirs.write_all(&vec![2; LARGE]).unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Large(LARGE))]));
    assert!(poll(&mut driver).is_empty());
    driver.set_read_mode(token, ReadMode::Objects);
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Large(LARGE))]));
}

#[test]
fn who_wants_the_buffer_gets_the_buffer() {
    let mut driver = Driver::new().unwrap();
    let (_ours, mut theirs, _) = large_stream(&mut driver, ReadMode::Bytes);
    theirs.write_all(&vec![2; 2 * LARGE]).unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Received(len))] if len == 2 * LARGE));
}

#[test]
fn an_owner_that_reads_all_is_not_asked_again() {
    let mut driver = Driver::new().unwrap();
    let (ours, mut theirs) = pair();
    let token = stream(&mut driver, &ours, ReadMode::Readiness);
    theirs.write_all(b"hello").unwrap();
    assert!(matches!(poll(&mut driver)[..], [(_, Completion::Readable)]));
    assert_eq!(take(&mut driver, token, 100), b"hello");
    assert_eq!(driver.pending(), 0);
}
