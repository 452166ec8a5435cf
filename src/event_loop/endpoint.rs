//! What the driver keeps for the owner of a registered descriptor: where completions go, and what must stay alive.
//!
//! The loop knows no more of transports, listeners and watches than this; they register themselves from above.

use std::any::Any;

use pyo3::prelude::*;

use super::EventLoop;
use super::on_loop::OnLoop;
use crate::driver::{Completion, Driver, Token};
use crate::py::fatal::OrFatal;
use crate::py::{Owned, raw};

/// Takes a completion to its owner. Called on the loop's thread, inside a run, with no borrow of the core.
pub type Dispatch = fn(OnLoop<'_, '_>, Token, Completion) -> OrFatal;

pub struct Endpoint {
    pub dispatch: Dispatch,
    holds: Holds,
}

enum Holds {
    Nothing,
    /// A transport: the loop keeps it alive while its descriptor is registered.
    Transport(Owned),
    /// A transport that nothing can come of: a weak reference.
    Resting(Owned),
    Native(Box<dyn Native>),
}

/// State of an owner that is not a Python object.
pub trait Native: Any {
    /// Shows each Python object in it to the garbage collector.
    fn each(&self, see: &mut dyn FnMut(&Owned));
}

impl Endpoint {
    pub fn bare(dispatch: Dispatch) -> Self {
        Self { dispatch, holds: Holds::Nothing }
    }

    pub fn transport(dispatch: Dispatch, transport: Owned) -> Self {
        Self { dispatch, holds: Holds::Transport(transport) }
    }

    pub fn native(dispatch: Dispatch, state: impl Native) -> Self {
        Self { dispatch, holds: Holds::Native(Box::new(state)) }
    }

    /// Holds the transport by `reference`, a weak one if it `rests`. Returns the former reference for the caller to drop.
    pub fn hold_transport(&mut self, reference: Owned, rests: bool) -> Option<Owned> {
        let holds = if rests { Holds::Resting(reference) } else { Holds::Transport(reference) };
        match std::mem::replace(&mut self.holds, holds) {
            Holds::Transport(former) | Holds::Resting(former) => Some(former),
            _ => None,
        }
    }

    /// The transport, if the descriptor is one's that lives, resting or not.
    pub fn transport_of(&self, py: Python<'_>) -> Option<Owned> {
        match &self.holds {
            Holds::Transport(transport) => Some(transport.clone_ref(py)),
            Holds::Resting(reference) => raw::referent(py, reference),
            _ => None,
        }
    }

    /// The transport object, if the descriptor is one's that does not rest.
    #[inline]
    pub fn as_transport(&self) -> Option<&Owned> {
        match &self.holds {
            Holds::Transport(transport) => Some(transport),
            _ => None,
        }
    }

    /// The owner's state, if it is a `T`.
    pub fn state<T: Native>(&self) -> Option<&T> {
        match &self.holds {
            Holds::Native(state) => (&**state as &dyn Any).downcast_ref(),
            _ => None,
        }
    }

    pub fn state_mut<T: Native>(&mut self) -> Option<&mut T> {
        match &mut self.holds {
            Holds::Native(state) => (&mut **state as &mut dyn Any).downcast_mut(),
            _ => None,
        }
    }

    pub fn visit<E>(&self, visit: &mut impl FnMut(&Owned) -> Result<(), E>) -> Result<(), E> {
        match &self.holds {
            Holds::Nothing => Ok(()),
            Holds::Transport(reference) | Holds::Resting(reference) => visit(reference),
            Holds::Native(state) => {
                let mut result = Ok(());
                state.each(&mut |object| {
                    if result.is_ok() {
                        result = visit(object);
                    }
                });
                result
            }
        }
    }
}

/// The loop's driver, for a closure that must not call into Python.
pub(crate) fn with_driver<R>(
    event_loop: &Bound<'_, EventLoop>,
    f: impl FnOnce(&mut Driver<Endpoint>) -> R,
) -> PyResult<R> {
    // What it captured is dropped outside of the claim where there is no driver.
    let mut f = Some(f);
    event_loop.get().with(event_loop.py(), |core| {
        core.driver().map(|driver| f.take().map(|f| f(driver)).expect("called once"))
    })?
}
