//! One turn of the loop, and the run that repeats it.
//!
//! A turn polls the driver and dispatches what is done there, drains the inbox, moves due timers to the ready queue,
//! runs what was ready when that began, takes some of what its feed gives, and sends what transports held back. What callbacks schedule runs in the next turn.

use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;

use super::core::{AtEnd, Core, Ready};
use super::door::OnLoop;
use super::endpoint::{Dispatch, Endpoint};
use super::feed::Fed;
use super::handle::{self, HandleRef};
use super::remote::RemoteCall;
use super::report::{OrReport, Report};
use super::{EventLoop, task};
use crate::driver::{Completion, Driver, Token};
use crate::py::away::Away;
use crate::py::errors::OrOsError;
use crate::py::fatal::{self, Fatal, OrFatal};
use crate::py::names::names;
use crate::py::{Owned, panic};
use crate::sync::quiet::{Quiet, Under};
use crate::sys::clock::monotonic_ns;
use crate::sys::detached::Detached;
use crate::sys::signal::Subscription;

// Transports schedule what they have to do in a turn of its own.
pub(crate) use super::queue::schedule;

/// While callbacks keep the loop busy the driver is asked no more often than this: an empty `epoll_wait` costs as
/// much as half a short turn.
const POLL_INTERVAL_NS: u64 = 10_000;

/// A busy loop with no descriptor but those for signals asks the driver no more often than every so many turns.
const SIGNAL_TURNS: u64 = 8;

/// How many completions a turn hands out at least, if there are so many.
const LEAST_BATCH: usize = 16;

/// When a turn has received this many bytes, their readers run first: the bytes are still in the core's cache. Not where
/// callbacks were waiting before that: their turns may be long, and the remaining streams would wait for another one.
const MOST_RECEIVED: usize = 256 * 1024;

/// A loop that is never idle detaches from the interpreter for a moment every so many turns.
const DETACH_EVERY: u64 = 64;

/// The most sleeps between two attempts to yield where yielding does not pay.
const LONGEST_BACKOFF: u8 = 32;

/// The longest sleep; keeps timeouts within what the kernel takes.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Runs turns until the loop is stopped or an error must leave it.
pub(super) fn run(on: OnLoop<'_, '_>) -> OrFatal {
    let result = repeat(on);
    // The turn that an error has cut short has its end too.
    fatal::both(on.py(), result, end(on))
}

/// As [`OnLoop::core`], for what a turn does itself: inside of a run, which is not checked again for each of a turn's accesses.
#[inline(always)]
fn in_run<R>(on: OnLoop<'_, '_>, f: impl FnOnce(&mut Core) -> R) -> R {
    let _quiet = Quiet::begin(Under::Claim);
    // SAFETY: this thread runs the loop; `f` does not come back here, so this is the only borrow.
    f(unsafe { on.get().core_mut() })
}

fn repeat(on: OnLoop<'_, '_>) -> OrFatal {
    let py = on.py();
    let mut last_poll = 0;
    loop {
        // SAFETY: attached. Runs Python's signal handlers on the main thread and is a safe point for the collector.
        if unsafe { ffi::PyErr_CheckSignals() } != 0 {
            return Err(Fatal::of_loop(py, PyErr::fetch(py)));
        }
        poll(on, &mut last_poll)?;
        drain_inbox(on)?;
        move_due_timers(on);
        run_ready(on)?;
        feed(on)?;
        end(on)?;
        if in_run(on, |core| core.stopping) {
            return Ok(());
        }
    }
}

/// Waits for I/O if there is nothing else to do, and dispatches what is done. Every turn that does not wait looks instead, if it
/// is time to: whatever keeps the loop from sleeping, descriptors have their turn.
fn poll(on: OnLoop<'_, '_>, last_poll: &mut u64) -> OrFatal {
    let broken = |error| Fatal::of_loop(on.py(), error);
    let (turns, busy) = in_run(on, |core| {
        core.counters.turns += 1;
        (core.counters.turns, core.stopping || core.hungry || !core.ready.is_empty())
    });
    if turns.is_multiple_of(DETACH_EVERY) {
        // Callbacks written in C never pass a point where the interpreter can stop this thread or switch to another.
        detached(|_| ());
    }
    let polled = if busy || drop_cancelled(on) {
        look(on, last_poll)
    } else {
        match sleep(on, last_poll) {
            Ok(false) => look(on, last_poll),
            slept => slept,
        }
    };
    let polled = polled.map_err(broken)?;
    if polled { dispatch(on) } else { Ok(()) }
}

/// Asks the driver without waiting, unless it was asked a moment ago. False if it was not asked.
#[inline]
fn look(on: OnLoop<'_, '_>, last_poll: &mut u64) -> PyResult<bool> {
    in_run(on, |core| look_in(core, last_poll))
}

#[inline]
fn look_in(core: &mut Core, last_poll: &mut u64) -> PyResult<bool> {
    let Some(driver) = core.driver.as_mut().filter(|driver| !driver.is_empty()) else {
        return Ok(false);
    };
    // Where only signals could come, even the clock is not read in every turn.
    let only_signals = driver.len() == core.signal_watches;
    let waits = core.signals.as_ref().is_some_and(Subscription::is_pending);
    if only_signals && !waits && !core.stopping && !core.counters.turns.is_multiple_of(SIGNAL_TURNS) {
        return Ok(false);
    }
    let now = monotonic_ns();
    if now.wrapping_sub(*last_poll) < POLL_INTERVAL_NS {
        return Ok(false);
    }
    *last_poll = now;
    core.counters.polls += 1;
    driver.look().or_os_error()?;
    Ok(true)
}

/// Waits for I/O until the next deadline. False if something turned up that is to be done first: then the driver was not asked.
fn sleep(on: OnLoop<'_, '_>, last_poll: &mut u64) -> PyResult<bool> {
    let lp = on.get();
    // SAFETY: this thread owns the core while it runs, and no reference outlives this function, which calls no Python; the
    // detached wait below borrows the driver only, which no other thread may touch.
    let core = unsafe { lp.core_mut() };
    let timeout = core.timers.next_deadline().map(|deadline| {
        let wait = deadline.saturating_sub(monotonic_ns());
        Duration::from_nanos(wait).min(LONGEST_WAIT)
    });
    let driver: *mut Driver<_> = core.driver()?;
    // SAFETY: see above; `driver` points into the core.
    unsafe {
        if timeout == Some(Duration::ZERO) || (*driver).pending() > 0 {
            core.counters.polls += 1;
            (*driver).look().or_os_error()?;
        } else {
            if std::mem::take(&mut core.posted) && yield_to_producers(core) {
                return Ok(false);
            }
            let feed = core.feed.clone();
            if feed.as_ref().is_some_and(|feed| !feed.may_sleep(on.py())) {
                core.hungry = true;
                return Ok(false);
            }
            core.counters.polls += 1;
            core.counters.parks += 1;
            let waited = core.inbox.park(|| detached(|token| (*driver).wait(token, timeout)));
            if let Some(feed) = feed {
                feed.woke();
                core.hungry = true;
            }
            waited.unwrap_or_else(|| (*driver).look()).or_os_error()?;
            tracing::debug!(id = lp.shared.id, "loop woke");
        }
    }
    *last_poll = monotonic_ns();
    Ok(true)
}

/// Releases the cancelled timers that come next. True if there were any: releasing them may have run code, which may have left
/// something to do.
fn drop_cancelled(on: OnLoop<'_, '_>) -> bool {
    let mut dead = Vec::new();
    in_run(on, |core| {
        while let Some(timer) = core.timers.pop_cancelled(HandleRef::is_cancelled) {
            timer.set_unscheduled();
            dead.push(timer);
        }
    });
    !dead.is_empty()
}

/// After something was posted, lets other threads run before the loop sleeps: the poster is likely to post more, and while
/// the loop is awake posts cost no system call. So one wake-up serves a burst even where both threads share a core. Where a
/// yield brings in no more than the sleep would have, more and more of the next ones are skipped. True when there is something to do.
fn yield_to_producers(core: &mut Core) -> bool {
    if core.yields_to_skip > 0 {
        core.yields_to_skip -= 1;
        return false;
    }
    detached(|_| crate::sys::thread::yield_now());
    let came = core.take_posts() + core.feed.as_ref().map_or(0, |feed| feed.waiting());
    // The end of a burst brings nothing either, so one failure does not count for much.
    core.yield_backoff = if came < 2 { (core.yield_backoff * 2).clamp(1, LONGEST_BACKOFF) } else { 0 };
    core.yields_to_skip = core.yield_backoff;
    came > 0
}

/// Runs `wait` detached from the interpreter.
fn detached<R>(wait: impl FnOnce(&Detached) -> R) -> R {
    // SAFETY: attached here; `wait` is a system call on the driver. It touches no Python object, and nothing that the collector looks at.
    let (_away, token) = unsafe { (Away::begin(), Detached::promised()) };
    wait(&token)
}

/// Hands out what the driver has done, sources taking turns: each that was ready gets one, and where they are few, some get
/// more (a listener with a queue of connections, a stream that fills the buffer).
fn dispatch(on: OnLoop<'_, '_>) -> OrFatal {
    let collected = in_run(on, |core| {
        let driver = core.driver.as_mut()?;
        driver.collect();
        Some((driver.pending(), core.ready.is_empty()))
    });
    let Some((count, idle)) = collected else { return Ok(()) };
    let mut received = 0;
    for _ in 0..count.max(LEAST_BATCH) {
        if idle && received >= MOST_RECEIVED {
            break;
        }
        let (pending, next) =
            in_run(on, |core| match core.driver.as_mut().filter(|driver| driver.pending() > 0) {
                Some(driver) => (true, next_of(driver)),
                None => (false, None),
            });
        if !pending {
            break;
        }
        if let Some((dispatch, token, completion)) = next {
            if let Completion::Received(len) | Completion::Large(len) = completion {
                received += len;
            }
            dispatch(on, token, completion)?;
        }
    }
    Ok(())
}

/// A completion, and where it goes; None for one of a source that is gone.
#[inline]
fn next_of(driver: &mut Driver<Endpoint>) -> Option<(Dispatch, Token, Completion)> {
    let (token, completion) = driver.next_completion()?;
    Some((driver.data(token)?.dispatch, token, completion))
}

/// Takes what other threads sent.
fn drain_inbox(on: OnLoop<'_, '_>) -> OrFatal {
    let mut next = in_run(on, |core| {
        core.take_posts();
        core.finished.pop_front()
    });
    panic::point("turn");
    while let Some(finish) = next {
        finish(on)?;
        next = in_run(on, |core| core.finished.pop_front());
    }
    Ok(())
}

fn move_due_timers(on: OnLoop<'_, '_>) {
    let mut dead = Vec::new();
    in_run(on, |core| {
        if core.timers.is_empty() {
            return;
        }
        let now = monotonic_ns();
        while let Some(timer) = core.timers.pop_due(now) {
            timer.set_unscheduled();
            if timer.is_cancelled() {
                core.timers.forget_cancelled();
                dead.push(timer);
            } else {
                core.ready.push_back(Ready::Handle(timer));
            }
        }
    });
    drop(dead);
}

/// Runs what is ready now.
fn run_ready(on: OnLoop<'_, '_>) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    // SAFETY: owned while running, which is not asked again for each item; each borrow ends with its statement.
    let core = || unsafe { on.get().core_mut() };
    for _ in 0..core().ready.len() {
        match core().ready.pop_front() {
            Some(Ready::Handle(handle)) => {
                if !handle.is_cancelled() {
                    run_handle(on, &handle)?;
                }
                if let Some(handle) = handle.recycle(py) {
                    drop(core().keep(handle));
                }
            }
            Some(Ready::Task(task)) => task::step::run(event_loop, task)?,
            Some(Ready::Remote(call)) => run_remote(on, &call)?,
            None => break,
        }
    }
    Ok(())
}

/// Does the work deferred to the turn's end: all of it, even if a part has an error that leaves the run. This may be
/// the last turn.
#[inline]
fn end(on: OnLoop<'_, '_>) -> OrFatal {
    let py = on.py();
    let mut result = Ok(());
    while let Some(AtEnd { call, object }) = in_run(on, |core| core.at_end.pop_front()) {
        result = fatal::both(py, result, call(on, &object.into_bound(py)));
    }
    result
}

/// Takes some of what the loop's feed has to give.
#[inline]
fn feed(on: OnLoop<'_, '_>) -> OrFatal {
    let Some(feed) = in_run(on, |core| core.feed.clone()) else { return Ok(()) };
    let fed = feed.feed(on)?;
    in_run(on, |core| {
        core.hungry = matches!(fed, Fed::Some);
        match fed {
            Fed::Nothing => {}
            // The poster of this is likely to post more: the loop yields once before it sleeps.
            Fed::Some => core.posted = true,
            Fed::End => core.stopping = true,
        }
    });
    Ok(())
}

/// Runs one handle; what it raises goes to the exception handler.
#[inline]
pub(crate) fn run_handle(on: OnLoop<'_, '_>, handle: &HandleRef) -> OrFatal {
    if on.get().shared.is_debug() {
        return run_in_debug_mode(on, handle);
    }
    // SAFETY: attached, on the loop's thread, which owns it.
    finish_call(on.event_loop(), handle, unsafe { handle.call() })
}

/// Runs a call from another thread. A Handle is made only where one must be seen: in debug mode and for an error.
fn run_remote(on: OnLoop<'_, '_>, call: &RemoteCall) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    if call.is_cancelled() {
        return Ok(());
    }
    let report = || Report::new("Exception in callback of another thread");
    let Some(context) = call.context(py).or_report(event_loop, report)? else { return Ok(()) };
    if event_loop.get().shared.is_debug() {
        return match handle_of(event_loop, call, context).or_report(event_loop, report)? {
            Some(handle) => run_in_debug_mode(on, &handle),
            None => Ok(()),
        };
    }
    // SAFETY: attached; `context` is alive.
    let result = unsafe { call.run(context.as_ptr()) };
    if result.is_null() {
        let error = Fatal::split(py, PyErr::fetch(py))?;
        return match handle_of(event_loop, call, context) {
            Ok(handle) => handle::report(event_loop, &handle, error),
            Err(_) => on.report(report().error(error)),
        };
    }
    // SAFETY: a new reference.
    unsafe { ffi::Py_DECREF(result) };
    Ok(())
}

/// A Handle that shows a call from another thread.
#[cold]
pub(crate) fn handle_of(
    event_loop: &Bound<'_, EventLoop>,
    call: &RemoteCall,
    context: Owned,
) -> PyResult<HandleRef> {
    let py = event_loop.py();
    // SAFETY: attached; everything is alive in `call`.
    let handle = call.with_args(|args| unsafe {
        HandleRef::make(py, None, event_loop.as_ptr(), call.callback.as_ptr(), args, context)
    })?;
    if let Some(traceback) = &call.source_traceback {
        handle.set_traceback(traceback.clone_ref(py));
    }
    Ok(handle)
}

#[inline]
fn finish_call(event_loop: &Bound<'_, EventLoop>, handle: &HandleRef, result: *mut ffi::PyObject) -> OrFatal {
    if result.is_null() {
        return handle::report(event_loop, handle, PyErr::fetch(event_loop.py()));
    }
    // SAFETY: a new reference.
    unsafe { ffi::Py_DECREF(result) };
    Ok(())
}

/// The handle that `_current_handle` shows, until this is dropped; then the former one again.
struct Shown<'a, 'py> {
    on: OnLoop<'a, 'py>,
    former: Option<HandleRef>,
}

impl<'a, 'py> Shown<'a, 'py> {
    fn new(on: OnLoop<'a, 'py>, handle: HandleRef) -> Self {
        Self { on, former: on.core(|core| core.current_handle.replace(handle)) }
    }
}

impl Drop for Shown<'_, '_> {
    fn drop(&mut self) {
        let former = self.former.take();
        drop(self.on.core(|core| std::mem::replace(&mut core.current_handle, former)));
    }
}

#[cold]
fn run_in_debug_mode(on: OnLoop<'_, '_>, handle: &HandleRef) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    let shown = Shown::new(on, handle.clone_ref(py));
    panic::point("handle");
    let start = monotonic_ns();
    // SAFETY: attached, on the loop's thread.
    let result = finish_call(event_loop, handle, unsafe { handle.call() });
    drop(shown);
    let logged = log_if_slow(on, start, || Ok(handle.as_object().clone_ref(py)));
    fatal::both(py, result, logged)
}

/// Debug mode: logs what has run since then, if that is long enough. On the loop's thread.
#[cold]
pub(crate) fn log_if_slow(on: OnLoop<'_, '_>, since: u64, slow: impl FnOnce() -> PyResult<Owned>) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    let seconds = (monotonic_ns() - since) as f64 / 1e9;
    if seconds < on.core(|core| core.slow_callback_duration) {
        return Ok(());
    }
    let name = names()._log_slow_callback.bind(py);
    let log = || event_loop.call_method1(name, (slow()?.bind(py), seconds));
    log().or_report(event_loop, || Report::new("Exception while a slow callback was logged")).map(drop)
}
