//! `get_extra_info`: the socket, its addresses, and what the maker of the transport added.
//!
//! An accepted connection costs no Python socket object unless the program asks for one.

use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use socket2::SockAddr;

use crate::net::{address, sock};
use crate::py::{Owned, imports};
use crate::sys;

/// Behind the transport's lock: any thread may ask.
#[derive(Default)]
pub struct Extra {
    /// The Python socket, which then owns the descriptor.
    pub socket: Option<Owned>,
    /// The file object of a pipe, which owns the descriptor.
    pub pipe: Option<Owned>,
    /// Where an accepted connection came from.
    pub peer: Option<SockAddr>,
    /// The local address, remembered when the socket closes.
    pub local: Option<SockAddr>,
    /// What the maker of the transport gave, by name.
    pub given: Option<Owned>,
    /// The descriptor is not ours any more.
    pub closed: bool,
}

impl Extra {
    /// The socket is about to close: remembers what can't be asked afterwards. Returns the Python object, which then closes.
    pub fn socket_closed(&mut self, py: Python<'_>, fd: RawFd) -> Option<Owned> {
        if let Some(pipe) = &self.pipe {
            return Some(pipe.clone_ref(py));
        }
        if self.local.is_none() {
            self.local = sys::socket::local_address(fd).ok();
        }
        self.closed = true;
        self.socket.as_ref().map(|socket| socket.clone_ref(py))
    }

    pub fn visit<E>(&self, visit: &mut (impl FnMut(&Owned) -> Result<(), E> + ?Sized)) -> Result<(), E> {
        self.socket.iter().chain(&self.pipe).chain(&self.given).try_for_each(visit)
    }
}

impl<'py> super::Transport<'_, 'py> {
    pub(super) fn extra_info(self, name: &str, default: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let given = self.public(|public| {
            let objects = public.objects.lock(py);
            objects.extra.given.as_ref().map(|given| given.clone_ref(py))
        });
        if let Some(given) = given
            && let Some(value) = given.into_bound(py).cast_into::<PyDict>()?.get_item(name)?
        {
            return Ok(value);
        }
        let pipe =
            self.public(|public| public.objects.lock(py).extra.pipe.as_ref().map(|pipe| pipe.clone_ref(py)));
        let known = match name {
            "pipe" => pipe.map(|pipe| pipe.into_bound(py)),
            _ if pipe.is_some() => None,
            "socket" => {
                // A direct write to the socket must come after earlier writes of the transport.
                if self.event_loop().get().shared.is_mine() {
                    self.flush_held()?;
                }
                self.socket()?
            }
            "sockname" => {
                let fd = self.fd();
                let local = self.public(|public| public.objects.lock(py).extra.local.clone());
                self.address(local.or_else(|| sys::socket::local_address(fd?).ok()))?
            }
            "peername" => self.address(self.public(|public| public.objects.lock(py).extra.peer.clone()))?,
            _ => None,
        };
        Ok(known.unwrap_or(default))
    }

    fn address(self, address: Option<SockAddr>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(address) = address else { return Ok(None) };
        match address::to_python(self.py(), &address)? {
            Some(address) => Ok(Some(address)),
            None => Ok(None),
        }
    }

    /// The socket as a TransportSocket; made of the descriptor at the first call.
    fn socket(self) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py();
        let known = || {
            self.public(|public| {
                public.objects.lock(py).extra.socket.as_ref().map(|socket| socket.clone_ref(py))
            })
        };
        if let Some(socket) = known() {
            return imports::transport_socket(py)?.call1((socket.bind(py),)).map(Some);
        }
        let Some(fd) = self.fd() else { return Ok(None) };
        // It may close under another thread's hands.
        let Ok(made) = sock::python_socket(py, fd) else { return Ok(None) };
        // Another thread may have made one too, or the loop closed the descriptor: then this one must not own it.
        let kept = self.public(|public| {
            let extra = &mut public.objects.lock(py).extra;
            let kept = extra.socket.is_none() && !extra.closed;
            if kept {
                extra.socket = Some((&made).into());
            }
            kept
        });
        if kept {
            return imports::transport_socket(py)?.call1((made,)).map(Some);
        }
        made.call_method0("detach")?;
        match known() {
            Some(socket) => imports::transport_socket(py)?.call1((socket.bind(py),)).map(Some),
            None => Ok(None),
        }
    }
}
