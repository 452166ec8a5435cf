//! Socket addresses as Python's `socket` module writes them.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use socket2::SockAddr;

/// The Python form of an address: `(host, port)`, `(host, port, flowinfo, scope_id)`, a path; None for families that
/// are not known here (ask the socket object then).
pub fn to_python<'py>(py: Python<'py>, address: &SockAddr) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(v4) = address.as_socket_ipv4() {
        return Ok(Some((v4.ip().to_string(), v4.port()).into_pyobject(py)?.into_any()));
    }
    if let Some(v6) = address.as_socket_ipv6() {
        let (host, scope) = (v6.ip().to_string(), v6.scope_id());
        return Ok(Some((host, v6.port(), u32::from_be(v6.flowinfo()), scope).into_pyobject(py)?.into_any()));
    }
    if i32::from(address.family()) == libc::AF_UNIX {
        if let Some(name) = address.as_abstract_namespace() {
            let mut full = vec![0];
            full.extend_from_slice(name);
            return Ok(Some(PyBytes::new(py, &full).into_any()));
        }
        let path = address.as_pathname().map(|path| path.as_os_str().to_owned()).unwrap_or_default();
        return Ok(Some(path.into_pyobject(py)?.into_any()));
    }
    Ok(None)
}

/// The native form of an IPv4 or IPv6 address with a numeric host.
pub fn from_python(address: &Bound<'_, PyTuple>) -> PyResult<SockAddr> {
    let host: String = address.get_item(0)?.extract()?;
    let port: u16 = address.get_item(1)?.extract()?;
    let optional = |index| -> PyResult<u32> {
        if address.len() > index { address.get_item(index)?.extract() } else { Ok(0) }
    };
    // A scope may be written into the host, as in "fe80::1%2"; getaddrinfo has made it a number by then.
    let bare = host.split('%').next().unwrap_or(&host);
    if let Ok(ip) = bare.parse::<std::net::Ipv4Addr>() {
        return Ok(std::net::SocketAddrV4::new(ip, port).into());
    }
    match bare.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => Ok(std::net::SocketAddrV6::new(ip, port, optional(2)?.to_be(), optional(3)?).into()),
        Err(_) => Err(pyo3::exceptions::PyValueError::new_err("not a numeric address")),
    }
}
