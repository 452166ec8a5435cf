//! Name resolution through libc. Both calls block.

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

use super::detached::Detached;

/// One entry of `getaddrinfo`'s answer.
#[derive(Debug)]
pub struct AddrInfo {
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    pub canonical_name: Option<CString>,
    pub address: SockAddr,
}

/// A resolver's error: an `EAI_*` code, or the system error behind `EAI_SYSTEM`.
#[derive(Debug)]
pub enum ResolveError {
    Resolver { code: i32, message: String },
    System(io::Error),
}

fn resolve_error(code: i32) -> ResolveError {
    if code == libc::EAI_SYSTEM {
        return ResolveError::System(io::Error::last_os_error());
    }
    // SAFETY: gai_strerror returns a static string for every code.
    let message = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    ResolveError::Resolver { code, message: message.to_string_lossy().into_owned() }
}

/// What to resolve; the fields are those of POSIX `getaddrinfo`.
#[derive(Debug, Clone)]
pub struct Query {
    pub host: Option<CString>,
    pub service: Option<CString>,
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    pub flags: i32,
}

/// `getaddrinfo(3)`. Blocks.
pub fn resolve(_: &Detached, query: &Query) -> Result<Vec<AddrInfo>, ResolveError> {
    // SAFETY: a zeroed addrinfo is valid: null pointers and zeros.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = query.family;
    hints.ai_socktype = query.kind;
    hints.ai_protocol = query.protocol;
    hints.ai_flags = query.flags;
    let name = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    let mut list = ptr::null_mut();
    // SAFETY: all pointers are null or live until the call returns.
    let code = unsafe { libc::getaddrinfo(name(&query.host), name(&query.service), &hints, &mut list) };
    if code != 0 {
        return Err(resolve_error(code));
    }
    let mut answer = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: libc's list is well formed until freeaddrinfo.
        let info = unsafe { &*next };
        next = info.ai_next;
        if info.ai_addr.is_null() {
            continue;
        }
        let mut storage = SockAddrStorage::zeroed();
        let len = info.ai_addrlen.min(storage.size_of());
        // SAFETY: `ai_addr` has `ai_addrlen` bytes; `len` does not exceed the storage.
        let address = unsafe {
            let to = storage.view_as::<libc::sockaddr_storage>() as *mut libc::sockaddr_storage;
            ptr::copy_nonoverlapping(info.ai_addr.cast::<u8>(), to.cast::<u8>(), len as usize);
            SockAddr::new(storage, len)
        };
        let canonical_name = if info.ai_canonname.is_null() {
            None
        } else {
            // SAFETY: a C string owned by the list.
            Some(unsafe { CStr::from_ptr(info.ai_canonname) }.to_owned())
        };
        answer.push(AddrInfo {
            family: info.ai_family,
            kind: info.ai_socktype,
            protocol: info.ai_protocol,
            canonical_name,
            address,
        });
    }
    // SAFETY: the list came from getaddrinfo and is freed once.
    unsafe { libc::freeaddrinfo(list) };
    Ok(answer)
}

/// `getnameinfo(3)`: the host's and the service's name. Blocks.
pub fn resolve_name(
    _: &Detached,
    address: &SockAddr,
    flags: i32,
) -> Result<(CString, CString), ResolveError> {
    let mut host = [0u8; 1025]; // NI_MAXHOST
    let mut service = [0u8; 32]; // NI_MAXSERV
    // SAFETY: the address and both buffers are valid for the lengths given.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            host.as_mut_ptr().cast(),
            host.len() as libc::socklen_t,
            service.as_mut_ptr().cast(),
            service.len() as libc::socklen_t,
            flags,
        )
    };
    if code != 0 {
        return Err(resolve_error(code));
    }
    let text = |buffer: &[u8]| CStr::from_bytes_until_nul(buffer).unwrap_or_default().to_owned();
    Ok((text(&host), text(&service)))
}

#[cfg(test)]
mod tests {
    use super::super::detached::detached;
    use super::*;

    #[test]
    fn resolves_a_numeric_host_and_names_an_address() {
        let query = Query {
            host: Some(c"127.0.0.1".into()),
            service: Some(c"80".into()),
            family: libc::AF_INET,
            kind: libc::SOCK_STREAM,
            protocol: 0,
            flags: libc::AI_NUMERICHOST,
        };
        let answer = detached(|token| resolve(token, &query)).expect("a numeric host needs no resolver");
        let address = answer[0].address.as_socket_ipv4().expect("asked for IPv4");
        assert_eq!((address.ip().to_string(), address.port()), ("127.0.0.1".into(), 80));
        let (host, service) = detached(|token| {
            resolve_name(token, &answer[0].address, libc::NI_NUMERICHOST | libc::NI_NUMERICSERV)
        })
        .unwrap();
        assert_eq!((host.to_bytes(), service.to_bytes()), (&b"127.0.0.1"[..], &b"80"[..]));
    }

    #[test]
    fn a_bad_numeric_host_is_a_resolver_error() {
        let query = Query {
            host: Some(c"not-a-number".into()),
            service: None,
            family: 0,
            kind: 0,
            protocol: 0,
            flags: libc::AI_NUMERICHOST,
        };
        let answer = detached(|token| resolve(token, &query));
        assert!(matches!(answer, Err(ResolveError::Resolver { code: libc::EAI_NONAME, .. })));
    }
}
