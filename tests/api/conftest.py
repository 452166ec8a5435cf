"""Fixtures for the tests of the Python layer: one loop per test, closed at the end."""

import asyncio
import gc
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import tokioloop

from .pool_support import threads
from .sendfile_support import DATA, small_tcp, small_unix
from .streams_support import LIMIT

# Far above what any test needs: it turns a hang into a failure.
PATIENCE = 20


@pytest.fixture
def loop() -> Iterator[tokioloop.TokioLoop]:
    loop = tokioloop.TokioLoop()
    yield loop
    if not loop.is_closed():
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture
def run(loop: tokioloop.TokioLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on the test's loop."""

    def run(coro: Coroutine[Any, Any, Any]) -> Any:
        async def in_time() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await coro

        return loop.run_until_complete(in_time())

    return run


@pytest.fixture
def contexts(loop: tokioloop.TokioLoop) -> list[dict[str, Any]]:
    """The contexts that reach the loop's exception handler."""
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    return seen


@pytest.fixture
def reader(loop: tokioloop.TokioLoop) -> tokioloop.StreamReader:
    """A native stream reader that is fed by hand."""
    return tokioloop.StreamReader(LIMIT, loop)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A plain listening socket on loopback, outside any loop."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def blackhole() -> Iterator[tuple[str, int]]:
    """An address whose connection attempts neither succeed nor fail: its queue of connections is full."""
    with socket.socket() as sock, socket.socket() as first:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        first.connect(sock.getsockname())
        yield sock.getsockname()


@pytest.fixture
def refused() -> Iterator[tuple[str, int]]:
    """An address that refuses connections: bound, so that no other socket gets it, but not listening."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


class Recorder(asyncio.Protocol):
    """A protocol that records its calls; ``made`` and ``lost`` are futures."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[asyncio.Transport] = loop.create_future()
        self.lost: asyncio.Future[Exception | None] = loop.create_future()
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


class Served:
    """A protocol factory for servers: each connection's ``Recorder`` can be awaited with ``next()``."""

    def __init__(self) -> None:
        self._protocols: asyncio.Queue[Recorder] = asyncio.Queue()

    def __call__(self) -> Recorder:
        protocol = Recorder()
        self._protocols.put_nowait(protocol)
        return protocol

    async def next(self) -> Recorder:
        return await self._protocols.get()


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def file(tmp_path):
    """An open file with ``sendfile_support.DATA``."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        yield file


@pytest.fixture(params=[small_tcp, small_unix], ids=["tcp", "unix"])
def pair(request):
    """A connection with small buffers."""
    near, far = request.param()
    with near, far:
        yield near, far


@pytest.fixture
def four():
    """Four threads with a loop each."""
    with threads(4) as made:
        yield made


@pytest.fixture
def left_open():
    """A loop that is closed with connections warns about each when it is collected: collect here, not in another test."""
    yield
    for _ in range(3):
        gc.collect()
