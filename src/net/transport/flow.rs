//! Write flow control: when a protocol is told to pause and resume writing, and in whose context.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{Kind, Transport};
use crate::event_loop::report::Report;
use crate::proto::flow::{BadLimits, FlowChange};
use crate::py::context;
use crate::py::names::names;

/// On whose behalf a change is made: in whose context the protocol is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// In the context that is entered: that of the program that called, or the transport's where the loop has entered it.
    User,
    /// In the transport's, which the loop has not entered.
    Loop,
}

impl<K: Kind> Transport<'_, '_, K> {
    /// Tells the protocol to pause or resume writing. What that raises is reported, as asyncio does.
    #[inline]
    pub fn tell(self, change: FlowChange, caller: Caller) -> PyResult<()> {
        if change == FlowChange::None { Ok(()) } else { self.tell_change(change, caller) }
    }

    fn tell_change(self, change: FlowChange, caller: Caller) -> PyResult<()> {
        let (name, message) = match change {
            FlowChange::None => return Ok(()),
            FlowChange::Pause => (names().pause_writing, "protocol.pause_writing() failed"),
            FlowChange::Resume => (names().resume_writing, "protocol.resume_writing() failed"),
        };
        let protocol = self.protocol();
        let call = || protocol.call_method0(name.bind(self.py())).map(drop);
        let told = match caller {
            Caller::User => call(),
            Caller::Loop => context::run(self.py(), &self.context()?, call),
        };
        let Err(error) = told else { return Ok(()) };
        let report = Report::new(message).error(error).transport(self.object).protocol(protocol);
        Ok(report.send(&self.event_loop())?)
    }

    /// `set_write_buffer_limits`: ValueError for limits that are out of order.
    pub fn set_limits(self, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        K::send_held(self)?;
        let high = if high.is_none() && low.is_none() { K::HIGH } else { high };
        let set = self.with(|state| {
            let flow = &mut state.common().flow;
            flow.set_limits(high, low)?;
            let limits = flow.limits();
            Ok((limits, state.limits_changed()))
        })?;
        let ((low, high), change) = set.map_err(|BadLimits { high, low }| {
            PyValueError::new_err(format!("high ({high}) must be >= low ({low}) must be >= 0"))
        })?;
        self.marks(|marks| {
            marks.low.store(low, Ordering::Relaxed);
            marks.high.store(high, Ordering::Relaxed);
        });
        self.tell(change, Caller::User)
    }
}
