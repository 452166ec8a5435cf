//! `tokioloop.tls.ServerConfig` and `ClientConfig`: what TLS by rustls is made with.
//!
//! They are immutable and hold no Python objects, so any thread may use one, and many loops at once.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

use super::engine::rustls_error;
use crate::py::imports;
use crate::sys;
use crate::sys::detached::detached;

/// Settings of the server's side of TLS connections, for the ssl argument of create_server and similar methods.
///
/// certificate: the chain, the server's own first; key: its private key, not encrypted. Each is the path of a PEM file or PEM
/// text as bytes.
/// client_auth: None, "optional" or "required": whether clients are asked for a certificate, and refused without one.
/// roots: whose clients' certificates are accepted: a path or PEM bytes. Needed with client_auth, and only then.
/// crls: revocation lists for these certificates: a path or PEM bytes. Every client's own certificate is then checked.
/// alpn: protocols in order of preference, str or bytes. A client that offers only others is refused.
/// minimum_version: ssl.TLSVersion.TLSv1_2 or TLSv1_3.
/// session_tickets: how many tickets a TLS 1.3 client gets to resume with; 0 for no resumption at all.
///
/// Raises OSError for files that cannot be read, ssl.SSLError for contents that cannot be used, ValueError and TypeError for
/// other arguments. What it was made from is read once.
#[pyclass(frozen, module = "tokioloop.tls")]
pub struct ServerConfig {
    pub inner: Arc<rustls::ServerConfig>,
}

#[pymethods]
impl ServerConfig {
    #[new]
    #[pyo3(signature = (certificate, key, *, client_auth=None, roots=None, crls=None, alpn=None, minimum_version=None, session_tickets=2))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        certificate: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        client_auth: Option<&str>,
        roots: Option<&Bound<'_, PyAny>>,
        crls: Option<&Bound<'_, PyAny>>,
        alpn: Option<&Bound<'_, PyAny>>,
        minimum_version: Option<&Bound<'_, PyAny>>,
        session_tickets: usize,
    ) -> PyResult<Self> {
        let optional = match client_auth {
            None if roots.is_some() || crls.is_some() => {
                return Err(PyValueError::new_err("roots and crls are for client_auth, which is None"));
            }
            None => None,
            Some("optional") => Some(true),
            Some("required") => Some(false),
            Some(other) => {
                let message =
                    format!("client_auth must be None, \"optional\" or \"required\", not {other:?}");
                return Err(PyValueError::new_err(message));
            }
        };
        let builder = rustls::ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(versions(minimum_version)?)
            .map_err(|error| rustls_error(py, &error, None))?;
        let builder = match optional {
            None => builder.with_no_client_auth(),
            Some(optional) => {
                let Some(roots) = roots else {
                    return Err(PyValueError::new_err("client_auth needs roots"));
                };
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(given_roots(roots)?.into(), PROVIDER.clone());
                let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
                let verifier = match crls {
                    Some(crls) => verifier
                        .with_crls(read_crls(crls)?)
                        .only_check_end_entity_revocation()
                        .enforce_revocation_expiration(),
                    None => verifier,
                };
                builder
                    .with_client_cert_verifier(verifier.build().map_err(|error| unusable(py, "crls", error))?)
            }
        };
        let mut config = builder
            .with_single_cert(read_chain(certificate, "certificate")?, read_key(key)?)
            .map_err(|error| rustls_error(py, &error, None))?;
        config.alpn_protocols = protocols(alpn)?;
        config.send_tls13_tickets = session_tickets;
        if session_tickets > 0 {
            // Tickets hold the session, encrypted: nothing is kept here, as with OpenSSL.
            config.ticketer = ring::Ticketer::new().map_err(|error| rustls_error(py, &error, None))?;
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { inner: Arc::new(config) })
    }

    fn __repr__(&self) -> String {
        format!("<tokioloop.tls.ServerConfig{}>", shown(&self.inner.alpn_protocols))
    }
}

/// Settings of the client's side of TLS connections, for the ssl argument of create_connection and similar methods.
///
/// The server's certificate is always verified, with its name or address (server_hostname, else host).
///
/// roots: whose certificates are accepted: the path of a PEM file or PEM text as bytes; None for the system's.
/// certificate, key: for servers that ask for one: path or PEM bytes, the client's own certificate first; both or none.
/// crls: revocation lists for the servers' certificates: a path or PEM bytes. Every server's own certificate is then checked.
/// alpn: protocols in order of preference, str or bytes.
/// minimum_version: ssl.TLSVersion.TLSv1_2 or TLSv1_3.
///
/// Sessions are resumed between connections to the same server that are made with the same object. Raises as ServerConfig.
#[pyclass(frozen, module = "tokioloop.tls")]
pub struct ClientConfig {
    pub inner: Arc<rustls::ClientConfig>,
}

#[pymethods]
impl ClientConfig {
    #[new]
    #[pyo3(signature = (*, roots=None, certificate=None, key=None, crls=None, alpn=None, minimum_version=None))]
    fn new(
        py: Python<'_>,
        roots: Option<&Bound<'_, PyAny>>,
        certificate: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        crls: Option<&Bound<'_, PyAny>>,
        alpn: Option<&Bound<'_, PyAny>>,
        minimum_version: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let roots = match roots {
            Some(roots) => given_roots(roots)?,
            None => system_roots(py)?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), PROVIDER.clone());
        let verifier = match crls {
            Some(crls) => verifier
                .with_crls(read_crls(crls)?)
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration(),
            None => verifier,
        };
        let builder = rustls::ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(versions(minimum_version)?)
            .map_err(|error| rustls_error(py, &error, None))?
            .with_webpki_verifier(verifier.build().map_err(|error| unusable(py, "crls", error))?);
        let mut config = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(read_chain(certificate, "certificate")?, read_key(key)?)
                .map_err(|error| rustls_error(py, &error, None))?,
            _ => return Err(PyValueError::new_err("certificate and key go together")),
        };
        config.alpn_protocols = protocols(alpn)?;
        Ok(Self { inner: Arc::new(config) })
    }

    fn __repr__(&self) -> String {
        format!("<tokioloop.tls.ClientConfig{}>", shown(&self.inner.alpn_protocols))
    }
}

/// TypeError for a configuration of the other side; others are not looked at.
pub fn check_side(context: &Bound<'_, PyAny>, server_side: bool) -> PyResult<()> {
    if server_side && context.is_instance_of::<ClientConfig>() {
        return Err(PyTypeError::new_err("a server needs a tokioloop.tls.ServerConfig, got a ClientConfig"));
    }
    if !server_side && context.is_instance_of::<ServerConfig>() {
        return Err(PyTypeError::new_err("a client needs a tokioloop.tls.ClientConfig, got a ServerConfig"));
    }
    Ok(())
}

/// One for the process: it has no state.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

fn shown(protocols: &[Vec<u8>]) -> String {
    let names: Vec<_> = protocols.iter().map(|name| String::from_utf8_lossy(name)).collect();
    if names.is_empty() { String::new() } else { format!(" alpn={}", names.join(",")) }
}

static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static FROM_13: [&SupportedProtocolVersion; 1] = [&TLS13];

fn versions(minimum: Option<&Bound<'_, PyAny>>) -> PyResult<&'static [&'static SupportedProtocolVersion]> {
    // `ssl.TLSVersion` is made of the numbers on the wire.
    match minimum.map(|minimum| minimum.extract::<i64>()).transpose()? {
        None | Some(0x0303) => Ok(&FROM_12),
        Some(0x0304) => Ok(&FROM_13),
        Some(_) => Err(PyValueError::new_err("minimum_version must be ssl.TLSVersion.TLSv1_2 or TLSv1_3")),
    }
}

fn protocols(given: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Vec<u8>>> {
    let Some(given) = given else { return Ok(Vec::new()) };
    if given.is_instance_of::<PyString>() || given.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err("alpn must be several protocols, not one string"));
    }
    given
        .try_iter()?
        .map(|name| {
            let name = name?;
            let bytes = match name.cast::<PyBytes>() {
                Ok(bytes) => bytes.as_bytes().to_vec(),
                Err(_) => name.extract::<String>()?.into_bytes(),
            };
            match bytes.len() {
                1..=255 => Ok(bytes),
                _ => Err(PyValueError::new_err("protocols in alpn must have 1 to 255 bytes")),
            }
        })
        .collect()
}

/// The contents of a file, or the bytes that were given instead.
fn read(given: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = given.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    if let Ok(bytes) = given.cast::<PyByteArray>() {
        return Ok(bytes.to_vec());
    }
    read_file(&given.extract::<PathBuf>()?)
}

/// OSError with the file's name.
fn read_file(path: &Path) -> PyResult<Vec<u8>> {
    detached(|token| sys::file::read(token, path)).map_err(|error| {
        let code = error.raw_os_error().unwrap_or(0);
        let text = os_text(&error);
        PyOSError::new_err((code, text, path.to_owned()))
    })
}

/// What the system says, without Rust's "(os error 2)".
fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// `ssl.SSLError` for contents that cannot be used.
fn unusable(py: Python<'_>, argument: &str, why: impl Display) -> PyErr {
    let made = imports::ssl_error(py).and_then(|class| class.call1((1, format!("{argument}: {why}"))));
    made.map_or_else(|failed| failed, PyErr::from_value)
}

/// Everything of one kind in PEM text; SSLError if there is nothing.
fn all_of<T: PemObject>(given: &Bound<'_, PyAny>, argument: &str, kind: &str) -> PyResult<Vec<T>> {
    let contents = read(given)?;
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&contents).collect();
    match items {
        Ok(items) if items.is_empty() => {
            Err(unusable(given.py(), argument, format!("no {kind} in PEM format")))
        }
        Ok(items) => Ok(items),
        Err(error) => Err(unusable(given.py(), argument, error)),
    }
}

fn read_chain(given: &Bound<'_, PyAny>, argument: &str) -> PyResult<Vec<CertificateDer<'static>>> {
    all_of(given, argument, "certificate")
}

fn read_crls(given: &Bound<'_, PyAny>) -> PyResult<Vec<CertificateRevocationListDer<'static>>> {
    all_of(given, "crls", "revocation list")
}

fn read_key(given: &Bound<'_, PyAny>) -> PyResult<PrivateKeyDer<'static>> {
    let keys = all_of(given, "key", "private key that is not encrypted")?;
    Ok(keys.into_iter().next().expect("not empty"))
}

fn given_roots(given: &Bound<'_, PyAny>) -> PyResult<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(given, "roots")? {
        roots.add(certificate).map_err(|error| unusable(given.py(), "roots", error))?;
    }
    Ok(roots)
}

/// What OpenSSL would take: the file that `SSL_CERT_FILE` or its build names, and the directory, where Debian's bundle is
/// worth a hundred files. Certificates that rustls cannot use are left out.
fn system_roots(py: Python<'_>) -> PyResult<RootCertStore> {
    let paths = py.import("ssl")?.call_method0("get_default_verify_paths")?;
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Some(file) = paths.getattr("cafile")?.extract::<Option<PathBuf>>()? {
        candidates.push(file);
    } else if let Some(directory) = paths.getattr("capath")?.extract::<Option<PathBuf>>()? {
        candidates = detached(|token| sys::file::one_or_all(token, &directory, "ca-certificates.crt"));
    }
    let mut roots = RootCertStore::empty();
    for path in candidates {
        let contents = read_file(&path)?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&contents).filter_map(Result::ok));
    }
    if roots.is_empty() {
        return Err(unusable(py, "roots", "the system has none; name a file with them"));
    }
    Ok(roots)
}
