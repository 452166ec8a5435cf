//! What servers, connects and `start_tls` make a transport with.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::engine::{self, Made, Terms};
use super::{Objects, Phase, Public, Tls, Told, class, config, flow};
use crate::event_loop::EventLoop;
use crate::net::transport::{Common, Marks};
use crate::proto::write_queue::WriteQueue;
use crate::py::{Attached, Owned, context, imports};

/// asyncio's SSL_HANDSHAKE_TIMEOUT and SSL_SHUTDOWN_TIMEOUT, in seconds.
const HANDSHAKE_TIMEOUT: f64 = 60.0;
const SHUTDOWN_TIMEOUT: f64 = 30.0;

/// The arguments: the context, the side, the expected name, and the timeouts.
pub struct Settings {
    context: Owned,
    server_side: bool,
    server_hostname: Option<Owned>,
    handshake_timeout: f64,
    shutdown_timeout: f64,
}

impl Settings {
    /// ValueError for timeouts that are not positive, TypeError for a configuration of the other side.
    pub fn new(
        context: &Bound<'_, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'_, PyAny>>,
        handshake_timeout: Option<f64>,
        shutdown_timeout: Option<f64>,
    ) -> PyResult<Self> {
        let check = |name, seconds: Option<f64>, default| match seconds {
            Some(seconds) if seconds <= 0.0 => {
                let seconds = seconds.into_pyobject(context.py())?;
                Err(PyValueError::new_err(format!("{name} should be a positive number, got {seconds}")))
            }
            other => Ok(other.unwrap_or(default)),
        };
        config::check_side(context, server_side)?;
        Ok(Self {
            context: context.into(),
            server_side,
            server_hostname: match server_hostname.filter(|_| !server_side) {
                Some(name) if name.is_truthy()? => Some(name.into()),
                _ => None,
            },
            handshake_timeout: check("ssl_handshake_timeout", handshake_timeout, HANDSHAKE_TIMEOUT)?,
            shutdown_timeout: check("ssl_shutdown_timeout", shutdown_timeout, SHUTDOWN_TIMEOUT)?,
        })
    }

    /// Shows the Python objects to the garbage collector.
    pub fn each(&self, see: &mut dyn FnMut(&Owned)) {
        [&self.context].into_iter().chain(&self.server_hostname).for_each(see);
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            context: self.context.clone_ref(py),
            server_side: self.server_side,
            server_hostname: self.server_hostname.as_ref().map(|name| name.clone_ref(py)),
            handshake_timeout: self.handshake_timeout,
            shutdown_timeout: self.shutdown_timeout,
        }
    }
}

/// Makes a TLS transport for `protocol`, to be made the protocol of the transport below. With `connected` the protocol has
/// had its `connection_made` already (`start_tls`). Runs in the caller's context from then on, as do all of its callbacks.
pub fn over<'py>(
    event_loop: &Bound<'py, EventLoop>,
    settings: &Settings,
    protocol: &Bound<'py, PyAny>,
    waiter: Option<&Bound<'py, PyAny>>,
    connected: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let ssl_context = settings.context.bind(py);
    let hostname = settings.server_hostname.as_ref().map(|name| name.bind(py));
    let terms = Terms {
        context: &ssl_context,
        server_side: settings.server_side,
        server_hostname: hostname.as_deref(),
    };
    let Made { engine, ssl_object } = engine::make(py, &terms)?;
    let flow = flow();
    let tls = Tls {
        phase: Phase::New,
        told: if connected { Told::Made } else { Told::Nothing },
        engine: Some(engine),
        ssl_object: Some(ssl_object),
        below: None,
        missed: false,
        buffered_protocol: protocol.is_instance(imports::buffered_protocol(py)?)?,
        waiter: waiter.map(Owned::from),
        unread: Vec::new(),
        below_paused: false,
        backlog: WriteQueue::default(),
        below_full: false,
        eof: false,
        peer_closed: false,
        lost_writes: 0,
        handshake_timeout: settings.handshake_timeout,
        shutdown_timeout: settings.shutdown_timeout,
        timer: None,
        began: None,
        public: Arc::new(Public {
            marks: Marks::new(event_loop, -1, &flow),
            objects: Attached::new(Objects {
                protocol: protocol.into(),
                context: settings.context.clone_ref(py),
                ssl_object: None,
                below: None,
            }),
        }),
        common: Common { protocol: protocol.as_ptr(), context: context::copy_current(py)?, flow },
    };
    class::create(py, tls)
}

#[pymethods]
impl EventLoop {
    /// A TLS transport over a connected transport, for `start_tls`: its protocol side is to be given to that transport.
    #[pyo3(signature = (protocol, sslcontext, waiter, *, server_side=false, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, call_connection_made=true))]
    #[allow(clippy::too_many_arguments)]
    fn _make_tls<'py>(
        slf: &Bound<'py, Self>,
        protocol: &Bound<'py, PyAny>,
        sslcontext: &Bound<'py, PyAny>,
        waiter: &Bound<'py, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'py, PyAny>>,
        ssl_handshake_timeout: Option<f64>,
        ssl_shutdown_timeout: Option<f64>,
        call_connection_made: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.get().check_open()?;
        let settings = Settings::new(
            sslcontext,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        )?;
        over(slf, &settings, protocol, Some(waiter), !call_connection_made)
    }
}
