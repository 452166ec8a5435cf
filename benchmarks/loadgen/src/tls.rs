//! TLS 1.3 as a client, on a non-blocking stream: rustls with ring, the server's certificate checked.
//!
//! Sessions are never resumed, so every connection costs the server a whole handshake.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The name that the server's certificate must contain.
const NAME: &str = "localhost";

/// Trusts only the authorities of the PEM file `roots`.
pub fn config(roots: &Path) -> Result<Arc<ClientConfig>, String> {
    let at = |error: &dyn std::fmt::Display| format!("--tls {}: {error}", roots.display());
    let mut store = RootCertStore::empty();
    for found in CertificateDer::pem_file_iter(roots).map_err(|error| at(&error))? {
        store.add(found.map_err(|error| at(&error))?).map_err(|error| at(&error))?;
    }
    if store.is_empty() {
        return Err(at(&"no certificate"));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| at(&error))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Plain bytes in and out. `write` drives the handshake; `flush` sends what the kernel did not take yet.
pub struct TlsStream {
    tcp: TcpStream,
    session: ClientConnection,
}

impl TlsStream {
    pub fn new(tcp: TcpStream, config: &Arc<ClientConfig>) -> io::Result<TlsStream> {
        let name = ServerName::try_from(NAME).expect("a valid name");
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(TlsStream { tcp, session })
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub fn tcp_mut(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Reads what the kernel has: Ok(false) at the end of the stream.
    fn receive(&mut self) -> io::Result<bool> {
        let received = self.session.read_tls(&mut self.tcp)?;
        if let Err(error) = self.session.process_new_packets() {
            // The alert tells the server the reason; the error counts, whether or not the alert was sent.
            self.flush().ok();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(received > 0)
    }

    fn close(&mut self) {
        self.session.send_close_notify();
        // Does not wait for a server that has stopped reading.
        self.flush().ok();
    }
}

impl Read for TlsStream {
    /// As for a socket: fewer bytes than asked for mean that the kernel has no more, Ok(0) that the server closed.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.session.reader().read(&mut buf[filled..]) {
                Ok(0) => {
                    self.close();
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(nothing_decrypted) => match self.receive() {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(nothing_decrypted),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(filled)
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.flush()?;
        while self.session.is_handshaking() {
            if !self.receive()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.flush()?;
        }
        self.session.writer().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../certificates/");

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(CERTIFICATES).join(name)
    }

    /// Echoes on one blocking connection until it ends. Returns the number of bytes and whether the client
    /// sent close_notify.
    fn server() -> (std::net::SocketAddr, JoinHandle<io::Result<(usize, bool)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let addr = listener.local_addr().expect("bound");
        let echo = move || {
            let chain = CertificateDer::pem_file_iter(file("server.pem")).expect("there");
            let chain = chain.collect::<Result<_, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("PEM");
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("ring has TLS 1.3")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .expect("the key fits");
            let session = ServerConnection::new(Arc::new(config)).expect("valid");
            let mut stream = rustls::StreamOwned::new(session, listener.accept()?.0);
            let (mut buffer, mut seen) = (vec![0; 50_000], 0);
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return Ok((seen, true)),
                    Ok(n) => {
                        seen += n;
                        stream.write_all(&buffer[..n])?;
                    }
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok((seen, false)),
                    Err(error) => return Err(error),
                }
            }
        };
        (addr, std::thread::spawn(echo))
    }

    fn connect(addr: std::net::SocketAddr, roots: &str) -> TlsStream {
        let tcp = std::net::TcpStream::connect(addr).expect("listening");
        tcp.set_nonblocking(true).expect("a socket");
        let config = config(&file(roots)).expect("a certificate");
        TlsStream::new(TcpStream::from_std(tcp), &config).expect("valid")
    }

    /// Repeats `step` until it does not have to wait.
    fn blocking<T>(mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match step() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    #[test]
    fn bytes_come_back_over_many_records() {
        let (addr, server) = server();
        let mut stream = connect(addr, "ca.pem");
        let sent: Vec<u8> = (0..300_000_u32).map(|i| (i / 7) as u8).collect();
        let (mut wrote, mut back, mut buffer) = (0, Vec::new(), vec![0; 10_000]);
        while back.len() < sent.len() {
            if wrote < sent.len() {
                wrote += blocking(|| stream.write(&sent[wrote..])).expect("written");
            }
            blocking(|| stream.flush()).expect("flushed");
            match stream.read(&mut buffer) {
                Ok(n) => {
                    assert_ne!(n, 0, "the server closed");
                    back.extend_from_slice(&buffer[..n]);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        assert!(back == sent);
        drop(stream);
        let (seen, told) = server.join().expect("no panic").expect("no error");
        assert_eq!((seen, told), (sent.len(), true));
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused() {
        let (addr, server) = server();
        // The server's own certificate is not an authority.
        let mut stream = connect(addr, "server.pem");
        let error = blocking(|| stream.write(b"x")).expect_err("not trusted");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        assert!(server.join().expect("no panic").is_err());
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(config(&file("server.key")).is_err());
        assert!(config(&file("missing.pem")).is_err());
    }
}
