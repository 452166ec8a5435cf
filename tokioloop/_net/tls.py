"""TLS: the meaning of ``ssl=``, and ``start_tls``."""

from __future__ import annotations

import socket
from asyncio import BaseProtocol, Future, StreamReaderProtocol, Transport
from typing import TYPE_CHECKING, Any, NamedTuple

from .._tokioloop import ClientConfig, EventLoop, ServerConfig

if TYPE_CHECKING:
    from ssl import SSLContext

# The types of ``ssl=`` for a server, a client, and either.
type ServerTerms = "SSLContext | ServerConfig"
type ClientTerms = "SSLContext | ClientConfig"
type Terms = "SSLContext | ServerConfig | ClientConfig"


class Security(NamedTuple):
    """The TLS arguments of a connect or of a server; timeouts in seconds, None for asyncio's defaults."""

    context: Terms
    handshake_timeout: float | None = None
    shutdown_timeout: float | None = None
    server_side: bool = False
    server_hostname: str | None = None


def client_security(
    ssl: bool | Terms | None,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> Security | None:
    """Convert the TLS arguments of a connect; None without TLS. ``ssl=True`` means the default context."""
    if not ssl:
        return None
    context = _default_context(server_hostname) if isinstance(ssl, bool) else ssl
    return Security(context, handshake_timeout, shutdown_timeout, server_hostname=server_hostname)


def _default_context(server_hostname: str | None) -> SSLContext:
    from ssl import create_default_context

    context = create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


class Tls(EventLoop):
    """start_tls, and how connections get TLS."""

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: BaseProtocol,
        sslcontext: Terms,
        waiter: Future[None],
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Transport:
        """Put a transport and TLS on a connected socket; *waiter* is done when the handshake is over."""
        tls = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._make_socket_transport(rawsock, tls)
        return tls  # type: ignore[no-any-return]

    async def start_tls(
        self,
        transport: Any,
        protocol: BaseProtocol,
        sslcontext: Terms,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Transport:
        """Upgrade a connection to TLS and return the transport that *protocol* is to use from then on.

        *transport* is any transport of this loop or of asyncio that allows it, TLS ones included. Raises TypeError for
        another, ssl.SSLError when the handshake fails, ConnectionAbortedError when it takes too long.

        A client whose stream reader holds unread bytes gets ssl.SSLError before anything is changed: they came in plain
        text, perhaps from an attacker, and would be read as the first bytes inside TLS. A server's belong to TLS.
        """
        self._check_thread()
        _check_context(sslcontext)
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        if not server_side:
            _refuse_plaintext(protocol)
        waiter = self.create_future()
        tls = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            call_connection_made=False,
        )
        # Before the protocol below changes: nothing may arrive before the handshake begins.
        transport.pause_reading()
        if server_side:
            _take_over_buffer(protocol, tls)
        transport.set_protocol(tls)
        begin = self.call_soon(tls.connection_made, transport)
        resume = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            begin.cancel()
            resume.cancel()
            raise
        return tls  # type: ignore[no-any-return]


def _check_context(sslcontext: object) -> None:
    from ssl import SSLContext

    if not isinstance(sslcontext, SSLContext | ServerConfig | ClientConfig):
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")


def _buffering_reader(protocol: BaseProtocol) -> Any:
    """Return the stream reader behind *protocol* if it holds unread bytes."""
    reader = getattr(protocol, "_stream_reader", None) if isinstance(protocol, StreamReaderProtocol) else None
    return reader if reader is not None and reader._buffer else None


def _refuse_plaintext(protocol: BaseProtocol) -> None:
    reader = _buffering_reader(protocol)
    if reader is not None:
        from ssl import SSLError

        raise SSLError(
            f"start_tls() with {len(reader._buffer)} bytes of plain text unread: they did not come by TLS, and would be "
            "taken for the first that did"
        )


def _take_over_buffer(protocol: BaseProtocol, tls: Any) -> None:
    """Pass to TLS the bytes that a stream reader has received already: a client may begin its handshake at once."""
    reader = _buffering_reader(protocol)
    if reader is not None:
        data = bytes(reader._buffer)
        reader._buffer.clear()
        tls.data_received(data)
