"""The threads of a loop's default executor, which make blocking calls."""

import os
from itertools import count
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from .. import _tokioloop
from .joining import EXECUTORS, before_joining

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable


class LoopThreads(_tokioloop.ThreadQueue):
    """Up to as many threads as ``ThreadPoolExecutor`` has, started when none is free, each for as long as this lives.

    The interpreter's end waits for them and for all submitted jobs.
    """

    def __new__(cls) -> Self:
        return super().__new__(cls, min(32, (os.process_cpu_count() or 1) + 4))

    def __init__(self) -> None:
        self._lock = Lock()
        self._started: list[Thread] = []
        self._numbers = count()
        with _lock:
            _alive.add(self)

    def call(
        self, loop: _tokioloop.EventLoop, function: "Callable[..., Any]", args: tuple[Any, ...]
    ) -> "Future[Any]":
        """Call ``function(*args)`` in a thread; returns the future. Cancelled before it begins, it is not called.

        On the loop's thread. RuntimeError after ``shutdown``, or when the interpreter ends.
        """
        if _ended:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        future, wants_thread = self._submit(loop, function, args)
        if wants_thread:
            self._start_thread()
        return future

    def _start_thread(self) -> None:
        thread = Thread(target=self._work, name=f"asyncio_{next(self._numbers)}")
        try:
            thread.start()
        except RuntimeError:
            self._lost_thread()
            raise
        with self._lock:
            self._started.append(thread)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; submitted ones are done, or with *cancel_futures* cancelled unless they have begun. Any thread.

        With *wait* it returns when the threads have ended.
        """
        self._close(cancel_futures)
        if wait:
            with self._lock:
                started = list(self._started)
            for thread in started:
                thread.join()


_lock = Lock()
_alive: WeakSet[LoopThreads] = WeakSet()
_ended = False


def _end_all() -> None:
    """What ``concurrent.futures`` does for its own when the interpreter ends."""
    global _ended
    _ended = True
    with _lock:
        alive = list(_alive)
    for threads in alive:
        threads.shutdown(wait=False)
    for threads in alive:
        threads.shutdown()


def _forget_parents() -> None:
    # The parent's threads are not here, and its loops are dead.
    global _lock, _alive
    _lock, _alive = Lock(), WeakSet()


if not before_joining(EXECUTORS, _end_all):
    _ended = True
os.register_at_fork(after_in_child=_forget_parents)
