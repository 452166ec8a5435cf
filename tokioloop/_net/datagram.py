"""Datagram endpoints: UDP, Unix, and datagram sockets of any family that are given."""

from __future__ import annotations

import socket
from asyncio import BaseProtocol, DatagramTransport
from collections.abc import Callable, Sequence
from typing import Any

from .._loop.log import logger
from .connect import Connect
from .sockets import begun, is_abstract, remove_stale, set_reuse_port

# A local and a remote address, and the family and protocol that both belong to.
type _Pair = tuple[tuple[int, int], Any, Any]


class Datagram(Connect):
    """create_datagram_endpoint."""

    async def create_datagram_endpoint[P: BaseProtocol](
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[DatagramTransport, P]:
        """Make a datagram socket, bound and connected as asked, and return ``(transport, protocol)``.

        With *remote_addr* the transport sends there only. With *allow_broadcast* too, the socket is not
        connected, so that answers may come from elsewhere. Addresses are tried in turn until one works.
        """
        self._check_thread()
        remote: Any = None
        if sock is not None:
            if sock.type == socket.SOCK_STREAM:
                raise ValueError(f"A datagram socket was expected, got {sock!r}")
            modifiers = {
                "local_addr": local_addr,
                "remote_addr": remote_addr,
                "family": family,
                "proto": proto,
                "flags": flags,
                "reuse_port": reuse_port,
                "allow_broadcast": allow_broadcast,
            }
            if problems := ", ".join(f"{name}={value}" for name, value in modifiers.items() if value):
                raise ValueError(
                    f"socket modifier keyword arguments can not be used when sock is specified. ({problems})"
                )
            sock.setblocking(False)
            ours = None
        else:
            pairs = await self._datagram_pairs(local_addr, remote_addr, family, proto, flags)
            sock, remote = await self._open_any(pairs, bool(reuse_port), bool(allow_broadcast))
            ours = sock

        try:
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_datagram_transport(sock, protocol, remote, waiter)
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        if self.get_debug():
            if local_addr:
                text = "Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)"
                logger.info(text, local_addr, remote_addr, transport, protocol)
            else:
                text = "Datagram endpoint remote_addr=%r created: (%r, %r)"
                logger.debug(text, remote_addr, transport, protocol)
        await begun(transport, waiter)
        return transport, protocol

    async def _datagram_pairs(
        self, local: Any, remote: Any, family: int, proto: int, flags: int
    ) -> Sequence[_Pair]:
        """Find the candidates for a socket: each family and protocol with the requested addresses."""
        if not (local or remote):
            if family == 0:
                raise ValueError("unexpected address family")
            return [((family, proto), None, None)]
        if family == socket.AF_UNIX:
            for address in (local, remote):
                if address is not None and not isinstance(address, str):
                    raise TypeError("string is expected")
            if local and not is_abstract(local):
                remove_stale(local)
            return [((family, proto), local, remote)]

        found: dict[tuple[int, int], list[Any]] = {}
        for side, address in enumerate((local, remote)):
            if address is None:
                continue
            if not (isinstance(address, tuple) and len(address) == 2):
                raise TypeError("2-tuple is expected")
            infos = await self._ensure_resolved(
                address, family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags
            )
            if not infos:
                raise OSError("getaddrinfo() returned empty list")
            for its_family, _, its_proto, _, resolved in infos:
                found.setdefault((its_family, its_proto), [None, None])[side] = resolved
        pairs = [
            (key, here, there)
            for key, (here, there) in found.items()
            if not (local and here is None) and not (remote and there is None)
        ]
        if not pairs:
            raise ValueError("can not get address information")
        return pairs

    async def _open_any(
        self, pairs: Sequence[_Pair], reuse_port: bool, broadcast: bool
    ) -> tuple[socket.socket, Any]:
        """Make a socket of the first pair that works; the first error if none does."""
        errors: list[OSError] = []
        try:
            for (family, proto), local, remote in pairs:
                try:
                    sock = socket.socket(family=family, type=socket.SOCK_DGRAM, proto=proto)
                except OSError as exc:
                    errors.append(exc)
                    continue
                try:
                    if reuse_port:
                        set_reuse_port(sock)
                    if broadcast:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    sock.setblocking(False)
                    if local:
                        sock.bind(local)
                    if remote and not broadcast:
                        await self.sock_connect(sock, remote)
                    return sock, remote
                except OSError as exc:
                    sock.close()
                    errors.append(exc)
                except BaseException:
                    sock.close()
                    raise
            raise errors[0]
        finally:
            # The errors' tracebacks lead to this frame: emptied, the list makes no reference cycle.
            errors.clear()
