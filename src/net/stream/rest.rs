//! Whether the loop keeps a transport alive.
//!
//! As with asyncio's selectors, it does while something may come of the descriptor: while it is read, or something waits to be
//! sent. A transport that is paused, or whose peer sends no more, and that has nothing to send *rests*: the driver has a
//! weak reference only. Without any other reference it can't be resumed, and it is closed with a warning.
//!
//! Threads: the last reference may go in any thread, so the end of a resting transport may come there. It then touches only
//! what the loop's claim allows; otherwise it posts to the loop.

use pyo3::prelude::*;

use super::{Phase, Stream, Transport};
use crate::driver::{ReadMode, Token};
use crate::event_loop::EventLoop;
use crate::event_loop::door::OnLoop;
use crate::event_loop::endpoint::{Endpoint, with_driver};
use crate::event_loop::remote::Post;
use crate::event_loop::report::{OrReport, Report};
use crate::net::transport::end::Ends;
use crate::py::errors::both;
use crate::py::{Owned, raw};

impl Stream {
    fn may_rest(&self) -> bool {
        self.life.phase == Phase::Open
            && self.queue.is_empty()
            && self.sender.is_none()
            && self.read_mode() == ReadMode::Paused
    }
}

impl Transport<'_, '_> {
    /// After a change of what is read or waits to be sent: has the driver keep the transport, or no more.
    pub(super) fn keep_or_rest(self) -> PyResult<()> {
        let changed = self.with(|stream| {
            let token = stream.life.token?;
            let rests = stream.may_rest();
            (std::mem::replace(&mut stream.rests, rests) != rests).then_some((token, rests))
        })?;
        let Some((token, rests)) = changed else { return Ok(()) };
        let reference = if rests { raw::weak_reference(self.object)? } else { self.object.into() };
        // Our own reference keeps the transport: the driver's is dropped here.
        let former = with_driver(&self.event_loop(), |driver| {
            driver.data_mut(token).map(|endpoint| endpoint.hold_transport(reference, rests))
        })?;
        drop(former);
        Ok(())
    }
}

/// Of a transport without references: leaves the driver, closes the descriptor, notifies the server. In whichever thread; there is no
/// other reference to the transport.
pub(super) fn release(object: &Bound<'_, PyAny>, stream: &mut Stream) -> PyResult<()> {
    let event_loop = Transport::new(object).event_loop();
    let token = stream.life.token.take();
    if let Some(token) = token.filter(|_| stream.rests) {
        forget(&event_loop, token);
    }
    let closed = Stream::close_descriptor(Transport::new(object));
    match stream.server.take().filter(|_| !event_loop.get().shared.is_closed()) {
        Some(server) => both(closed, tell_server(&event_loop, server), object),
        None => closed,
    }
}

/// It may wait for its last connection.
fn tell_server(event_loop: &Bound<'_, EventLoop>, server: Owned) -> PyResult<()> {
    let callback = server.into_bound(event_loop.py()).getattr("_collected")?;
    event_loop.call_method1("call_soon_threadsafe", (callback,)).map(drop)
}

fn forget(event_loop: &Bound<'_, EventLoop>, token: Token) {
    if abandon(event_loop, token).is_err() {
        // Another thread runs the loop. One that closed meanwhile has forgotten everything.
        let finish = Box::new(move |on: OnLoop<'_, '_>| {
            // Cannot fail in the loop's own thread.
            let report = || Report::new("Exception at the end of a transport");
            abandon(on.event_loop(), token).or_report(on.event_loop(), report).map(drop)
        });
        let _ = event_loop.get().shared.inbox.post(Post::Finished(finish));
    }
}

/// What the driver held, a weak reference, is dropped outside the loop's claim. RuntimeError in a foreign thread.
fn abandon(event_loop: &Bound<'_, EventLoop>, token: Token) -> PyResult<()> {
    let endpoint: Option<Endpoint> = event_loop
        .get()
        .with(event_loop.py(), |core| core.driver.as_mut().and_then(|driver| driver.abandon(token)))?;
    drop(endpoint);
    Ok(())
}
