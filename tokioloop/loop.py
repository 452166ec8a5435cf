"""The loop class: the native core, the Python rooms around it, and asyncio's interface on top."""

import asyncio
from typing import cast

from . import _tokioloop
from ._loop.lifecycle import Lifecycle
from ._net.datagram import Datagram
from ._net.sendfile import Sendfile
from ._net.serve import Serve
from ._process.spawn import Processes


class TokioLoop(Datagram, Serve, Sendfile, Processes, Lifecycle, asyncio.AbstractEventLoop):  # type: ignore[misc]
    """An asyncio event loop: make one in each thread that needs one, run it there, close it at the end.

    It may be made in one thread and run in another. While it runs, only its own thread may call it, but for
    ``call_soon_threadsafe``, ``stop``, ``is_running``, ``is_closed``, ``time``, ``get_debug`` and ``repr``:
    anything else raises RuntimeError naming both threads.
    """


_tokioloop._own_methods(TokioLoop)


def new_event_loop() -> TokioLoop:
    """Return a new loop, bound to the calling thread if that has no live loop yet. May be called anywhere."""
    return TokioLoop()


def loops() -> dict[int, TokioLoop]:
    """Return this process's live loops by the ident of the thread they run in or are bound to.

    One loop for each ident: where several were made in a thread, the one that runs there or was bound first. A loop made in a
    thread that has ended stays listed under that thread's ident until a new thread gets it. A snapshot, safe to take from
    any thread; loops may start and end while it is looked at.
    """
    return cast("dict[int, TokioLoop]", _tokioloop.loops())
