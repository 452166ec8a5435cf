"""An unclosed loop is collected with the posts in its inbox, even if they refer to it."""

import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import tokioloop

from .support import PATIENCE, collected


def _idle(loop: tokioloop.TokioLoop, post: Callable[[], Any]) -> None:
    """It never ran."""
    post()


def _stopped(loop: tokioloop.TokioLoop, post: Callable[[], Any]) -> None:
    """It has run, and will not run again."""
    loop.call_soon(loop.stop)
    loop.run_forever()
    post()


def _last(loop: tokioloop.TokioLoop, post: Callable[[], Any]) -> None:
    """Another thread posts in the last turn, after the inbox was drained."""

    def end() -> None:
        thread = threading.Thread(target=post)
        thread.start()
        thread.join(PATIENCE)
        loop.stop()

    loop.call_soon(end)
    loop.run_forever()


@pytest.mark.parametrize("given", ["callback", "argument", "many", "context"])
@pytest.mark.parametrize("when", [_idle, _stopped, _last])
def test_a_loop_with_a_post_that_refers_to_it_is_collected(when: Any, given: str) -> None:
    def make() -> weakref.ref[Any]:
        loop = tokioloop.TokioLoop()
        calls: dict[str, Callable[[], Any]] = {
            "callback": lambda: loop.call_soon_threadsafe(loop.time),
            "argument": lambda: loop.call_soon_threadsafe(id, loop),
            "many": lambda: loop.call_soon_threadsafe(print, loop, loop, [loop]),
            "context": lambda: [loop.call_soon_threadsafe(loop.time).cancel() for _ in range(10)],
        }
        when(loop, calls[given])
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert collected(make())


def test_posts_are_whole_after_a_collection(loop: tokioloop.TokioLoop) -> None:
    seen: list[int] = []

    def end() -> None:
        def post() -> None:
            for number in range(100):
                loop.call_soon_threadsafe(seen.append, number)
            gc.collect()

        thread = threading.Thread(target=post)
        thread.start()
        thread.join(PATIENCE)
        gc.collect()
        loop.stop()

    loop.call_soon(end)
    loop.run_forever()
    gc.collect()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == list(range(100))
