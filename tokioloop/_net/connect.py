"""Outgoing connections: TCP with happy eyeballs, Unix, and sockets that are connected already."""

from __future__ import annotations

import os
import socket
from asyncio import BaseProtocol, Transport, staggered
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from .._loop.log import logger
from .names import AddrInfo, Host, Names, Port, take_turns
from .sockets import begun, check_ssl_timeouts, check_stream, check_unix_stream, refuse_ssl_socket
from .tls import ClientTerms, Security, ServerTerms, Tls, client_security


class Connect(Names, Tls):
    """create_connection, create_unix_connection, connect_accepted_socket and sock_connect."""

    async def create_connection[P: BaseProtocol](
        self,
        protocol_factory: Callable[[], P],
        host: Host = None,
        port: Port = None,
        *,
        ssl: bool | ClientTerms | None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[Transport, P]:
        """Connect to a TCP server and return ``(transport, protocol)``.

        Addresses are tried in turn; with *happy_eyeballs_delay* (seconds) the next one starts when the one
        before has failed or taken that long, and the first connection wins. Raises OSError when none
        succeeds, or with *all_errors* an ExceptionGroup of every attempt's error.
        """
        self._check_thread()
        if server_hostname is not None and not ssl:
            raise ValueError("server_hostname is only meaningful with ssl")
        if server_hostname is None and ssl and not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        check_ssl_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if server_hostname is None and ssl:
            server_hostname = cast("str", host)
        if sock is not None:
            refuse_ssl_socket(sock)
        # Before there is a socket of ours, which an error of this would leave open.
        security = client_security(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        ours: socket.socket | None = None

        if host is not None or port is not None:
            if sock is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            if happy_eyeballs_delay is not None and interleave is None:
                interleave = 1
            resolve = partial(self._resolve_stream, family=family, proto=proto, flags=flags)
            infos = await resolve((host, port))
            local_infos = None if local_addr is None else await resolve(local_addr)
            if interleave:
                infos = take_turns(infos, interleave)
            sock = ours = await self._connect_any(infos, local_infos, happy_eyeballs_delay, all_errors)
        else:
            if sock is None:
                raise ValueError("host and port was not specified and no sock specified")
            check_stream(sock)

        transport, protocol = await self._wrap_connected(sock, protocol_factory, ours, security)
        if self.get_debug():
            sock = transport.get_extra_info("socket")
            logger.debug("%r connected to %s:%r: (%r, %r)", sock, host, port, transport, protocol)
        return transport, protocol

    async def create_unix_connection[P: BaseProtocol](
        self,
        protocol_factory: Callable[[], P],
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        *,
        ssl: bool | ClientTerms | None = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[Transport, P]:
        """Connect to a Unix stream server at *path*, or use the connected *sock*."""
        self._check_thread()
        assert server_hostname is None or isinstance(server_hostname, str)
        ours: socket.socket | None = None
        if ssl:
            if server_hostname is None:
                raise ValueError("you have to pass server_hostname when using ssl")
        else:
            if server_hostname is not None:
                raise ValueError("server_hostname is only meaningful with ssl")
            check_ssl_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)

        # Before there is a socket of ours, which an error of this would leave open.
        security = client_security(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            address = os.fspath(path)
            sock = ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, address)
            except BaseException:
                sock.close()
                raise
        else:
            if sock is None:
                raise ValueError("no path and sock were specified")
            check_unix_stream(sock)
        return await self._wrap_connected(sock, protocol_factory, ours, security)

    async def connect_accepted_socket[P: BaseProtocol](
        self,
        protocol_factory: Callable[[], P],
        sock: socket.socket,
        *,
        ssl: bool | ServerTerms | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[Transport, P]:
        """Take over a connection that was accepted elsewhere and return ``(transport, protocol)``."""
        self._check_thread()
        check_stream(sock)
        check_ssl_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        refuse_ssl_socket(sock)
        security = client_security(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
        if security is not None:
            security = security._replace(server_side=True)
        transport, protocol = await self._wrap_connected(sock, protocol_factory, security=security)
        if self.get_debug():
            sock = transport.get_extra_info("socket")
            logger.debug("%r handled: (%r, %r)", sock, transport, protocol)
        return transport, protocol

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect the non-blocking *sock* to *address*, resolving its host first where needed."""
        self._check_thread()
        refuse_ssl_socket(sock)
        if self.get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            infos = await self._ensure_resolved(address, family=sock.family, type=sock.type, proto=sock.proto)
            address = infos[0][4]
        await self._sock_connect(sock, address)

    async def _resolve_stream(
        self, address: Sequence[Any], *, family: int, proto: int, flags: int
    ) -> Sequence[AddrInfo]:
        infos = await self._ensure_resolved(
            address, family=family, type=socket.SOCK_STREAM, proto=proto, flags=flags
        )
        if not infos:
            raise OSError("getaddrinfo() returned empty list")
        return infos

    async def _connect_any(
        self,
        infos: Sequence[AddrInfo],
        local_infos: Sequence[AddrInfo] | None,
        delay: float | None,
        all_errors: bool,
    ) -> socket.socket:
        # One list per attempt, so that errors are in the order of the addresses, whichever failed first.
        errors: list[list[OSError]] = []
        # A race may bring in several; and it forgets its winner when it is cancelled while the losers still end.
        connected: list[socket.socket] = []
        winner: socket.socket | None = None

        async def attempt(info: AddrInfo) -> socket.socket:
            sock = await self._connect_one(errors, info, local_infos)
            connected.append(sock)
            return sock

        try:
            if delay is None:
                for info in infos:
                    try:
                        winner = await attempt(info)
                    except OSError:
                        continue
                    return winner
            else:
                attempts = [partial(attempt, info) for info in infos]
                # By index: a name for the race's list of errors would outlive this function in its traceback.
                race = staggered.staggered_race(attempts, delay, loop=self)  # type: ignore[arg-type]
                winner = (await race)[0]
                if winner is not None:
                    return winner
            raise _summary([exc for mine in errors for exc in mine], all_errors)
        finally:
            for sock in connected:
                if sock is not winner:
                    sock.close()
            # The errors' tracebacks lead to frames that hold these lists: emptied, they make no reference cycle.
            errors.clear()
            connected.clear()

    async def _connect_one(
        self, errors: list[list[OSError]], info: AddrInfo, local_infos: Sequence[AddrInfo] | None
    ) -> socket.socket:
        """Make, bind and connect one socket; errors on the way are also appended to *errors*."""
        mine: list[OSError] = []
        errors.append(mine)
        family, kind, proto, _, address = info
        try:
            sock = socket.socket(family, kind, proto)
            try:
                sock.setblocking(False)
                if local_infos is not None:
                    _bind_local(sock, family, local_infos, mine)
                await self.sock_connect(sock, address)
            except BaseException:
                # An error of closing must not hide the reason.
                with suppress(OSError):
                    sock.close()
                raise
            return sock
        except OSError as exc:
            mine.append(exc)
            raise
        finally:
            del mine

    async def _wrap_connected[P: BaseProtocol](
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], P],
        ours: socket.socket | None = None,
        security: Security | None = None,
    ) -> tuple[Transport, P]:
        """Put a transport on *sock*, with TLS if asked for; *ours* is that socket if it must not outlive a failure."""
        sock.setblocking(False)
        try:
            protocol = protocol_factory()
            waiter = self.create_future()
            if security is None:
                transport = self._make_socket_transport(sock, protocol, waiter)
            else:
                transport = self._make_ssl_transport(
                    sock,
                    protocol,
                    security.context,
                    waiter,
                    server_side=security.server_side,
                    server_hostname=security.server_hostname,
                    ssl_handshake_timeout=security.handshake_timeout,
                    ssl_shutdown_timeout=security.shutdown_timeout,
                )
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        await begun(transport, waiter)
        return transport, protocol


def _bind_local(sock: socket.socket, family: int, infos: Sequence[AddrInfo], errors: list[OSError]) -> None:
    """Bind to the first local address of *family* that works; raise the last error, list the others."""
    last: OSError | None = None
    try:
        for candidate, _, _, _, address in infos:
            if candidate != family:
                continue
            if last is not None:
                errors.append(last)
            try:
                return sock.bind(address)
            except OSError as exc:
                text = f"error while attempting to bind on address {address!r}: {str(exc).lower()}"
                last = OSError(exc.errno, text)
        raise last or OSError(f"no matching local address with {family=} found")
    finally:
        del last, errors


def _summary(errors: list[OSError], all_errors: bool) -> BaseException:
    """Make the one exception that explains why no address could be connected."""
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    if not errors:
        # Every attempt was cancelled before it failed.
        return TimeoutError("create_connection failed")
    texts = [str(exc) for exc in errors]
    if len(set(texts)) == 1:
        return errors[0]
    return OSError(f"Multiple exceptions: {', '.join(texts)}")
