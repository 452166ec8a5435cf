"""Names and addresses: getaddrinfo, getnameinfo, and the fast path for numeric addresses.

A call that the C library answers without a look-up (a numeric host or none, a numeric port) is
made at once; all others go to the shared runtime's blocking threads. Where a program has replaced
``socket.getaddrinfo`` or ``socket.getnameinfo`` (to pin names, to forbid addresses), its functions are called, in the
default executor.
"""

from __future__ import annotations

import socket
import sys
from _socket import getnameinfo as _getnameinfo
from asyncio import Future
from collections.abc import Sequence
from typing import Any

from .._loop.executor import Executor
from .._loop.log import logger
from .._tokioloop import Lookup

type AddrInfo = tuple[Any, Any, int, str, Any]
type Host = str | bytes | None
type Port = str | bytes | int | None

_SOCKET_MODULE = vars(socket)
_PROTOCOLS = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}


class Names(Executor):
    """Name resolution."""

    async def getaddrinfo(
        self, host: Host, port: Port, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[AddrInfo]:
        """As ``socket.getaddrinfo``, without blocking the loop. Raises ``socket.gaierror``.

        Numeric hosts are answered at once, without a thread.
        """
        self._check_thread()
        if not self.get_debug():
            return await self._lookup(host, port, family, type, proto, flags)

        options = {"family": family, "type": type, "proto": proto, "flags": flags}
        asked = ", ".join(
            [f"{host!s}:{port!r}"] + [f"{name}={value!r}" for name, value in options.items() if value]
        )
        logger.debug("Get address info %s", asked)
        began = self.time()
        infos = await self._lookup(host, port, family, type, proto, flags)
        took = self.time() - began
        log = logger.info if took >= self.slow_callback_duration else logger.debug
        log("Getting address info %s took %.3fms: %r", asked, took * 1e3, infos)
        return infos

    async def _lookup(
        self, host: Host, port: Port, family: int, type: int, proto: int, flags: int
    ) -> list[AddrInfo]:
        if _is_replaced(socket.getaddrinfo):
            return await self.run_in_executor(
                None, socket.getaddrinfo, host, port, family, type, proto, flags
            )
        if _is_numeric_port(port, flags):
            try:
                # Without a host nothing is looked up anyway.
                numeric = 0 if host is None else socket.AI_NUMERICHOST
                if host is None or flags & numeric or _looks_numeric(host):
                    return socket.getaddrinfo(host, port, family, type, proto, flags | numeric)
            except socket.gaierror as exc:
                # "Not a number" may still be a name, unless the caller ruled that out.
                if host is None or flags & socket.AI_NUMERICHOST or exc.errno != socket.EAI_NONAME:
                    raise
        node, service = _encode_host(host), _encode_port(port)
        sys.audit("socket.getaddrinfo", host, port, family, type, proto)
        return await _answer(*self._resolve(node, service, family, type, proto, flags))

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """As ``socket.getnameinfo``, without blocking the loop. Raises ``socket.gaierror``."""
        self._check_thread()
        if socket.getnameinfo is not _getnameinfo:
            return await self.run_in_executor(None, socket.getnameinfo, sockaddr, flags)
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        # Asks for no name, so it never waits; all errors about the arguments come from here.
        answer = socket.getnameinfo(sockaddr, flags & ~socket.NI_NAMEREQD | numeric)
        if flags & numeric == numeric and not flags & socket.NI_NAMEREQD:
            return answer
        # The native side reads plain numbers only, where the C library also takes forms such as "127.1".
        host, port = answer
        return await _answer(*self._resolve_name((host, int(port), *sockaddr[2:]), flags))

    async def _ensure_resolved(
        self,
        address: Sequence[Any],
        *,
        family: int = 0,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        flags: int = 0,
    ) -> Sequence[AddrInfo]:
        """Resolve *address*, by ``self.getaddrinfo`` unless its host is a number already."""
        host, port = address[:2]
        info = numeric_info(host, port, family, type, proto, *address[2:])
        if info is not None:
            return [info]
        return await self.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)


def numeric_info(
    host: Host, port: Port, family: int, type: int, proto: int, flowinfo: int = 0, scopeid: int = 0
) -> AddrInfo | None:
    """Make the result for a numeric address without the C library; None where the C library is needed."""
    if host is None or proto not in (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    implied = _PROTOCOLS.get(type)  # type: ignore[call-overload]
    if implied is None:
        return None
    try:
        number = int(port) if port else 0
    except (TypeError, ValueError):
        return None  # the name of a service
    text = host.decode("idna") if isinstance(host, bytes) else host
    if "%" in text:
        return None  # a zone, which inet_pton does not read
    for candidate in (socket.AF_INET, socket.AF_INET6) if family == socket.AF_UNSPEC else (family,):
        try:
            socket.inet_pton(candidate, text)
        except OSError:
            continue
        where = (text, number, flowinfo, scopeid) if candidate == socket.AF_INET6 else (text, number)
        return candidate, type, implied, "", where
    return None


def take_turns(infos: Sequence[AddrInfo], first_family_count: int = 1) -> list[AddrInfo]:
    """Order addresses so that families take turns, the first family leading with *first_family_count*."""
    families: dict[Any, list[AddrInfo]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    queues = list(families.values())
    ordered = queues[0][: first_family_count - 1]
    queues[0] = queues[0][first_family_count - 1 :]
    for turn in range(max(map(len, queues))):
        ordered += [queue[turn] for queue in queues if turn < len(queue)]
    return ordered


async def _answer[T](future: Future[T], lookup: Lookup) -> T:
    try:
        return await future
    finally:
        # A cancelled call leaves the queue. A running look-up can't be stopped.
        lookup.withdraw()


def _is_replaced(function: object) -> bool:
    """Return whether *function* is not the socket module's own, whenever it was replaced."""
    return getattr(function, "__globals__", None) is not _SOCKET_MODULE


def _is_numeric_port(port: object, flags: int) -> bool:
    if isinstance(port, (str, bytes)):
        return bool(flags & socket.AI_NUMERICSERV) or (port.isascii() and port.isdigit())
    return True  # a number, none, or an error that comes at once


def _looks_numeric(host: object) -> bool:
    # Cheap, and may be true too often: the C library decides.
    if isinstance(host, bytes):
        return host[:1].isdigit() or b":" in host
    if isinstance(host, str):
        return host.isascii() and (host[:1].isdigit() or ":" in host)
    return True  # an error that comes at once


def _encode_host(host: Host) -> bytes | None:
    if isinstance(host, str):
        host = host.encode("idna")
    elif host is not None and not isinstance(host, bytes):
        raise TypeError("getaddrinfo() argument 1 must be string or None")
    return _without_null(host)


def _encode_port(port: Port) -> bytes | None:
    if isinstance(port, str):
        port = port.encode()
    elif type(port) is int:
        port = str(port).encode()
    elif port is not None and not isinstance(port, bytes):
        raise OSError("Int or String expected")
    return _without_null(port)


def _without_null(text: bytes | None) -> bytes | None:
    # The C library would look up the part before it.
    if text is not None and b"\0" in text:
        raise ValueError("embedded null byte")
    return text
