"""Helpers of the tests of datagrams: a recording protocol and plain sockets."""

import asyncio
import socket
from typing import Any

from .support import PATIENCE, Watched

LOOPBACK = ("127.0.0.1", 0)


class Recorder(Watched, asyncio.DatagramProtocol):
    """Records each call; ``got`` has the datagrams with their senders."""

    transport: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost_with: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))
        self.note("datagram")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.note("error")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_with.append(exc)
        self.note("lost")

    async def received(self, count: int) -> list[tuple[bytes, Any]]:
        await self.until(lambda: len(self.got) >= count)
        return self.got


class Echo(Recorder):
    """Answers each datagram before it records it."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)
        super().datagram_received(data, addr)


def plain(address: Any = LOOPBACK, family: int = socket.AF_INET) -> socket.socket:
    """Make a bound socket outside any loop, whose calls take no longer than any test should."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(PATIENCE)
    return sock


def unix_datagram_pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def address_of(transport: asyncio.BaseTransport) -> Any:
    return transport.get_extra_info("sockname")
