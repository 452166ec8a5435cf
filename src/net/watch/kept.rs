//! Registrations that stay between the waits of `sock_*`: edge-triggered, so that a wait makes no system call.
//!
//! A caller waits only after a call that would have blocked, or if it knows from the edges that a call would block. Data that comes
//! between that and the wait is a new edge, which the next poll reports. So no edge has to be remembered for later callers.
//!
//! **Its socket.** The kernel drops a registration with the last number of its file, without a report. A registration is
//! therefore trusted only for the `socket.socket` object it was made for, which a weak reference names, while that has the same
//! number: such an object is closed for good, and takes no other file. Any other object, and any other use of the number (a
//! callback, a transport, a socket of another kind), begins again, from the kernel's state and not from ours. Known limit: a file put
//! under a live object's number by other code, by dup2(2) or a second `__init__`, is not noticed.
//!
//! **Where it ends.** Nothing is kept alive by it. The registration of a freed socket is dropped when its number is reused, or
//! with others when there are many (`Driver::sweep`); an unused one (the socket is read by other means, or
//! by another loop) is dropped after a few edges.
//!
//! **Which sockets.** Streams of TCP and Unix. Others are waited for one event at a time, level-triggered: a Unix datagram socket
//! that is not connected has no edge for room in its receiver's queue, and of others nothing is known.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use super::{Direction, Waiter, Watch, ensure_no_transport, failed, wait, watch_of};
use crate::driver::{Driver, Interest, Token};
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::Endpoint;
use crate::event_loop::report::OrReport;
use crate::event_loop::{handle, task};
use crate::py::errors::os_error;
use crate::py::fatal::OrFatal;
use crate::py::{Owned, raw};
use crate::sys;

/// How many edges in a row may come without a wait or a read before the socket counts as one without waiters
/// from then on. More than one: a peer sends while the answer to what it sent before is made.
const UNHEEDED: u8 = 16;

pub struct Kept {
    /// A weak reference to the socket object.
    socket: Owned,
    /// What is registered.
    interest: Interest,
    /// A read that is not filled has emptied the socket. Of TCP: a Unix stream ends a read at passed descriptors. Not where
    /// the kernel is told to report nothing below a number of bytes.
    short_is_all: bool,
    /// The last read was short, and no edge came since.
    drained: bool,
    /// The end is in sight, or urgent data was: a short read says nothing any more.
    more: bool,
    unheeded: u8,
}

impl Kept {
    pub fn reference(&self) -> &Owned {
        &self.socket
    }

    fn covers(&self, direction: Direction) -> bool {
        match direction {
            Direction::Read => self.interest.readable,
            Direction::Write => self.interest.writable,
        }
    }
}

/// The watch that is kept for a socket object of that number.
fn kept_for<'a>(
    driver: &'a mut Driver<Endpoint>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
) -> Option<(Token, &'a mut Watch)> {
    let token = driver.token(fd)?;
    let watch = watch_of(driver, token)?;
    watch.kept.as_ref().is_some_and(|kept| raw::refers_to(&kept.socket, socket)).then_some((token, watch))
}

/// Whether reading is known to block until the next edge.
pub fn is_drained(on: OnLoop<'_, '_>, socket: &Bound<'_, PyAny>, fd: RawFd) -> bool {
    let look = |driver: &mut Driver<Endpoint>| Some(kept_for(driver, socket, fd)?.1.kept.as_ref()?.drained);
    on.core(|core| core.driver.as_mut().and_then(look)).unwrap_or(false)
}

/// A caller has read; `short` means that it got some bytes, but fewer than it asked for.
pub fn note_read(on: OnLoop<'_, '_>, socket: &Bound<'_, PyAny>, fd: RawFd, short: bool) {
    let _ = on.core(|core| {
        let kept = kept_for(core.driver.as_mut()?, socket, fd)?.1.kept.as_mut()?;
        // Not before the kernel reports reads: it does since a read would have blocked, so all data came with an edge.
        kept.drained = short && kept.short_is_all && !kept.more && kept.interest.readable;
        kept.unheeded = 0;
        Some(())
    });
}

/// Makes `future` done at the next event of a direction, or at one that is past already; the caller's call would have blocked. The token
/// is for [`forget`](super::forget). `plain` says that the object is exactly a `socket.socket`.
pub fn wait_once(
    on: OnLoop<'_, '_>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
    future: &Owned,
    plain: bool,
) -> PyResult<Token> {
    let py = socket.py();
    let waiter = || Waiter::Once(future.clone_ref(py));
    if !plain {
        return wait_one_shot(on, socket, fd, direction, waiter());
    }
    let quick = on.core(|core| {
        let (token, watch) = kept_for(core.driver.as_mut()?, socket, fd)?;
        let kept = watch.kept.as_mut().filter(|kept| kept.covers(direction))?;
        kept.unheeded = 0;
        Some((token, std::mem::replace(watch.slot(direction), waiter())))
    });
    match quick {
        // A kept watch has no callbacks.
        Some((token, _former)) => Ok(token),
        None => register(on, socket, fd, direction, waiter()),
    }
}

/// Has the kernel report edges of the direction from now on, if the socket is of a kind for that.
#[cold]
fn register(
    on: OnLoop<'_, '_>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
    waiter: Waiter,
) -> PyResult<Token> {
    let Some(short_is_all) = stream_of_known_kind(fd) else {
        return wait_one_shot(on, socket, fd, direction, waiter);
    };
    ensure_no_transport(on.event_loop(), fd, socket)?;
    let mut new = Some(Kept {
        socket: raw::weak_reference(socket)?,
        interest: Interest { edge: true, ..Interest::default() },
        short_is_all,
        drained: false,
        more: false,
        unheeded: 0,
    });
    // What may have to be dropped stays outside of the closure.
    let mut waiter = waiter;
    let mut removed = Vec::new();
    let registered = on.driver(|driver| {
        removed = driver.sweep(is_useless);
        let (token, fresh) = match kept_for(driver, socket, fd) {
            Some((token, _)) => (token, false),
            None => {
                if let Some(token) = driver.token(fd) {
                    match watch_of(driver, token) {
                        // The number had another owner. What the kernel still knows of that has another token.
                        Some(Watch { kept: Some(_), .. }) => removed.extend(driver.abandon(token)),
                        // Another kind of wait for the number: one registration must serve both.
                        _ => return Ok(None),
                    }
                }
                let watch = Watch { kept: new.take(), ..Watch::default() };
                (driver.register_watch(fd, Endpoint::native(super::dispatch, watch)), true)
            }
        };
        let watch = watch_of(driver, token).expect("found or made above");
        std::mem::swap(watch.slot(direction), &mut waiter);
        let before = watch.kept.as_ref().expect("found so, or made so").interest;
        let interest = match direction {
            Direction::Read => Interest { readable: true, ..before },
            Direction::Write => Interest { writable: true, ..before },
        };
        match driver.watch(token, interest) {
            Ok(token) => {
                let kept = watch_of(driver, token).and_then(|watch| watch.kept.as_mut());
                kept.expect("as before").interest = interest;
                Ok(Some(token))
            }
            Err(error) if fresh => {
                removed.extend(driver.deregister(token));
                Err(error)
            }
            Err(error) => {
                let watch = watch_of(driver, token).expect("as before");
                std::mem::swap(watch.slot(direction), &mut waiter);
                Err(error)
            }
        }
    })?;
    match registered.map_err(os_error)? {
        Some(token) => Ok(token),
        None => wait_one_shot(on, socket, fd, direction, waiter),
    }
}

/// For streams of TCP and Unix: whether a short read says that there is no more.
fn stream_of_known_kind(fd: RawFd) -> Option<bool> {
    match sys::socket::kind(fd).ok()? {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => {
            Some(sys::socket::low_water_mark(fd).is_ok_and(|bytes| bytes <= 1))
        }
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => Some(false),
        _ => None,
    }
}

/// What is kept for a socket that is gone, or whose number is another source's by now.
fn is_useless(endpoint: &Endpoint, current: bool) -> bool {
    match endpoint.state::<Watch>() {
        Some(Watch { reader: Waiter::Nobody, writer: Waiter::Nobody, kept: Some(kept) }) => {
            !current || raw::is_dead(&kept.socket)
        }
        _ => false,
    }
}

/// Waits level-triggered for one event.
fn wait_one_shot(
    on: OnLoop<'_, '_>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
    waiter: Waiter,
) -> PyResult<Token> {
    ensure_no_transport(on.event_loop(), fd, socket)?;
    let (token, former) = wait(on, fd, direction, waiter)?;
    if let Waiter::Callback(handle, _) = former {
        handle::cancel(socket.py(), &handle)?;
    }
    Ok(token)
}

/// Wakes the waiters for edges; false if the watch is not a kept one.
pub fn dispatch(
    on: OnLoop<'_, '_>,
    token: Token,
    readable: bool,
    writable: bool,
    more: bool,
) -> OrFatal<bool> {
    let py = on.py();
    let taken = on.core(|core| {
        let driver = core.driver.as_mut()?;
        let watch = watch_of(driver, token)?;
        let kept = watch.kept.as_mut()?;
        kept.more |= more;
        kept.drained &= !readable;
        let nobody = matches!((&watch.reader, &watch.writer), (Waiter::Nobody, Waiter::Nobody));
        kept.unheeded = if nobody { kept.unheeded + 1 } else { 0 };
        if kept.unheeded > UNHEEDED {
            return Some((Waiter::Nobody, Waiter::Nobody, driver.deregister(token)));
        }
        let take = |ready, slot| if ready { std::mem::take(slot) } else { Waiter::Nobody };
        Some((take(readable, &mut watch.reader), take(writable, &mut watch.writer), None))
    });
    let Some((reader, writer, _removed)) = taken else { return Ok(false) };
    let wake = |waiter| match waiter {
        Waiter::Once(future) => task::wake(py, &future).or_report(on.event_loop(), failed).map(drop),
        _ => Ok(()),
    };
    let (first, second) = (wake(reader), wake(writer));
    first.and(second).map(|()| true)
}
