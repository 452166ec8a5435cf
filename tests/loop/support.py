"""Helpers of the tests of the native core: recording protocols, pairs of sockets, and a fresh interpreter."""

import asyncio
import gc
import socket
import struct
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..children import finish

ROOT = Path(__file__).resolve().parents[2]

# Far above what any test needs: it turns a hang into a failure.
PATIENCE = 30


class Watched:
    """Something that happens bit by bit; ``until(condition)`` waits for it without polling."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def note(self, *event: Any) -> None:
        self.log.append(event[0] if len(event) == 1 else event)
        for condition, future in list(self._waiting):
            if not future.done() and condition():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        if condition():
            return
        entry = (condition, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        finally:
            self._waiting.remove(entry)

    async def event(self, *event: Any) -> None:
        wanted = event[0] if len(event) == 1 else event
        await self.until(lambda: wanted in self.log)


class Recorder(Watched, asyncio.Protocol):
    """A protocol that records each call; ``keep_open`` is what ``eof_received`` answers."""

    keep_open: bool = False
    transport: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()
        self.lost_with: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.note("data", len(data))

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_with.append(exc)
        self.note("lost")

    async def received(self, size: int) -> bytes:
        await self.until(lambda: len(self.data) >= size)
        return bytes(self.data)

    async def lost(self) -> Exception | None:
        await self.event("lost")
        return self.lost_with[0]


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """A ``Recorder`` that offers a buffer of ``size`` bytes."""

    def __init__(self, size: int = 4096) -> None:
        super().__init__()
        self.buffer: Any = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback, both non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def unix_pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def reset(sock: socket.socket) -> None:
    """Close *sock* so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def receive_all(sock: socket.socket) -> bytes:
    """Read a plain non-blocking socket to its end."""
    loop = asyncio.get_running_loop()
    parts = []
    while part := await loop.sock_recv(sock, 1 << 18):
        parts.append(part)
    return b"".join(parts)


async def receive_exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        assert part, "the peer sent less"
        data += part
    return bytes(data)


def collected(reference: weakref.ref[Any]) -> bool:
    """Collect garbage until *reference* is dead; whether it died."""
    for _ in range(5):
        if reference() is None:
            return True
        gc.collect()
    return reference() is None


# A pool's warning of the GIL has tests of its own.
NO_GIL_WARNING = "ignore:this build of Python has the GIL"


def python(code: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh interpreter that must end by itself, with exit code 0."""
    options = ["-X", "faulthandler", "-W", "error", "-W", NO_GIL_WARNING]
    done = finish([sys.executable, *options, "-c", textwrap.dedent(code), *args], environ=environ)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
