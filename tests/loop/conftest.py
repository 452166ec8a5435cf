"""Fixtures for the tests of the native core."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import tokioloop

from .datagrams import LOOPBACK, Recorder
from .support import PATIENCE, tcp_pair, unix_pair
from .tls_support import KINDS, OURS, Secure, engine_of


@pytest.fixture
def loop() -> Iterator[tokioloop.TokioLoop]:
    loop = tokioloop.TokioLoop()
    yield loop
    if not loop.is_closed():
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
def turn(loop: tokioloop.TokioLoop) -> Callable[[], None]:
    """Make one turn: callbacks that are ready now run, those that they schedule do not."""

    def turn() -> None:
        loop.stop()
        loop.run_forever()

    return turn


@pytest.fixture
def contexts(loop: tokioloop.TokioLoop) -> list[dict[str, Any]]:
    """The contexts that reach the loop's exception handler."""
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    return seen


@pytest.fixture(params=[tcp_pair, unix_pair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Two non-blocking ends of a connection."""
    near, far = request.param()
    with near, far:
        yield near, far


@pytest.fixture
def link(loop: tokioloop.TokioLoop, pair: Any) -> Iterator[Any]:
    """``await link(protocol)``: a transport on one end of a connection, and the other end as a socket."""
    near, far = pair
    with ExitStack() as at_end:

        async def link(protocol: asyncio.BaseProtocol) -> Any:
            transport, _ = await loop.create_connection(lambda: protocol, sock=near)

            def abort() -> None:
                if not loop.is_closed():
                    transport.abort()
                    loop.run_until_complete(asyncio.sleep(0))

            at_end.callback(abort)
            return transport, far

        yield link


@pytest.fixture
def endpoint(loop: tokioloop.TokioLoop) -> Iterator[Any]:
    """``await endpoint(protocol, ...)``: a datagram transport, on loopback if nothing is said, and its protocol."""
    made = []

    async def endpoint(protocol: Recorder | None = None, *args: Any, **options: Any) -> Any:
        protocol = protocol or Recorder()
        if not args and not options:
            args = (LOOPBACK,)
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, *args, **options)
        made.append(transport)
        return transport, protocol

    yield endpoint
    if not loop.is_closed():
        for transport in made:
            transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


class Elsewhere:
    """A loop that runs in another thread."""

    def __init__(self) -> None:
        self.loop = tokioloop.TokioLoop()
        started = threading.Event()
        self.loop.call_soon(started.set)
        self.thread = threading.Thread(target=self.loop.run_forever, name="elsewhere")
        self.thread.start()
        assert started.wait(PATIENCE)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a plain function on the loop's thread and return its result."""

        async def there() -> Any:
            return function(*args)

        return self.wait(there())

    def wait(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result(PATIENCE)

    def end(self) -> None:
        self.loop.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.loop.close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    there = Elsewhere()
    yield there
    there.end()


def _secure(kind: str) -> Iterator[Secure]:
    secure = Secure(kind)
    with engine_of(kind):
        yield secure
        if not secure.loop.is_closed():
            secure.run(secure.loop.shutdown_asyncgens())
            secure.loop.close()


@pytest.fixture(params=KINDS)
def secure(request: pytest.FixtureRequest) -> Iterator[Secure]:
    """A loop for a test of TLS: ours with each engine, and asyncio's own."""
    yield from _secure(request.param)


@pytest.fixture(params=OURS)
def secure_ours(request: pytest.FixtureRequest) -> Iterator[Secure]:
    """A loop for a test of TLS that asks for more than asyncio gives: ours with each engine."""
    yield from _secure(request.param)
