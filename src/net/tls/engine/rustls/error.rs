//! rustls's errors as those of `ssl`: the same classes, and where OpenSSL has a name for the same thing, that name.

use ::rustls::{
    AlertDescription, CertificateError, Error, InconsistentKeys, InvalidMessage, PeerIncompatible,
};
use pyo3::prelude::*;

use crate::py::imports;

/// `ssl.SSL_ERROR_SSL` and `ssl.SSL_ERROR_ZERO_RETURN`.
const PROTOCOL: i32 = 1;
const ZERO_RETURN: i32 = 6;

/// The exception for an error; `hostname` is the name that the certificate had to contain.
pub fn error(py: Python<'_>, error: &Error, hostname: Option<&str>) -> PyErr {
    let made = match error {
        Error::InvalidCertificate(why) => certificate_error(py, why, hostname),
        _ => {
            let (reason, text) = reason(error);
            ssl_error(py, &reason, &text)
        }
    };
    made.unwrap_or_else(|failed| failed)
}

/// `ssl.SSLError` with a reason in OpenSSL's manner.
pub fn ssl_error(py: Python<'_>, reason: &str, text: &str) -> PyResult<PyErr> {
    make(imports::ssl_error(py)?, reason, &format!("[SSL: {reason}] {text}")).map(PyErr::from_value)
}

/// The peer said goodbye where that means failure.
pub fn closed(py: Python<'_>) -> PyErr {
    let made = imports::ssl_zero_return(py)
        .and_then(|class| class.call1((ZERO_RETURN, "TLS/SSL connection has been closed (EOF)")));
    made.map_or_else(|failed| failed, PyErr::from_value)
}

fn make<'py>(class: &Bound<'py, PyAny>, reason: &str, message: &str) -> PyResult<Bound<'py, PyAny>> {
    let value = class.call1((PROTOCOL, message))?;
    value.setattr("library", "SSL")?;
    value.setattr("reason", reason)?;
    Ok(value)
}

fn certificate_error(py: Python<'_>, why: &CertificateError, hostname: Option<&str>) -> PyResult<PyErr> {
    let (code, told) = verdict(why, hostname);
    let message = format!("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {told}");
    let value = make(imports::ssl_certificate_error(py)?, "CERTIFICATE_VERIFY_FAILED", &message)?;
    value.setattr("verify_code", code)?;
    value.setattr("verify_message", told)?;
    Ok(PyErr::from_value(value))
}

/// OpenSSL's number (`X509_V_ERR_*`) and words for what is wrong with a certificate; rustls's words where it has none.
fn verdict(why: &CertificateError, hostname: Option<&str>) -> (u32, String) {
    use CertificateError as E;
    let said = |code, text: &str| (code, text.to_owned());
    match why {
        E::Expired | E::ExpiredContext { .. } => said(10, "certificate has expired"),
        E::NotValidYet | E::NotValidYetContext { .. } => said(9, "certificate is not yet valid"),
        E::Revoked => said(23, "certificate revoked"),
        E::UnknownIssuer => said(20, "unable to get local issuer certificate"),
        E::UnknownRevocationStatus => said(3, "unable to get certificate CRL"),
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => said(12, "CRL has expired"),
        E::BadSignature => said(7, "certificate signature failure"),
        E::UnhandledCriticalExtension => said(34, "unhandled critical extension"),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => said(26, "unsuitable certificate purpose"),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            let name = hostname.unwrap_or_default();
            if name.parse::<std::net::IpAddr>().is_ok() {
                let text = format!("IP address mismatch, certificate is not valid for '{name}'.");
                return (64, text);
            }
            (62, format!("Hostname mismatch, certificate is not valid for '{name}'."))
        }
        // X509_V_ERR_UNSPECIFIED.
        other => (1, other.to_string()),
    }
}

fn reason(error: &Error) -> (String, String) {
    let known = match error {
        Error::AlertReceived(alert) => return alert_reason(*alert),
        Error::NoCertificatesPresented => "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        Error::DecryptError => "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        Error::PeerSentOversizedRecord => "DATA_LENGTH_TOO_LONG",
        Error::NoApplicationProtocol => "NO_APPLICATION_PROTOCOL",
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "KEY_VALUES_MISMATCH",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "UNEXPECTED_MESSAGE"
        }
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "WRONG_VERSION_NUMBER",
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) => "PACKET_LENGTH_TOO_LONG",
        Error::InvalidMessage(_) => "BAD_PACKET",
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::NoCipherSuitesInCommon => "NO_SHARED_CIPHER",
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => "UNSUPPORTED_PROTOCOL",
            _ => "PEER_INCOMPATIBLE",
        },
        Error::PeerMisbehaved(_) => "PEER_MISBEHAVED",
        _ => "INTERNAL_ERROR",
    };
    (known.to_owned(), error.to_string())
}

/// What the peer had to complain of.
fn alert_reason(alert: AlertDescription) -> (String, String) {
    use AlertDescription as A;
    let known = match alert {
        A::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        A::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        A::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        A::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        A::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        A::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        A::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        A::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        A::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        A::RecordOverflow => "TLSV1_ALERT_RECORD_OVERFLOW",
        A::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        A::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        A::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        A::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        A::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        A::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        A::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        A::InappropriateFallback => "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
        A::UserCanceled => "TLSV1_ALERT_USER_CANCELLED",
        A::NoRenegotiation => "TLSV1_ALERT_NO_RENEGOTIATION",
        A::UnrecognisedName => "TLSV1_UNRECOGNIZED_NAME",
        A::UnsupportedExtension => "TLSV1_UNSUPPORTED_EXTENSION",
        A::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        A::MissingExtension => "TLSV13_ALERT_MISSING_EXTENSION",
        A::CertificateRequired => "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        other => return ("ALERT_RECEIVED".to_owned(), format!("alert received: {other:?}")),
    };
    (known.to_owned(), known.to_lowercase().replace('_', " "))
}
