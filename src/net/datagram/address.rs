//! Addresses of datagrams, both ways: made once per sender as long as it stays among the last ones, and read without Python
//! where they are plain.
//!
//! No Python code runs in here: what is kept are exact `str`, `bytes`, and tuples of exact `str` and `int`. Under a claim none of it is
//! released all the same, see `Addresses::take_target_but`.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use pyo3::ffi;
use pyo3::prelude::*;
use socket2::SockAddr;

use crate::net::address;
use crate::py::{Owned, bytes};
use crate::sys::datagram::Name;

/// How many senders are remembered.
const KNOWN: usize = 64;

/// What Python sees of an address, and what the kernel does.
struct Known {
    object: Owned,
    name: Name,
}

/// The addresses that were seen last.
#[derive(Default)]
pub struct Addresses {
    /// Senders, each in the place that its bytes name; made when the first one comes.
    senders: Vec<Option<Known>>,
    /// The place of the one that came last: most replies go there.
    latest: usize,
    /// The address of the last datagram that was not a reply.
    target: Option<Known>,
}

impl Addresses {
    /// The Python form of a sender's address; None for one without (an unbound Unix socket).
    #[inline]
    pub fn sender(&mut self, py: Python<'_>, bytes: &[u8]) -> PyResult<Owned> {
        let place = place_of(bytes);
        if let Some(Some(known)) = self.senders.get(place)
            && known.name.as_bytes() == bytes
        {
            self.latest = place;
            return Ok(known.object.clone_ref(py));
        }
        self.new_sender(py, bytes, place)
    }

    #[cold]
    fn new_sender(&mut self, py: Python<'_>, bytes: &[u8], place: usize) -> PyResult<Owned> {
        let name = Name::new(bytes).filter(|_| !bytes.is_empty());
        let Some(name) = name else { return Ok(py.None().into_bound(py).into()) };
        let Some(object) = address::to_python(py, &name.to_address())? else {
            return Ok(py.None().into_bound(py).into());
        };
        if self.senders.is_empty() {
            self.senders.resize_with(KNOWN, || None);
        }
        self.senders[place] = Some(Known { object: (&object).into(), name });
        self.latest = place;
        Ok(object.into())
    }

    /// The kernel's form of an address given by a program; None when it is for Python's socket to make sense of.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    #[inline]
    pub unsafe fn target(&mut self, family: i32, object: *mut ffi::PyObject) -> Option<&Name> {
        let is = |known: &&Known| known.object.as_ptr() == object;
        // By identity: what is kept can't change.
        if self.senders.get(self.latest).and_then(Option::as_ref).filter(is).is_some() {
            return self.senders[self.latest].as_ref().map(|known| &known.name);
        }
        if self.target.as_ref().filter(is).is_none() {
            // SAFETY: promised by the caller.
            unsafe {
                self.target = Some(Known { name: parse(family, object)?, object: Owned::borrow(object) })
            };
        }
        self.target.as_ref().map(|known| &known.name)
    }

    /// Takes out the kept address that [`target`](Self::target) would replace by `object`, for the caller to drop after its claim.
    pub fn take_target_but(&mut self, object: *mut ffi::PyObject) -> Option<Owned> {
        self.target.take_if(|known| known.object.as_ptr() != object).map(|known| known.object)
    }

    pub fn visit<E>(&self, see: &mut (impl FnMut(&Owned) -> Result<(), E> + ?Sized)) -> Result<(), E> {
        self.senders.iter().flatten().chain(&self.target).try_for_each(|known| see(&known.object))
    }
}

/// Spreads addresses over the places.
#[inline]
fn place_of(bytes: &[u8]) -> usize {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut mixed = 0u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mixed = (mixed.rotate_left(23) ^ u64::from_ne_bytes(word)).wrapping_mul(ODD);
    }
    (mixed >> 32) as usize % KNOWN
}

/// Reads an address of exact types with a numeric host; None for any other.
///
/// # Safety
/// Attached; `object` is alive.
pub unsafe fn parse(family: i32, object: *mut ffi::PyObject) -> Option<Name> {
    // SAFETY: promised by the caller; the items live as long as their tuple.
    let address: SockAddr = unsafe {
        match family {
            libc::AF_INET | libc::AF_INET6 => {
                if ffi::PyTuple_CheckExact(object) == 0 {
                    return None;
                }
                let len = ffi::PyTuple_Size(object);
                let item = |index| {
                    if index < len { ffi::PyTuple_GetItem(object, index) } else { std::ptr::null_mut() }
                };
                if len < 2 {
                    return None;
                }
                let host = text(item(0))?;
                let port = number(item(1), u32::from(u16::MAX))? as u16;
                if family == libc::AF_INET {
                    if len != 2 {
                        return None;
                    }
                    SocketAddrV4::new(host.parse::<Ipv4Addr>().ok()?, port).into()
                } else {
                    let optional =
                        |index, most| if index < len { number(item(index), most) } else { Some(0) };
                    if len > 4 {
                        return None;
                    }
                    let (flow, scope) = (optional(2, 0xf_ffff)?, optional(3, u32::MAX)?);
                    SocketAddrV6::new(host.parse::<Ipv6Addr>().ok()?, port, flow.to_be(), scope).into()
                }
            }
            libc::AF_UNIX if ffi::PyUnicode_CheckExact(object) != 0 => SockAddr::unix(text(object)?).ok()?,
            libc::AF_UNIX if ffi::PyBytes_CheckExact(object) != 0 => {
                SockAddr::unix(OsStr::from_bytes(bytes::contents_raw(object))).ok()?
            }
            _ => return None,
        }
    };
    Name::from_address(&address)
}

/// # Safety
/// Attached; `object` is alive, for as long as the text is used.
unsafe fn text<'a>(object: *mut ffi::PyObject) -> Option<&'a str> {
    // SAFETY: promised; the text is kept by the str object.
    unsafe {
        if ffi::PyUnicode_CheckExact(object) == 0 {
            return None;
        }
        let mut len = 0;
        let start = ffi::PyUnicode_AsUTF8AndSize(object, &mut len);
        if start.is_null() {
            ffi::PyErr_Clear(); // Surrogates: bytes that are not text.
            return None;
        }
        std::str::from_utf8(std::slice::from_raw_parts(start.cast(), len as usize)).ok()
    }
}

/// # Safety
/// Attached; `object` is alive.
unsafe fn number(object: *mut ffi::PyObject, most: u32) -> Option<u32> {
    // SAFETY: promised.
    unsafe {
        if ffi::PyLong_CheckExact(object) == 0 {
            return None;
        }
        let mut overflow = 0;
        let value = ffi::PyLong_AsLongAndOverflow(object, &mut overflow);
        u32::try_from(value).ok().filter(|&value| overflow == 0 && value <= most)
    }
}
