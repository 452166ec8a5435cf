//! The beginning of a connection that was accepted: its protocol and its transport, with TLS in between where that is asked for.

use std::os::fd::AsRawFd;

use pyo3::prelude::*;
use socket2::SockAddr;

use super::stream::{self, Extra, Parts};
use super::tls;
use crate::driver::Connection;
use crate::event_loop::EventLoop;
use crate::event_loop::report::{OrReport, Report};
use crate::py::fatal::OrFatal;
use crate::py::{Owned, context};

/// What a server's connections are made with.
pub struct Terms {
    pub factory: Owned,
    pub server: Option<Owned>,
    pub tls: Option<tls::Settings>,
    /// The context of the call that started the server; each connection runs in a copy.
    pub context: Owned,
}

impl Terms {
    /// Shows the Python objects to the garbage collector.
    pub fn each(&self, see: &mut dyn FnMut(&Owned)) {
        [&self.factory, &self.context].into_iter().chain(&self.server).for_each(&mut *see);
        self.tls.iter().for_each(|settings| settings.each(see));
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            factory: self.factory.clone_ref(py),
            server: self.server.as_ref().map(|server| server.clone_ref(py)),
            tls: self.tls.as_ref().map(|settings| settings.clone_ref(py)),
            context: self.context.clone_ref(py),
        }
    }
}

/// Makes protocol and transport and starts them, on the loop's thread. `made` is the transport from the moment there is one, whose
/// end its server learns of. What went wrong is reported.
pub fn begin<'py>(
    event_loop: &Bound<'py, EventLoop>,
    terms: Terms,
    socket: Connection,
    peer: SockAddr,
    made: &mut Option<Bound<'py, PyAny>>,
) -> OrFatal {
    let py = event_loop.py();
    let Terms { factory, server, tls: settings, context } = terms;
    // SAFETY: owned while running; the borrow ends with the statement.
    unsafe { event_loop.get().core_mut() }.counters.accepts += 1;
    let copied = context::copy(py, &context);
    // Where there is no copy, in the server's own.
    let inside = copied.as_ref().unwrap_or(&context).clone_ref(py);
    let result = copied.and_then(|context| {
        context::run(py, &inside, || {
            let mut protocol = factory.bind(py).call0()?;
            if let Some(settings) = settings {
                protocol = tls::over(event_loop, &settings, &protocol, None, false)?;
            }
            // A stream socket of an IP family is TCP's (or something over it, which knows the option too).
            let (family, is_tcp) = (i32::from(peer.family()), peer.is_ipv4() || peer.is_ipv6());
            let extra = Extra { peer: Some(peer), ..Extra::default() };
            let server = server.map(|server| server.into_bound(py));
            let parts =
                Parts { fd: socket.as_raw_fd(), owned: Some(socket), protocol, context, server, extra };
            let transport = stream::make_known(event_loop, parts, family, is_tcp)?;
            *made = Some(transport.clone());
            stream::start(&transport, None)
        })
    });
    let report = || match &*made {
        Some(transport) => Report::new("Exception in callback protocol.connection_made()")
            .transport(transport)
            .inside(inside),
        None => Report::new("Error on transport creation for incoming connection").inside(inside),
    };
    result.or_report(event_loop, report).map(drop)
}
