//! Where to connect to, and a stream that is TCP, Unix or TLS over TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;

use crate::tls::TlsStream;

#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Tls(SocketAddr, Arc<ClientConfig>),
}

impl Target {
    pub fn tcp(text: &str) -> Result<Target, String> {
        let mut found = text.to_socket_addrs().map_err(|e| format!("--addr {text}: {e}"))?;
        found.next().map(Target::Tcp).ok_or_else(|| format!("--addr {text}: no address"))
    }

    /// The same address with TLS.
    pub fn with_tls(self, config: Arc<ClientConfig>) -> Result<Target, String> {
        match self {
            Target::Tcp(addr) | Target::Tls(addr, _) => Ok(Target::Tls(addr, config)),
            Target::Unix(_) => Err("--tls goes with --addr".to_owned()),
        }
    }

    /// A non-blocking stream. A TCP one may still be connecting; a Unix one is connected.
    pub fn connect(&self) -> io::Result<Stream> {
        match self {
            Target::Tcp(addr) => Ok(Stream::Tcp(tcp(*addr)?)),
            Target::Tls(addr, config) => Ok(Stream::Tls(Box::new(TlsStream::new(tcp(*addr)?, config)?))),
            // A non-blocking Unix connect fails with EAGAIN while the backlog is full; a blocking one waits.
            Target::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(UnixStream::from_std(stream)))
            }
        }
    }
}

fn tcp(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Ok(false) while a TCP connect is still under way.
    pub fn connected(&self) -> io::Result<bool> {
        let stream = match self {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.tcp(),
            Stream::Unix(_) => return Ok(true),
        };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Unix(stream) => stream.read(buf),
            Stream::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buf),
            Stream::Unix(stream) => stream.write(buf),
            Stream::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tls(stream) => stream.flush(),
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
        }
    }
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
            Stream::Tls(stream) => stream.tcp_mut(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
