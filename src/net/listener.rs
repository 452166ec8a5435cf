//! Accepting connections: from the listening socket straight to a started transport, without a task in between.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use socket2::SockAddr;

use super::balance::{self, Balance};
use super::connection::{self, Terms};
use super::stream::{self, Extra, Parts};
use super::tls;
use super::watch;
use crate::driver::{Completion, Connection, Refused, Token};
use crate::event_loop::EventLoop;
use crate::event_loop::door::{self, OnLoop};
use crate::event_loop::endpoint::{Endpoint, Native};
use crate::event_loop::report::{OrReport, Report};
use crate::py::errors::{OrOsError, os_error};
use crate::py::fatal::OrFatal;
use crate::py::{Owned, context, imports};

/// How long accepting pauses when the system is out of descriptors or memory, in seconds; asyncio's ACCEPT_RETRY_DELAY.
const RETRY_DELAY: f64 = 1.0;

pub struct Listener {
    sock: Owned,
    /// That of the call that started it.
    context: Owned,
    accepts: Accepts,
}

enum Accepts {
    /// For this loop.
    Here(Terms),
    /// For several loops: a [`Balance`].
    Balanced(Owned),
}

impl Native for Listener {
    fn each(&self, see: &mut dyn FnMut(&Owned)) {
        see(&self.sock);
        see(&self.context);
        match &self.accepts {
            Accepts::Here(terms) => terms.each(see),
            Accepts::Balanced(balance) => see(balance),
        }
    }
}

/// Looks at the listener behind a token.
fn with_listener<R>(on: OnLoop<'_, '_>, token: Token, f: impl FnOnce(&Listener) -> R) -> Option<R> {
    on.core(|core| core.driver.as_ref()?.data(token)?.state().map(f))
}

/// Hands a completion to the listener.
fn dispatch(on: OnLoop<'_, '_>, token: Token, completion: Completion) -> OrFatal {
    let event_loop = on.event_loop();
    match completion {
        Completion::Accepted(socket, peer) => accepted(on, token, socket, peer),
        Completion::AcceptFailed(error) => failed(on, token, error)
            .or_report(event_loop, || Report::new("Exception at a failed accept"))
            .map(drop),
        _ => Ok(()),
    }
}

fn accepted(on: OnLoop<'_, '_>, token: Token, socket: Connection, peer: SockAddr) -> OrFatal {
    let (py, event_loop) = (on.py(), on.event_loop());
    let found = with_listener(on, token, |listener| match &listener.accepts {
        Accepts::Here(terms) => Accepts::Here(terms.clone_ref(py)),
        Accepts::Balanced(balance) => Accepts::Balanced(balance.clone_ref(py)),
    });
    tracing::debug!(fd = socket.as_raw_fd(), "accepted");
    match found {
        Some(Accepts::Here(terms)) => connection::begin(event_loop, terms, socket, peer, &mut None),
        Some(Accepts::Balanced(balance)) => balance::hand(event_loop, balance, socket, peer),
        None => Ok(()),
    }
}

/// Out of descriptors or memory: reports that once, and accepts again after a pause. Open connections continue.
fn failed(on: OnLoop<'_, '_>, token: Token, error: io::Error) -> PyResult<()> {
    let (py, event_loop) = (on.py(), on.event_loop());
    let found =
        with_listener(on, token, |listener| (listener.sock.clone_ref(py), listener.context.clone_ref(py)));
    let Some((sock, context)) = found else { return Ok(()) };
    tracing::debug!(%error, "accept failed");
    let code = error.raw_os_error().unwrap_or(0);
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&code);
    let message = if exhausted { "socket.accept() out of system resource" } else { "socket.accept() failed" };
    context::run(py, &context, || {
        let report = Report::new(message)
            .error(os_error(error))
            .with("socket", imports::transport_socket(py)?.call1((sock.bind(py),))?);
        // First, so that accepting resumes even if the report raises.
        let callback = event_loop.getattr("_resume_accept")?;
        event_loop.call_method1("call_later", (RETRY_DELAY, callback, sock.bind(py)))?;
        Ok(on.report(report)?)
    })
}

/// The token of a listening socket that accepts.
fn listening(on: OnLoop<'_, '_>, sock: &Bound<'_, PyAny>) -> PyResult<Option<Token>> {
    // What has no descriptor never accepted.
    let Ok(fd) = sock.call_method0("fileno")?.extract::<RawFd>() else { return Ok(None) };
    Ok(on.core(|core| {
        let driver = core.driver.as_ref()?;
        driver.token(fd).filter(|&token| {
            driver.data(token).is_some_and(|endpoint| endpoint.state::<Listener>().is_some())
        })
    }))
}

fn listen(
    event_loop: &Bound<'_, EventLoop>,
    sock: &Bound<'_, PyAny>,
    accepts: Accepts,
    exclusive: bool,
) -> PyResult<()> {
    event_loop.get().check_open()?;
    let fd = watch::fileno(sock)?;
    watch::ensure_no_transport(event_loop, fd, sock)?;
    let context = context::copy_current(event_loop.py())?;
    let endpoint = Endpoint::native(dispatch, Listener { sock: sock.into(), context, accepts });
    let inside = door::enter(event_loop)?;
    let registered = inside.on().driver(|driver| match exclusive {
        true => driver.register_shared_listener(fd, endpoint),
        false => driver.register_listener(fd, endpoint),
    })?;
    registered.map_err(Refused::into_error).or_os_error().map(drop)
}

#[pymethods]
impl EventLoop {
    /// Accept connections on a listening socket: each gets a protocol from the factory and a transport, with TLS in between
    /// where a context is given. With `exclusive` other loops accept from the same socket, and one of those that sleep is woken.
    /// ValueError for timeouts that are not positive.
    #[pyo3(signature = (sock, protocol_factory, server=None, backlog=100, sslcontext=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, exclusive=false))]
    #[allow(clippy::too_many_arguments)]
    fn _accept(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        protocol_factory: &Bound<'_, PyAny>,
        server: Option<&Bound<'_, PyAny>>,
        backlog: i32,
        sslcontext: Option<&Bound<'_, PyAny>>,
        ssl_handshake_timeout: Option<f64>,
        ssl_shutdown_timeout: Option<f64>,
        exclusive: bool,
    ) -> PyResult<()> {
        let _ = backlog; // The kernel's queue is set by listen(); a turn accepts some of it.
        let settings = sslcontext.map(|context| {
            tls::Settings::new(context, true, None, ssl_handshake_timeout, ssl_shutdown_timeout)
        });
        let terms = Terms {
            factory: protocol_factory.into(),
            server: server.map(Owned::from),
            tls: settings.transpose()?,
            context: context::copy_current(slf.py())?,
        };
        listen(slf, sock, Accepts::Here(terms), exclusive)
    }

    /// Accept connections on a listening socket for the loops of a Balance.
    fn _accept_for(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        balance: &Bound<'_, Balance>,
    ) -> PyResult<()> {
        listen(slf, sock, Accepts::Balanced(balance.into()), false)
    }

    /// Stop accepting on a listening socket. It stays open.
    fn _stop_accept(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        if slf.get().shared.is_closed() {
            return Ok(());
        }
        let inside = door::enter(slf)?;
        if let Some(token) = listening(inside.on(), sock)? {
            drop(inside.on().driver(|driver| driver.deregister(token))?);
        }
        Ok(())
    }

    /// Accept again after a pause.
    fn _resume_accept(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        if slf.get().shared.is_closed() {
            return Ok(());
        }
        let inside = door::enter(slf)?;
        match listening(inside.on(), sock)? {
            Some(token) => inside.on().driver(|driver| driver.resume_listener(token))?.or_os_error(),
            None => Ok(()),
        }
    }

    /// A transport on a connected, non-blocking stream socket. It begins in the next turn.
    #[pyo3(signature = (sock, protocol, waiter=None, extra=None, server=None))]
    fn _make_socket_transport<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<&Bound<'py, PyAny>>,
        extra: Option<&Bound<'py, PyDict>>,
        server: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let lp = slf.get();
        lp.check_open()?;
        let fd = watch::fileno(sock)?;
        watch::ensure_no_transport(slf, fd, sock)?;
        let context = context::copy_current(py)?;
        let extra = Extra {
            socket: Some(sock.into()),
            peer: crate::sys::socket::peer_address(fd).ok(),
            local: crate::sys::socket::local_address(fd).ok(),
            given: extra.map(Owned::from),
            ..Extra::default()
        };
        let parts = Parts {
            fd,
            owned: None,
            protocol: protocol.clone(),
            context: context.clone_ref(py),
            server: server.cloned(),
            extra,
        };
        let transport = stream::make(slf, parts)?;
        stream::start_soon(slf, &transport, context, waiter)?;
        Ok(transport)
    }
}
