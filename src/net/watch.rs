//! `add_reader`, `add_writer` and the waits of `sock_*`: descriptors that other code reads and writes.
//!
//! One watch per descriptor, with a waiter for each direction. A callback waits level-triggered until it is removed; a
//! `sock_*` operation waits for one event. As in asyncio, a new waiter in a direction replaces the one before. For
//! sockets of the common kinds the registration is kept between such waits: `kept` has the rules.

mod kept;

use std::os::fd::RawFd;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::driver::{Completion, Driver, Interest, Token};
use crate::event_loop::EventLoop;
use crate::event_loop::door::{self, OnLoop};
use crate::event_loop::endpoint::{Endpoint, Native};
use crate::event_loop::handle::{self, HandleRef};
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::{task, turn};
use crate::net::stream;
use crate::py::Owned;
use crate::py::errors::os_error;
use crate::py::fatal::OrFatal;
use crate::py::names::names;
use kept::Kept;
pub use kept::{is_drained, note_read, wait_once};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
}

/// The waiter for a direction.
#[derive(Default)]
pub enum Waiter {
    #[default]
    Nobody,
    /// A callback, run at every readiness until removed, and the file object it was added for, if not for a number: that object
    /// stays alive, and finds the callback when it was closed and knows its number no more.
    Callback(HandleRef, Option<Owned>),
    /// The future of a `sock_*` operation, done at the next event.
    Once(Owned),
}

#[derive(Default)]
pub struct Watch {
    reader: Waiter,
    writer: Waiter,
    /// The registration is edge-triggered, and stays without waiters.
    kept: Option<Kept>,
}

impl Watch {
    fn slot(&mut self, direction: Direction) -> &mut Waiter {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    /// One callback makes the whole registration level-triggered.
    fn interest(&self) -> Interest {
        let waits = |waiter: &Waiter| !matches!(waiter, Waiter::Nobody);
        let stays = |waiter: &Waiter| matches!(waiter, Waiter::Callback(..));
        Interest {
            readable: waits(&self.reader),
            writable: waits(&self.writer),
            oneshot: !stays(&self.reader) && !stays(&self.writer),
            edge: false,
        }
    }
}

impl Native for Watch {
    fn each(&self, see: &mut dyn FnMut(&Owned)) {
        for waiter in [&self.reader, &self.writer] {
            match waiter {
                Waiter::Nobody => {}
                Waiter::Callback(handle, file) => {
                    see(handle.as_object());
                    file.iter().for_each(&mut *see);
                }
                Waiter::Once(future) => see(future),
            }
        }
        self.kept.iter().for_each(|kept| see(kept.reference()));
    }
}

/// The descriptor behind a file object, or the number itself; errors as `selectors` raises them.
pub fn fileno(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd: RawFd = if file.is_instance_of::<pyo3::types::PyInt>() {
        file.extract()?
    } else {
        let number = file.call_method0(names().fileno.bind(file.py())).and_then(|number| number.extract());
        number.map_err(|error| match invalid_file(file) {
            Ok(invalid) => {
                invalid.set_cause(file.py(), Some(error));
                invalid
            }
            Err(error) => error,
        })?
    };
    if fd < 0 {
        return Err(PyValueError::new_err(format!("Invalid file descriptor: {fd}")));
    }
    Ok(fd)
}

fn invalid_file(file: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    Ok(PyValueError::new_err(format!("Invalid file object: {}", file.repr()?)))
}

/// RuntimeError when a live transport uses the descriptor. One that is being collected in another thread can still be found, but
/// its descriptor is free, and the number may be another's by now.
pub fn ensure_no_transport(
    event_loop: &Bound<'_, EventLoop>,
    fd: RawFd,
    file: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let transport = door::enter(event_loop)?.on().core(|core| {
        let driver = core.driver.as_ref()?;
        driver.data(driver.token(fd)?)?.transport_of(py)
    });
    match transport.filter(|transport| stream::closing_of(&transport.bind(py)) != Some(true)) {
        Some(transport) => Err(PyRuntimeError::new_err(format!(
            "File descriptor {} is used by transport {}",
            file.repr()?,
            transport.bind(py).repr()?
        ))),
        None => Ok(()),
    }
}

/// The watch behind a token, if it is one's.
fn watch_of(driver: &mut Driver<Endpoint>, token: Token) -> Option<&mut Watch> {
    driver.data_mut(token)?.state_mut()
}

/// Puts a waiter into place and returns the watch's token and the waiter that was there.
pub fn wait(
    on: OnLoop<'_, '_>,
    fd: RawFd,
    direction: Direction,
    waiter: Waiter,
) -> PyResult<(Token, Waiter)> {
    let first = on.core(|core| core.driver.is_none());
    if first && !crate::sys::socket::is_open(fd) {
        // The driver's own descriptor would be the next to get this number.
        return Err(os_error(std::io::Error::from_raw_os_error(libc::EBADF)));
    }
    on.driver(|driver| {
        let known = driver.token(fd).filter(|&token| watch_of(driver, token).is_some());
        let token =
            known.unwrap_or_else(|| driver.register_watch(fd, Endpoint::native(dispatch, Watch::default())));
        let watch = watch_of(driver, token).expect("found or made above");
        let former = std::mem::replace(watch.slot(direction), waiter);
        let interest = watch.interest();
        let kept = watch.kept.take();
        match driver.watch(token, interest) {
            Ok(token) => Ok((token, former, kept)),
            // Both waiters are handed out: dropping them may run code.
            Err(error) => Err((error, former, take(driver, token, direction), kept)),
        }
    })?
    .map(|(token, former, _kept)| (token, former))
    .map_err(|(error, ..)| os_error(error))
}

/// Removes the waiter of a direction; the watch goes with its last waiter, unless it is kept.
fn take(driver: &mut Driver<Endpoint>, token: Token, direction: Direction) -> Waiter {
    let Some(watch) = watch_of(driver, token) else { return Waiter::Nobody };
    let waiter = std::mem::take(watch.slot(direction));
    if watch.kept.is_some() {
        return waiter;
    }
    let interest = watch.interest();
    if interest.readable || interest.writable {
        // It only takes away: what was registered stays valid, unless the descriptor was closed meanwhile.
        let _ = driver.watch(token, interest);
    } else {
        driver.deregister(token);
    }
    waiter
}

/// Removes a `sock_*` operation that gave up waiting, if it still waits.
pub fn forget(on: OnLoop<'_, '_>, token: Token, direction: Direction, future: &Owned) -> PyResult<()> {
    let removed = on.driver(|driver| {
        let Some(watch) = watch_of(driver, token) else { return Waiter::Nobody };
        let waits = matches!(watch.slot(direction), Waiter::Once(it) if it.as_ptr() == future.as_ptr());
        if waits { take(driver, token, direction) } else { Waiter::Nobody }
    })?;
    drop(removed);
    Ok(())
}

/// A watched descriptor is ready.
fn dispatch(on: OnLoop<'_, '_>, token: Token, completion: Completion) -> OrFatal {
    let Completion::Polled { readable, writable, more } = completion else { return Ok(()) };
    if kept::dispatch(on, token, readable, writable, more)? {
        return Ok(());
    }
    if readable {
        resume(on, token, Direction::Read)?;
    }
    if writable {
        resume(on, token, Direction::Write)?;
    }
    rearm(on, token).or_report(on.event_loop(), failed).map(drop)
}

/// What the loop itself could not do for a watch.
#[cold]
fn failed<'py>() -> Report<'py> {
    Report::new("Exception in the watch of a descriptor")
}

fn resume(on: OnLoop<'_, '_>, token: Token, direction: Direction) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    let waiter = on.core(|core| {
        let Some(watch) = core.driver.as_mut().and_then(|driver| watch_of(driver, token)) else {
            return Waiter::Nobody;
        };
        match watch.slot(direction) {
            Waiter::Callback(handle, _) => Waiter::Callback(handle.clone_ref(py), None),
            Waiter::Once(future) => Waiter::Once(future.clone_ref(py)),
            Waiter::Nobody => Waiter::Nobody,
        }
    });
    match waiter {
        Waiter::Callback(handle, _) if handle.is_cancelled() => {
            let taken = on.driver(|driver| take(driver, token, direction));
            taken.or_report(event_loop, failed).map(drop)
        }
        Waiter::Callback(handle, _) => turn::run_handle(on, &handle),
        // The system call is made when the awaiting task runs again, so that a cancellation in between loses nothing.
        Waiter::Once(future) => forget(on, token, direction, &future)
            .and_then(|()| task::wake(py, &future))
            .or_report(event_loop, failed)
            .map(drop),
        Waiter::Nobody => Ok(()),
    }
}

/// After a one-shot event, waits again for the remaining waiters.
fn rearm(on: OnLoop<'_, '_>, token: Token) -> PyResult<()> {
    let failed = on.driver(|driver| {
        let Some(watch) = watch_of(driver, token) else { return Ok(()) };
        let interest = watch.interest();
        if interest.oneshot { driver.watch(token, interest).map(drop) } else { Ok(()) }
    })?;
    // The descriptor was closed under its waiter; nothing will come of it any more, as with asyncio's selectors.
    if let Err(error) = failed {
        tracing::debug!(%error, "a watched descriptor is gone");
    }
    Ok(())
}

fn add(
    event_loop: &Bound<'_, EventLoop>,
    file: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    direction: Direction,
) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    let fd = fileno(file)?;
    lp.check_open()?;
    let inside = door::enter(event_loop)?;
    ensure_no_transport(event_loop, fd, file)?;
    let handle = lp.make_handle(event_loop, callback, args, None)?;
    let kept = (!file.is_instance_of::<pyo3::types::PyInt>()).then(|| file.into());
    let (_, former) = wait(inside.on(), fd, direction, Waiter::Callback(handle, kept))?;
    if let Waiter::Callback(former, _file) = former {
        handle::cancel(py, &former)?;
    }
    Ok(())
}

/// Removes the callback that was added for a file object, whatever became of that; None if there is none.
fn take_of_file(on: OnLoop<'_, '_>, file: &Bound<'_, PyAny>, direction: Direction) -> Option<Waiter> {
    on.core(|core| {
        let driver = core.driver.as_mut()?;
        let token = driver.find(|endpoint| {
            let waiter = endpoint.state::<Watch>().map(|watch| match direction {
                Direction::Read => &watch.reader,
                Direction::Write => &watch.writer,
            });
            matches!(waiter, Some(Waiter::Callback(_, Some(its))) if its.as_ptr() == file.as_ptr())
        })?;
        Some(take(driver, token, direction))
    })
}

fn remove(
    event_loop: &Bound<'_, EventLoop>,
    file: &Bound<'_, PyAny>,
    direction: Direction,
) -> PyResult<bool> {
    let py = event_loop.py();
    let lp = event_loop.get();
    if lp.shared.is_closed() {
        return Ok(false);
    }
    let fd = fileno(file);
    let inside = door::enter(event_loop)?;
    let former = match fd {
        Ok(fd) => {
            ensure_no_transport(event_loop, fd, file)?;
            inside.on().core(|core| {
                let driver = core.driver.as_mut()?;
                let token = driver.token(fd)?;
                Some(take(driver, token, direction))
            })
        }
        // Closed under its callback, as asyncio's selectors allow.
        Err(unknown) => match take_of_file(inside.on(), file, direction) {
            None => return Err(unknown),
            found => found,
        },
    };
    match former {
        Some(Waiter::Callback(handle, _file)) => {
            handle::cancel(py, &handle)?;
            Ok(true)
        }
        Some(Waiter::Once(_)) => Ok(true),
        _ => Ok(false),
    }
}

#[pymethods]
impl EventLoop {
    /// Call `callback(*args)` whenever the descriptor is readable, until remove_reader().
    #[pyo3(signature = (fd, callback, *args))]
    fn add_reader(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        add(slf, fd, callback, args, Direction::Read)
    }

    /// Stop watching for readability; whether there was a callback.
    fn remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        remove(slf, fd, Direction::Read)
    }

    /// Call `callback(*args)` whenever the descriptor is writable, until remove_writer().
    #[pyo3(signature = (fd, callback, *args))]
    fn add_writer(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        add(slf, fd, callback, args, Direction::Write)
    }

    /// Stop watching for writability; whether there was a callback.
    fn remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        remove(slf, fd, Direction::Write)
    }
}
