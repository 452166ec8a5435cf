"""A future's iterators, stepped by any thread: each takes its result once, and a pending future is yielded once."""

import asyncio
import collections
import contextlib
import operator
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tokioloop

from .conftest import Elsewhere
from .support import PATIENCE

ITERATORS: list[Callable[[Any], Any]] = [iter, operator.methodcaller("__await__")]


async def _await(future: Any) -> Any:
    return await future


@pytest.fixture(params=["future", "task", "derived"])
def foreign(request: pytest.FixtureRequest, elsewhere: Elsewhere) -> Iterator[Any]:
    """A pending future of a loop that runs in another thread."""

    class Derived(tokioloop.Future):  # type: ignore[type-arg]
        pass

    def make() -> Any:
        match request.param:
            case "future":
                return elsewhere.loop.create_future()
            case "task":
                return elsewhere.loop.create_task(asyncio.sleep(1000))
            case _:
                return Derived(loop=elsewhere.loop)

    future = elsewhere.call(make)
    yield future
    elsewhere.call(future.cancel)


@pytest.mark.parametrize("step", [next, operator.methodcaller("send", None)])
@pytest.mark.parametrize("make", ITERATORS)
def test_a_foreign_future_is_yielded_once(foreign: Any, make: Any, step: Any) -> None:
    steps = make(foreign)
    assert step(steps) is foreign
    for _ in range(3):
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            step(steps)


def test_a_coroutine_that_awaits_a_foreign_future_gets_an_error(foreign: Any) -> None:
    coro = _await(foreign)
    assert coro.send(None) is foreign
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)


def test_a_task_that_awaits_a_foreign_future_gets_an_error(run: Callable[[Any], Any], foreign: Any) -> None:
    with pytest.raises(RuntimeError, match="attached to a different loop"):
        run(_await(foreign))


def test_a_coroutine_begun_in_the_loops_thread_is_stepped_elsewhere(elsewhere: Elsewhere) -> None:
    future = elsewhere.call(elsewhere.loop.create_future)
    coro = _await(future)
    assert elsewhere.call(coro.send, None) is future
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)


@pytest.mark.parametrize("make", ITERATORS)
def test_throw_and_close_of_a_foreign_futures_iterator(foreign: Any, make: Any) -> None:
    steps = make(foreign)
    next(steps)
    with pytest.raises(ZeroDivisionError):
        steps.throw(ZeroDivisionError())
    assert list(steps) == []
    steps = make(foreign)
    steps.close()
    steps.close()
    assert list(steps) == []


@pytest.mark.parametrize("make", ITERATORS)
def test_the_loops_own_thread_marks_the_future(elsewhere: Elsewhere, make: Any) -> None:
    def work() -> None:
        future = elsewhere.loop.create_future()
        assert next(make(future)) is future
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            next(make(future))

    elsewhere.call(work)


def _throw(steps: Any) -> None:
    with contextlib.suppress(KeyError):
        steps.throw(KeyError())


def _next(steps: Any) -> None:
    with contextlib.suppress(StopIteration, RuntimeError):
        next(steps)


ACTS = {"close": operator.methodcaller("close"), "throw": _throw, "next": _next}


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(
    ("one", "other"), [("close", "close"), ("close", "next"), ("throw", "close"), ("next", "next")]
)
def test_two_threads_at_one_iterator(loop: tokioloop.TokioLoop, one: str, other: str, done: bool) -> None:
    many, rounds = 3000, 20
    both = threading.Barrier(2)
    iterators: list[Any] = []

    def there() -> None:
        for _ in range(rounds):
            both.wait(PATIENCE)
            collections.deque(map(ACTS[other], iterators), maxlen=0)
            both.wait(PATIENCE)

    thread = threading.Thread(target=there)
    thread.start()
    for _ in range(rounds):
        futures = [loop.create_future() for _ in range(many)]
        if done:
            for future in futures:
                future.set_result(None)
        iterators[:] = [iter(future) for future in futures]
        both.wait(PATIENCE)
        collections.deque(map(ACTS[one], iterators), maxlen=0)
        both.wait(PATIENCE)
        # Each reference was released once: the remaining ones are the test's.
        iterators.clear()
        assert all(future.done() is done for future in futures)
    thread.join(PATIENCE)
