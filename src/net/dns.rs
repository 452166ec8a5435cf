//! Name resolution: on the shared runtime's blocking pool, answered through the inbox.

use std::ffi::CString;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::address;
use crate::event_loop::EventLoop;
use crate::event_loop::core::PendingKey;
use crate::event_loop::door::{self, OnLoop};
use crate::event_loop::remote::Post;
use crate::event_loop::report::{OrReport, Report};
use crate::event_loop::task;
use crate::inbox::InboxSender;
use crate::py::Owned;
use crate::py::call;
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::imports;
use crate::py::names::names;
use crate::runtime;
use crate::sys::detached::detached;
use crate::sys::dns::{self, AddrInfo, Query, ResolveError};

/// What the runtime found out: plain Rust data, the loop makes the Python objects.
enum Outcome {
    Resolved(Result<Vec<AddrInfo>, ResolveError>),
    Named(Result<(CString, CString), ResolveError>),
}

/// A look-up that its loop was asked for.
#[pyclass(frozen, module = "tokioloop._tokioloop")]
pub struct Lookup(runtime::Lookup);

#[pymethods]
impl Lookup {
    /// Cancels the look-up: it leaves the queue, if it has not begun. Any thread.
    fn withdraw(&self) {
        self.0.withdraw();
    }
}

/// A look-up in transit. Dropped before it began, it makes the loop forget its waiter.
struct Question<W: FnOnce() -> Outcome> {
    inbox: InboxSender<Post>,
    key: PendingKey,
    work: Option<W>,
}

impl<W: FnOnce() -> Outcome> Question<W> {
    fn ask(mut self) {
        let Some(work) = self.work.take() else { return };
        let (outcome, key) = (work(), self.key);
        // A loop closed meanwhile wants no answer.
        let _ = self.inbox.post(Post::Finished(Box::new(move |on| finish(on, key, outcome))));
    }
}

impl<W: FnOnce() -> Outcome> Drop for Question<W> {
    fn drop(&mut self) {
        if self.work.is_none() {
            return;
        }
        let key = self.key;
        let forget = move |on: OnLoop<'_, '_>| {
            let waiting = on.core(|core| core.pending.remove(key));
            drop(waiting);
            Ok(())
        };
        let _ = self.inbox.post(Post::Finished(Box::new(forget)));
    }
}

/// Has `work` done on the blocking pool; the future waits for its outcome.
fn spawn<'py>(
    event_loop: &Bound<'py, EventLoop>,
    work: impl FnOnce() -> Outcome + Send + 'static,
) -> PyResult<(Bound<'py, PyAny>, Lookup)> {
    let py = event_loop.py();
    let lp = event_loop.get();
    lp.check_open()?;
    let future = task::create_future(event_loop)?;
    let waiting = future.clone_ref(py);
    let key = door::enter(event_loop)?.on().core(|core| core.pending.insert(waiting));
    let question = Question { inbox: lp.shared.inbox.clone(), key, work: Some(work) };
    // Where that fails, the question is dropped.
    let lookup = runtime::spawn_lookup(move || question.ask()).or_os_error()?;
    Ok((future.into_bound(py), Lookup(lookup)))
}

#[pymethods]
impl EventLoop {
    /// A future of what socket.getaddrinfo() returns, and the look-up behind it.
    fn _resolve<'py>(
        slf: &Bound<'py, Self>,
        host: Option<Vec<u8>>,
        port: Option<Vec<u8>>,
        family: i32,
        r#type: i32,
        proto: i32,
        flags: i32,
    ) -> PyResult<(Bound<'py, PyAny>, Lookup)> {
        let text = |bytes: Option<Vec<u8>>| bytes.map(CString::new).transpose();
        let query =
            Query { host: text(host)?, service: text(port)?, family, kind: r#type, protocol: proto, flags };
        spawn(slf, move || Outcome::Resolved(detached(|token| dns::resolve(token, &query))))
    }

    /// A future of what socket.getnameinfo() returns, and the look-up behind it; the address must be numeric.
    fn _resolve_name<'py>(
        slf: &Bound<'py, Self>,
        sockaddr: &Bound<'py, PyTuple>,
        flags: i32,
    ) -> PyResult<(Bound<'py, PyAny>, Lookup)> {
        let address = address::from_python(sockaddr)?;
        spawn(slf, move || Outcome::Named(detached(|token| dns::resolve_name(token, &address, flags))))
    }
}

/// Completes the future that waits for an outcome.
fn finish(on: OnLoop<'_, '_>, key: PendingKey, outcome: Outcome) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    let Some(future) = on.core(|core| core.pending.remove(key)) else { return Ok(()) };
    let result = match outcome {
        Outcome::Resolved(Ok(answer)) => address_list(py, &answer),
        Outcome::Named(Ok((host, service))) => names_pair(py, &host, &service),
        Outcome::Resolved(Err(error)) | Outcome::Named(Err(error)) => Err(python_error(py, error)),
    };
    settle(py, &future, result)
        .or_report(event_loop, || Report::new("Exception at the end of a name's resolution"))
        .map(drop)
}

/// Gives a future its result or exception, unless it is done already.
pub fn settle(py: Python<'_>, future: &Owned, result: PyResult<Bound<'_, PyAny>>) -> PyResult<()> {
    if task::is_done(py, future)? {
        return Ok(());
    }
    match result {
        Ok(value) => call::method1(py, future, names().set_result, &value),
        Err(error) => {
            let error = error.into_value(py).into_bound(py);
            call::method1(py, future, names().set_exception, &error)
        }
    }
    .map(drop)
}

fn address_list<'py>(py: Python<'py>, answer: &[AddrInfo]) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    let named = |class: &Bound<'py, PyAny>, number: i32| -> PyResult<Bound<'py, PyAny>> {
        // The enums know only the platform's usual numbers; others stay plain, as in the socket module.
        match class.call1((number,)) {
            Err(error) if error.is_instance_of::<PyValueError>(py) => {
                Ok(number.into_pyobject(py)?.into_any())
            }
            known => known,
        }
    };
    for info in answer {
        let Some(address) = address::to_python(py, &info.address)? else { continue };
        let canonical_name = match &info.canonical_name {
            Some(name) => name.to_string_lossy().into_owned(),
            None => String::new(),
        };
        list.append((
            named(imports::address_family(py)?, info.family)?,
            named(imports::socket_kind(py)?, info.kind)?,
            info.protocol,
            canonical_name,
            address,
        ))?;
    }
    Ok(list.into_any())
}

fn names_pair<'py>(py: Python<'py>, host: &CString, service: &CString) -> PyResult<Bound<'py, PyAny>> {
    let pair = (host.to_string_lossy().into_owned(), service.to_string_lossy().into_owned());
    Ok(pair.into_pyobject(py)?.into_any())
}

fn python_error(py: Python<'_>, error: ResolveError) -> PyErr {
    match error {
        ResolveError::System(error) => os_error(error),
        ResolveError::Resolver { code, message } => {
            match imports::gaierror(py).and_then(|class| class.call1((code, message))) {
                Ok(error) => PyErr::from_value(error),
                Err(failed) => failed,
            }
        }
    }
}
