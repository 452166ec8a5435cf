//! What stands for a connection in `get_extra_info("ssl_object")`: what programs ask of an `ssl.SSLObject`.

use std::sync::{Arc, OnceLock};

use ::rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// What the handshake came to. Nothing of it changes afterwards.
pub struct Facts {
    version: Option<ProtocolVersion>,
    suite: Option<CipherSuite>,
    protocol: Option<String>,
    /// The peer's chain, its own certificate first.
    chain: Vec<Vec<u8>>,
    resumed: bool,
}

impl Facts {
    pub fn of(session: &CommonState) -> Self {
        let chain = session.peer_certificates().unwrap_or_default();
        Self {
            version: session.protocol_version(),
            suite: session.negotiated_cipher_suite().map(|suite| suite.suite()),
            protocol: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// A TLS connection made with a configuration of tokioloop.tls; what get_extra_info("ssl_object") gives.
///
/// It has the facts of an ssl.SSLObject, for any thread, even after the connection is lost. It does no I/O.
#[pyclass(frozen, module = "tokioloop.tls")]
pub struct Connection {
    /// The configuration it was made with.
    #[pyo3(get)]
    context: Py<PyAny>,
    /// Whether this side is the server.
    #[pyo3(get)]
    server_side: bool,
    /// The name or address that the server's certificate was checked against; None on the server's side.
    #[pyo3(get)]
    server_hostname: Option<String>,
    facts: Arc<OnceLock<Facts>>,
}

impl Connection {
    pub fn new(
        context: &Bound<'_, PyAny>,
        server_side: bool,
        server_hostname: Option<String>,
        facts: Arc<OnceLock<Facts>>,
    ) -> Self {
        Self { context: context.clone().unbind(), server_side, server_hostname, facts }
    }
}

#[pymethods]
impl Connection {
    /// The protocol's version: "TLSv1.3" or "TLSv1.2".
    fn version(&self) -> Option<&'static str> {
        version_name(self.facts.get()?.version?)
    }

    /// (name, protocol, secret bits) of the cipher, with OpenSSL's name.
    fn cipher(&self) -> Option<(&'static str, &'static str, u32)> {
        let facts = self.facts.get()?;
        let (name, bits) = cipher_name(facts.suite?)?;
        Some((name, version_name(facts.version?)?, bits))
    }

    /// The protocol agreed on by ALPN, or None.
    fn selected_alpn_protocol(&self) -> Option<&str> {
        self.facts.get()?.protocol.as_deref()
    }

    /// With binary_form=True the peer's certificate as DER bytes. Its fields are not taken apart here: without, {} says that
    /// there is a certificate. None if the peer sent none.
    #[pyo3(signature = (binary_form=false))]
    fn getpeercert<'py>(&self, py: Python<'py>, binary_form: bool) -> Option<Bound<'py, PyAny>> {
        let certificate = self.facts.get()?.chain.first()?;
        Some(match binary_form {
            true => PyBytes::new(py, certificate).into_any(),
            false => PyDict::new(py).into_any(),
        })
    }

    /// The chain that the peer sent, its own certificate first, as DER bytes.
    fn get_unverified_chain<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let chain = self.facts.get().map_or(&[][..], |facts| &facts.chain);
        chain.iter().map(|certificate| PyBytes::new(py, certificate)).collect()
    }

    /// None: TLS is not compressed.
    fn compression(&self) -> Option<&'static str> {
        None
    }

    /// Whether the handshake resumed an earlier session.
    #[getter]
    fn session_reused(&self) -> bool {
        self.facts.get().is_some_and(|facts| facts.resumed)
    }

    fn __repr__(&self) -> String {
        let side = if self.server_side { "server" } else { "client" };
        format!("<tokioloop.tls.Connection {side} {}>", self.version().unwrap_or("in handshake"))
    }
}

fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        _ => None,
    }
}

/// OpenSSL's name of a cipher suite, and its secret bits.
fn cipher_name(suite: CipherSuite) -> Option<(&'static str, u32)> {
    use CipherSuite as C;
    Some(match suite {
        C::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", 256),
        C::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", 128),
        C::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", 256),
        C::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-ECDSA-AES256-GCM-SHA384", 256),
        C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-ECDSA-AES128-GCM-SHA256", 128),
        C::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-ECDSA-CHACHA20-POLY1305", 256),
        C::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-RSA-AES256-GCM-SHA384", 256),
        C::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-RSA-AES128-GCM-SHA256", 128),
        C::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-RSA-CHACHA20-POLY1305", 256),
        _ => return None,
    })
}
