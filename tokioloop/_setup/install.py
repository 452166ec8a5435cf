"""install() and uninstall(): make a whole process use ``TokioLoop``, and undo that.

One record holds the previous state. It is guarded by a lock, so that any thread may install or uninstall;
reading ``is_installed`` takes none.
"""

import asyncio
from asyncio import events
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any

from .. import _tokioloop
from .._loop.public import public
from .._net import streams as _streams
from .policy import EventLoopPolicy

_FUNCTIONS = ("get_event_loop", "get_running_loop")
_NAMESPACES = (asyncio, events)
_STREAMS = ("open_connection", "start_server", "open_unix_connection", "start_unix_server")

_lock = Lock()
_replaced: list[tuple[Any, str, object, object]] | None = None


@public
def install() -> None:
    """Make ``TokioLoop`` the loop of this process.

    Sets an ``EventLoopPolicy`` and puts native ``get_event_loop`` and ``get_running_loop`` into ``asyncio``
    and ``asyncio.events``, and functions that make native streams on a ``TokioLoop`` in place of ``open_connection``,
    ``start_server`` and the Unix pair. Any thread may call it; a second call does nothing.
    """
    global _replaced
    with _lock:
        if _replaced is not None:
            return
        # The policy's own variable: asking by its function would create a policy, and warns from 3.14 on.
        ours: list[tuple[Any, str, object]] = [(events, "_event_loop_policy", EventLoopPolicy())]
        ours += [(space, name, getattr(_tokioloop, name)) for space in _NAMESPACES for name in _FUNCTIONS]
        streams = [
            (name, _native_on_ours(getattr(asyncio, name), getattr(_streams, name))) for name in _STREAMS
        ]
        ours += [(space, name, new) for space in (asyncio, asyncio.streams) for name, new in streams]
        replaced = []
        for space, name, new in ours:
            replaced.append((space, name, getattr(space, name), new))
            setattr(space, name, new)
        _replaced = replaced


def _native_on_ours(theirs: Callable[..., Any], native: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function that is *native* on a ``TokioLoop`` and *theirs* on any other loop."""

    @wraps(theirs)
    async def choose(*args: Any, **options: Any) -> Any:
        ours = isinstance(events.get_running_loop(), _tokioloop.EventLoop)
        return await (native if ours else theirs)(*args, **options)

    return choose


@public
def uninstall() -> None:
    """Restore exactly the state from before ``install()``; without that it does nothing.

    Any thread may call it. Functions that other code has replaced meanwhile stay.
    """
    global _replaced
    with _lock:
        if _replaced is None:
            return
        for space, name, old, new in _replaced:
            if getattr(space, name) is new:
                setattr(space, name, old)
        _replaced = None


@public
def is_installed() -> bool:
    """Return whether ``install()`` is in effect. May be called from any thread."""
    return _replaced is not None
