//! Signals: the process's handler that fans numbers out to the loops that asked, and the wake-up socketpair for CPython's own.
//!
//! A loop that asks for a signal has a [`Slot`]. While anybody asks for a number, its disposition is our handler, which sets
//! the number's bit in each slot that wants it and writes the slot's eventfd. Nothing can fill up: a number that is pending
//! twice is pending once, as POSIX has it. A slot is never freed and its eventfd never closed, so a handler that runs
//! while a loop closes cannot reach anything else; a slot that a loop left goes to the next one.
//!
//! The writers of a slot's fields, and the ordering of the writes:
//!
//! | field               | written by                       | ordered by                                                        |
//! |---------------------|----------------------------------|-------------------------------------------------------------------|
//! | `process`, `event`  | before the slot is published     | Release of `HEAD`, Acquire of each walk over the list              |
//! | `taken`, `wanted`   | attached threads, under the lock | `wanted` before the disposition: the handler that we install sees it |
//! | `pending`           | the handler, and the loop's `take` | set before the eventfd is written, taken after it was read         |

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use super::check;

/// The highest signal number there is, plus one.
const NUMBERS: usize = 65;

/// The signals that one loop asked for.
pub struct Slot {
    /// A forked child's handler leaves its parent's slots alone, whose eventfds it shares.
    process: u32,
    event: RawFd,
    taken: AtomicBool,
    wanted: AtomicU64,
    pending: AtomicU64,
    next: *const Slot,
}

// SAFETY: `next` and the slot behind it never change after publication; the rest is atomic.
unsafe impl Sync for Slot {}

/// A slot that is in use; left to the next loop when dropped.
pub struct Subscription(&'static Slot);

impl Subscription {
    pub fn new() -> io::Result<Self> {
        Slot::new().map(Self)
    }

    #[inline]
    pub fn slot(&self) -> &'static Slot {
        self.0
    }

    /// Whether a signal waits to be taken.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.0.is_pending()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The newest slot. The list only grows.
static HEAD: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// The dispositions that ours replaced, by number. The lock also orders changes of the slots' `taken` and `wanted`. Taken by
/// attached threads only, for a few system calls; the handler does not know it.
static FORMER: Mutex<[Option<libc::sigaction>; NUMBERS]> = Mutex::new([None; NUMBERS]);

/// Whether there may be a signal of that number.
pub fn is_number(number: i32) -> bool {
    (1..NUMBERS as i32).contains(&number)
}

/// The bit of a number; none for what is not one.
fn bit(number: i32) -> u64 {
    if is_number(number) { 1 << (number - 1) } else { 0 }
}

/// The entry of a number. EINVAL for what is not one.
fn entry(
    former: &mut [Option<libc::sigaction>; NUMBERS],
    number: i32,
) -> io::Result<&mut Option<libc::sigaction>> {
    let entry = if is_number(number) { former.get_mut(number as usize) } else { None };
    entry.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The slots of this process.
fn slots() -> impl Iterator<Item = &'static Slot> {
    let process = std::process::id();
    // SAFETY: a slot that was published is never freed.
    let slot = |slot: *const Slot| unsafe { slot.as_ref() };
    // Acquire: pairs with the Release that published the newest one, and so those behind it.
    std::iter::successors(slot(HEAD.load(Ordering::Acquire)), move |last| slot(last.next))
        .filter(move |slot| slot.process == process)
}

/// Our handler. Async-signal-safe: atomics, getpid(2) and write(2).
extern "C" fn on_signal(number: libc::c_int) {
    // SAFETY: the calling thread's own errno, which the interrupted code may be about to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    raise(number);
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Makes a number pending for each loop that wants it; whether there is one. Async-signal-safe.
pub fn raise(number: i32) -> bool {
    let mut wanted = false;
    for slot in slots().filter(|slot| slot.wanted.load(Ordering::Acquire) & bit(number) != 0) {
        slot.set(bit(number));
        wanted = true;
    }
    wanted
}

impl Slot {
    /// A slot for a loop: one that another loop left, or a new one.
    pub fn new() -> io::Result<&'static Self> {
        let _order = FORMER.lock();
        if let Some(left) = slots().find(|slot| !slot.taken.load(Ordering::Relaxed)) {
            left.taken.store(true, Ordering::Relaxed);
            // Signals that came too late for the loop before.
            left.take();
            return Ok(left);
        }
        // SAFETY: takes numbers only.
        let event = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })? as RawFd;
        let slot: &'static Self = Box::leak(Box::new(Self {
            process: std::process::id(),
            event,
            taken: AtomicBool::new(true),
            wanted: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            next: HEAD.load(Ordering::Relaxed),
        }));
        // Release: a thread that finds the slot sees its content.
        HEAD.store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
        Ok(slot)
    }

    /// The descriptor that is readable while something is pending.
    pub fn event(&self) -> RawFd {
        self.event
    }

    /// Whether there is something to take.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// Makes numbers pending, by their bits, and wakes the loop. Async-signal-safe.
    pub fn set(&self, numbers: u64) {
        // Release: pairs with the Acquire in `take`.
        self.pending.fetch_or(numbers, Ordering::Release);
        let one = 1u64;
        // SAFETY: eight bytes of memory to read. A full counter, the only failure and the only thing to
        // wait for if the program made the descriptor blocking, takes 2^64 untaken signals.

        unsafe { libc::write(self.event, (&raw const one).cast(), 8) };
    }

    /// The numbers that are pending and wanted, by their bits; none is afterwards.
    pub fn take(&self) -> u64 {
        let mut count = 0u64;
        // First the counter: a signal that comes after this makes the descriptor readable again.
        // SAFETY: eight bytes of memory to write. An empty counter is fine.
        let _ = unsafe { super::pipe::read_raw(self.event, (&raw mut count).cast(), 8) };
        self.pending.swap(0, Ordering::AcqRel) & self.wanted.load(Ordering::Relaxed)
    }

    /// Asks for a signal: from the return on it is delivered here, and no longer to the previous handler. Fails with EINVAL for
    /// a number that cannot be caught.
    pub fn want(&self, number: i32) -> io::Result<()> {
        let mut former = FORMER.lock();
        let entry = entry(&mut former, number)?;
        let before = self.wanted.fetch_or(bit(number), Ordering::Release);
        take_over(entry, number).inspect_err(|_| {
            self.wanted.store(before, Ordering::Release);
        })
    }

    /// Withdraws the request; the previous disposition is restored with the last one. True if that is now.
    pub fn unwant(&self, number: i32) -> bool {
        let mut former = FORMER.lock();
        let Ok(entry) = entry(&mut former, number) else { return false };
        self.wanted.fetch_and(!bit(number), Ordering::Relaxed);
        give_back(entry, number)
    }

    /// Withdraws all requests and leaves the slot to the next loop. In a forked child the slot is its parent's and stays.
    pub fn leave(&self) {
        if self.process != std::process::id() {
            return;
        }
        let mut former = FORMER.lock();
        let wanted = self.wanted.swap(0, Ordering::Relaxed);
        for number in (1..NUMBERS as i32).filter(|&number| wanted & bit(number) != 0) {
            give_back(&mut former[number as usize], number);
        }
        self.taken.store(false, Ordering::Relaxed);
    }
}

/// Whether any loop of this process asks for the number. Any thread.
pub fn is_wanted(number: i32) -> bool {
    slots().any(|slot| slot.wanted.load(Ordering::Acquire) & bit(number) != 0)
}

/// Installs our handler again where another one replaced it while loops ask for the number. The replaced one is not kept: the
/// disposition from before the first request will be restored.
pub fn insist(number: i32) -> io::Result<()> {
    let mut former = FORMER.lock();
    let entry = entry(&mut former, number)?;
    let saved = *entry;
    if saved.is_none() || !is_wanted(number) {
        return Ok(());
    }
    let result = take_over(entry, number);
    *entry = saved;
    result
}

/// Undoes the requests of the parent's loops, in a forked child.
pub fn forget_parent() {
    let mut former = FORMER.lock();
    for number in 1..NUMBERS as i32 {
        give_back(&mut former[number as usize], number);
    }
}

fn disposition(number: i32) -> io::Result<libc::sigaction> {
    // SAFETY: zeroed is a valid sigaction, which the call fills in.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: null leaves the disposition as it is.
    check(unsafe { libc::sigaction(number, ptr::null(), &mut current) })?;
    Ok(current)
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

/// Installs our handler unless it is installed, and records the previous one.
fn take_over(former: &mut Option<libc::sigaction>, number: i32) -> io::Result<()> {
    let current = disposition(number)?;
    if is_ours(&current) {
        return Ok(());
    }
    // SAFETY: zeroed is a valid sigaction, with an empty mask.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_signal as *const () as usize;
    // No SA_RESTART: while one signal waits for the main thread the kernel may give the next one, of a Python handler, to
    // another thread. A main thread that waits for a lock then learns of it only because the first signal ends its wait.
    ours.sa_flags = libc::SA_ONSTACK;
    // SAFETY: the handler is async-signal-safe and lives as long as the process: the module is never unloaded.
    check(unsafe { libc::sigaction(number, &ours, ptr::null_mut()) })?;
    *former = Some(current);
    Ok(())
}

/// Once no loop of this process asks for the number, restores the previous disposition, unless another handler was installed since. True if
/// it did.
fn give_back(former: &mut Option<libc::sigaction>, number: i32) -> bool {
    if !is_wanted(number)
        && let Some(before) = former.take()
        && disposition(number).is_ok_and(|current| is_ours(&current))
    {
        // SAFETY: what the kernel gave us before.
        return check(unsafe { libc::sigaction(number, &before, ptr::null_mut()) }).is_ok();
    }
    false
}

/// The wake-up pair, and the process that made it: a forked child must not read its parent's signals.
static PAIR: Mutex<Option<(u32, Socket, Socket)>> = Mutex::new(None);

/// CPython's C handler writes each signal's number to one end, the main thread's loop reads the other. The reading and the
/// writing end, made at the process's first call; both non-blocking and close-on-exec.
pub fn wakeup_pair() -> io::Result<(RawFd, RawFd)> {
    let mut pair = PAIR.lock();
    if let Some((process, read, write)) = &*pair
        && *process == std::process::id()
    {
        // Python takes none that blocks, and a program may have made all descriptors of the process so.
        super::pipe::set_nonblocking(write.as_raw_fd())?;
        return Ok((read.as_raw_fd(), write.as_raw_fd()));
    }
    let (read, write) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    let ends = (read.as_raw_fd(), write.as_raw_fd());
    *pair = Some((std::process::id(), read, write));
    Ok(ends)
}

/// Empties the reading end.
pub fn drain_wakeup() -> io::Result<()> {
    pass_wakeup(-1)
}

/// Empties the reading end into another descriptor, if there is one, whose owner handles signals from now on. One that takes nothing
/// has enough in it to be readable.
pub fn pass_wakeup(heir: RawFd) -> io::Result<()> {
    let (read, _) = wakeup_pair()?;
    let mut numbers = [0; 256];
    loop {
        let received = super::socket::recv(read, &mut numbers);
        if let Ok(count @ 1..) = received
            && heir >= 0
        {
            // SAFETY: the buffer is valid for so many bytes. As in CPython's handler nothing can be done about an error.
            unsafe { libc::write(heir, numbers.as_ptr().cast(), count) };
        }
        match received {
            Ok(count) if count == numbers.len() => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    /// Dispositions and slots are the process's: one test at a time.
    static TURN: Mutex<()> = Mutex::new(());

    fn send(number: i32) {
        // SAFETY: the calling thread gets a signal that has a handler.
        unsafe { libc::raise(number) };
    }

    #[test]
    fn signals_reach_the_slots_that_want_them_and_dispositions_come_back() {
        let _turn = TURN.lock();
        let (number, other) = (libc::SIGUSR1, libc::SIGUSR2);
        let (first, second) = (Slot::new().expect("made"), Slot::new().expect("made"));
        first.want(number).expect("may be caught");
        second.want(number).expect("may be caught");
        second.want(other).expect("may be caught");
        for _ in 0..1000 {
            send(number);
        }
        send(other);
        assert_eq!(first.take(), bit(number));
        assert_eq!(second.take(), bit(number) | bit(other));
        assert_eq!(second.take(), 0);

        assert!(!first.unwant(number), "the second wants it still");
        send(number);
        assert_eq!((first.take(), second.take()), (0, bit(number)));

        assert_eq!(first.want(libc::SIGKILL).map_err(|error| error.raw_os_error()), Err(Some(libc::EINVAL)));
        assert!(!is_wanted(libc::SIGKILL));

        second.leave();
        assert!(!is_ours(&disposition(number).expect("valid")));
        assert!(!is_ours(&disposition(other).expect("valid")));
        assert!(ptr::eq(Slot::new().expect("made"), second), "a slot that was left is used again");
    }

    #[test]
    fn somebody_elses_handler_stays() {
        let _turn = TURN.lock();
        let number = libc::SIGWINCH;
        let slot = Slot::new().expect("made");
        slot.want(number).expect("may be caught");
        // SAFETY: ignoring is always allowed.
        unsafe { libc::signal(number, libc::SIG_IGN) };
        assert!(!slot.unwant(number));
        assert_eq!(disposition(number).expect("valid").sa_sigaction, libc::SIG_IGN);

        slot.want(number).expect("may be caught");
        // SAFETY: as above.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        insist(number).expect("may be caught");
        send(number);
        assert_eq!(slot.take(), bit(number));
        slot.leave();
        assert_eq!(
            disposition(number).expect("valid").sa_sigaction,
            libc::SIG_IGN,
            "what was before the first"
        );
    }
}
