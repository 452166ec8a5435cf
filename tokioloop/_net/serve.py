"""Listening: create_server, create_unix_server, and the loop's side of a server."""

from __future__ import annotations

import errno
import os
import socket
from asyncio import BaseProtocol, gather, sleep
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._loop.lifecycle import Listeners
from .._loop.log import logger
from .names import AddrInfo, Host, Names, Port
from .server import Server
from .sockets import (
    check_ssl_timeouts,
    check_stream,
    check_unix_stream,
    is_abstract,
    refuse_ssl_socket,
    remove_stale,
    set_reuse_port,
)
from .tls import Security, ServerTerms

type _Factory = Callable[[], BaseProtocol]


class Serve(Names, Listeners):
    """create_server and create_unix_server."""

    # Inode of each Unix listening socket to be unlinked when its server closes.
    _unix_server_sockets: dict[socket.socket, int] | None = None

    async def create_server(
        self,
        protocol_factory: _Factory,
        host: Host | Sequence[Host] = None,
        port: Port = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ServerTerms | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server:
        """Listen for TCP connections on every address of *host*: a name, several, or None for all.

        IPv6 sockets take IPv6 only, so that both families can be bound to one port. Raises OSError when an
        address cannot be bound.
        """
        self._check_thread()
        check_server_ssl(ssl, ssl is not None, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sock is not None:
            refuse_ssl_socket(sock)

        if host is not None or port is not None:
            if sock is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            infos = await self._resolve_hosts(hosts_of(host), port, family, flags)
            sockets = self._bind_all(infos, reuse_address is None or reuse_address, reuse_port, keep_alive)
        else:
            if sock is None:
                raise ValueError("Neither host/port nor sock were specified")
            check_stream(sock)
            sockets = [sock]
        security = (
            Security(ssl, ssl_handshake_timeout, ssl_shutdown_timeout, server_side=True) if ssl else None
        )
        server = await self._serve(
            sockets, protocol_factory, backlog, start_serving, security, ours=sock is None
        )
        if self.get_debug():
            logger.info("%r is serving", server)
        return server

    async def create_unix_server(
        self,
        protocol_factory: _Factory,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ServerTerms | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = True,
    ) -> Server:
        """Listen for Unix stream connections at *path*, replacing a stale socket file.

        With *cleanup_socket* the file is removed when the server closes, unless another has taken its place.
        """
        self._check_thread()
        check_server_ssl(ssl, bool(ssl), ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            listener = bind_unix(os.fspath(path))
        else:
            if sock is None:
                raise ValueError("path was not specified, and no sock specified")
            check_unix_stream(sock)
            listener = sock
        if cleanup_socket:
            self._note_unix_socket(listener)
        security = (
            Security(ssl, ssl_handshake_timeout, ssl_shutdown_timeout, server_side=True) if ssl else None
        )
        return await self._serve(
            [listener], protocol_factory, backlog, start_serving, security, ours=sock is None
        )

    async def _serve(
        self,
        sockets: list[socket.socket],
        protocol_factory: _Factory,
        backlog: int,
        start_serving: bool,
        security: Security | None,
        *,
        ours: bool,
    ) -> Server:
        for sock in sockets:
            sock.setblocking(False)
        server = Server(self, sockets, protocol_factory, backlog, security)
        if start_serving:
            try:
                server._start_serving()
                # One turn, so that the sockets are watched when the caller goes on.
                await sleep(0)
            except BaseException:
                # The caller would not get this server. A socket of the caller's stays the caller's.
                if ours:
                    server.close()
                raise
        return server

    async def _resolve_hosts(
        self, hosts: Iterable[Host], port: Port, family: int, flags: int
    ) -> list[AddrInfo]:
        """Resolve every host at the same time; an address that several hosts share is listed once."""

        async def resolve(host: Host) -> Sequence[AddrInfo]:
            infos = await self._ensure_resolved((host, port), family=family, flags=flags)
            if not infos:
                raise OSError(f"getaddrinfo({host!r}) returned empty list")
            return infos

        answers = await gather(*map(resolve, hosts))
        return list(dict.fromkeys(info for infos in answers for info in infos))

    def _bind_all(
        self, infos: Sequence[AddrInfo], reuse_address: bool, reuse_port: bool | None, keep_alive: bool | None
    ) -> list[socket.socket]:
        """Bind one socket per address; all or none. Addresses the machine does not have are left out."""
        sockets: list[socket.socket] = []
        try:
            for family, kind, proto, _, address in infos:
                try:
                    sock = socket.socket(family, kind, proto)
                except OSError:
                    # A family the kernel was built without.
                    if self.get_debug():
                        logger.warning(
                            "create_server() failed to create socket.socket(%r, %r, %r)",
                            family,
                            kind,
                            proto,
                            exc_info=True,
                        )
                    continue
                sockets.append(sock)
                _set_options(sock, family, reuse_address, reuse_port, keep_alive)
                try:
                    sock.bind(address)
                except OSError as exc:
                    text = f"error while attempting to bind on address {address!r}: {str(exc).lower()}"
                    if exc.errno != errno.EADDRNOTAVAIL:
                        raise OSError(exc.errno, text) from None
                    sockets.pop().close()
                    if self.get_debug():
                        logger.warning(text)
            if not sockets:
                raise OSError(f"could not bind on any address out of {[info[4] for info in infos]!r}")
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    # Called by Server.

    def _start_serving(
        self,
        protocol_factory: _Factory,
        sock: socket.socket,
        server: Server,
        backlog: int,
        security: Security | None,
    ) -> None:
        if security is None:
            self._accept(sock, protocol_factory, server, backlog)
        else:
            self._accept(sock, protocol_factory, server, backlog, *security[:3])

    def _stop_serving(self, sock: socket.socket) -> None:
        """Stop accepting on *sock*, close it, and unlink its file if that is ours. The loop may be closed."""
        inode = self._unix_server_sockets.pop(sock, None) if self._unix_server_sockets else None
        path = sock.getsockname() if inode is not None else None
        if not self.is_closed():
            self._stop_accept(sock)
        sock.close()
        if path is not None:
            try:
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)

    def _note_unix_socket(self, sock: socket.socket) -> None:
        path = sock.getsockname()
        if is_abstract(path):
            return
        try:
            inode = os.stat(path).st_ino
        except FileNotFoundError:
            return
        if self._unix_server_sockets is None:
            self._unix_server_sockets = {}
        self._unix_server_sockets[sock] = inode


def hosts_of(host: Host | Sequence[Host]) -> Iterable[Host]:
    """The hosts to listen on; None stands for all addresses of the machine."""
    if host == "":
        return [None]
    if isinstance(host, str) or not isinstance(host, Iterable):
        return [host]
    return host  # type: ignore[return-value]


def check_server_ssl(ssl: object, given: bool, handshake: float | None, shutdown: float | None) -> None:
    """Refuse what cannot stand for TLS on a server, and timeouts of TLS without it."""
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    check_ssl_timeouts(given, handshake, shutdown)


def _set_options(
    sock: socket.socket, family: int, reuse_address: bool, reuse_port: bool | None, keep_alive: bool | None
) -> None:
    if reuse_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    if reuse_port and family in (socket.AF_INET, socket.AF_INET6):
        # Newer kernels refuse it for other families.
        set_reuse_port(sock)
    if keep_alive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    if family == socket.AF_INET6:
        # Otherwise the kernel would take IPv4 here too, and the IPv4 socket could not be bound.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)


def bind_unix(path: Any) -> socket.socket:
    """Make a Unix socket at *path*, in the place of a socket file that was left there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not is_abstract(path):
            remove_stale(path)
        sock.bind(path)
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    return sock
