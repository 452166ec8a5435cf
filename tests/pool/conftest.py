"""Pools for the tests, each with a bounded end."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import tokioloop

from ..loop.support import PATIENCE
from .support import Blocked


@pytest.fixture
def pool() -> Iterator[tokioloop.WorkerPool]:
    """Two workers."""
    pool = tokioloop.WorkerPool(2)
    yield pool
    pool.shutdown(timeout=PATIENCE)


@pytest.fixture
def one() -> Iterator[tokioloop.WorkerPool]:
    """A single worker, so that jobs begin in the order of submission."""
    pool = tokioloop.WorkerPool(1)
    yield pool
    pool.shutdown(timeout=PATIENCE)


@pytest.fixture
def blocked(one: tokioloop.WorkerPool) -> Iterator[Blocked]:
    """``one``'s worker inside a function, until ``blocked.release()``: what is submitted meanwhile waits."""
    blocked = Blocked(one)
    yield blocked
    blocked.release()


@pytest.fixture(params=[tokioloop.TokioLoop, asyncio.SelectorEventLoop], ids=["tokioloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on a loop of each kind: those that await jobs may run on any."""

    def run(coro: Coroutine[Any, Any, Any]) -> Any:
        async def in_time() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await coro

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(in_time())

    return run


@pytest.fixture
def loop_there(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in another thread, of the kind that the test's parameter names, ours by default."""
    loop = getattr(request, "param", tokioloop.TokioLoop)()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
