"""Hooks that run before the interpreter, at its end, waits for its threads. (``atexit`` is too late: its functions run after that.)"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import thread as _executor_threads
from contextlib import ExitStack

# Its hook waits for executors' threads, which may run loops; hooks run in reverse order, so ours must come after.
assert _executor_threads

# The turns, in their order, which does not depend on the order of registration: pools end before the loops of other threads are
# stopped, and blocking calls are waited for last, since they may wait for a loop.
POOLS, LOOPS, EXECUTORS = range(3)

_hooks: dict[int, Callable[[], None]] = {}


def before_joining(turn: int, hook: Callable[[], None]) -> bool:
    """Register *hook* to run in its *turn* before the interpreter waits for its threads; False if that turn is over."""
    return _hooks.setdefault(turn, hook) is hook


def _nothing() -> None:
    """Stand for a hook that was not registered in time."""


def _call(turn: int) -> None:
    # One atomic step and no lock, which a forked child might inherit: either the hook is called, or its registration returns False.
    _hooks.setdefault(turn, _nothing)()


def _call_all() -> None:
    with ExitStack() as stack:
        # Every turn comes, even if another one raises. In reverse: what is pushed last is called first.
        for turn in (EXECUTORS, LOOPS, POOLS):
            stack.callback(_call, turn)


try:
    threading._register_atexit(_call_all)  # type: ignore[attr-defined]
except RuntimeError:
    # The threads have been joined, and no more can start.
    _hooks.update(dict.fromkeys((POOLS, LOOPS, EXECUTORS), _nothing))
