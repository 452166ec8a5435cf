//! Noticing a child's end, and signalling it: by a descriptor for the child, watched in the loop's own driver.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::driver::{Completion, Driver, Interest, Token};
use crate::event_loop::EventLoop;
use crate::event_loop::door::{self, OnLoop};
use crate::event_loop::endpoint::{Endpoint, Native};
use crate::event_loop::handle::HandleRef;
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::turn;
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::{Owned, context};
use crate::sys::process;

/// A child that lives. The loop's driver drops it; the child stays unreaped then.
struct Child {
    descriptor: Arc<OwnedFd>,
    pid: libc::pid_t,
    callback: Owned,
    context: Owned,
}

impl Native for Child {
    fn each(&self, see: &mut dyn FnMut(&Owned)) {
        [&self.callback, &self.context].into_iter().for_each(see);
    }
}

/// The descriptor of a child, for signalling threads. It is open for as long as this lives, so that no signal goes to another
/// process, whatever other threads do meanwhile.
#[pyclass(frozen, module = "tokioloop._tokioloop")]
pub struct ChildDescriptor(Arc<OwnedFd>);

#[pymethods]
impl ChildDescriptor {
    /// Signal the child; ProcessLookupError once its exit status was taken.
    fn send_signal(&self, signal: i32) -> PyResult<()> {
        process::signal(&self.0, signal).or_os_error()
    }
}

/// Once, and after an event that turned out not to be the end, again.
const ONCE: Interest = Interest { readable: true, writable: false, oneshot: true, edge: false };

/// Watches a child; gives what was registered back on failure, for the caller to drop.
fn watch(driver: &mut Driver<Endpoint>, child: Child) -> Result<(), (io::Error, Option<Endpoint>)> {
    let fd = child.descriptor.as_raw_fd();
    let token = driver.register_watch(fd, Endpoint::native(dispatch, child));
    driver.watch(token, ONCE).map(drop).map_err(|error| (error, driver.deregister(token)))
}

fn dispatch(on: OnLoop<'_, '_>, token: Token, _: Completion) -> OrFatal {
    let report = || Report::new("Exception at a child's end");
    match ended(on, token).or_report(on.event_loop(), report)? {
        Some(Some(handle)) => turn::run_handle(on, &handle),
        _ => Ok(()),
    }
}

/// What to call, if the child has ended.
fn ended(on: OnLoop<'_, '_>, token: Token) -> PyResult<Option<HandleRef>> {
    let (py, event_loop) = (on.py(), on.event_loop());
    let reaped = on.driver(|driver| {
        let child: &Child = driver.data(token)?.state()?;
        Some(process::reap(&child.descriptor))
    })?;
    let code = match reaped {
        None => return Ok(None),
        Some(Ok(Some(code))) => Some(code),
        Some(Ok(None)) => {
            // Registered already, so nothing can be wanting.
            let _ = on.driver(|driver| driver.watch(token, ONCE))?;
            return Ok(None);
        }
        Some(Err(error)) => {
            tracing::debug!(%error, "other code took a child's exit status");
            None
        }
    };
    let taken = on.driver(|driver| {
        let child: &Child = driver.data(token)?.state()?;
        let (callback, context) = (child.callback.clone_ref(py), child.context.clone_ref(py));
        Some((child.pid, callback, context, driver.deregister(token)))
    })?;
    let Some((pid, callback, context, endpoint)) = taken else { return Ok(None) };
    tracing::debug!(pid, code, "a child ended");
    drop(endpoint);
    let arguments = PyTuple::new(py, [code])?;
    let lp = event_loop.get();
    lp.make_handle(event_loop, &callback.into_bound(py), &arguments, Some(&context.into_bound(py))).map(Some)
}

#[pymethods]
impl EventLoop {
    /// Call `callback(code)` once the child has ended and was reaped; the code is None if other code reaped it. OSError where
    /// the system has no descriptor for it, ProcessLookupError where there is no such child. Returns the descriptor.
    fn _watch_child(
        slf: &Bound<'_, Self>,
        pid: libc::pid_t,
        callback: &Bound<'_, PyAny>,
    ) -> PyResult<ChildDescriptor> {
        let py = slf.py();
        slf.get().check_open()?;
        let descriptor = Arc::new(process::open(pid).or_os_error()?);
        let shared = ChildDescriptor(descriptor.clone());
        let child = Child { descriptor, pid, callback: callback.into(), context: context::copy_current(py)? };
        let inside = door::enter(slf)?;
        inside.on().driver(|driver| watch(driver, child))?.map_err(|(error, _endpoint)| os_error(error))?;
        Ok(shared)
    }
}
