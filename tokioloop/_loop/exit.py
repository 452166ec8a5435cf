"""The interpreter's end: loops of other threads are stopped before it waits for their threads.

Otherwise a non-daemon thread in ``run_forever()`` would keep the process alive forever, and a daemon thread would
be cut off in the middle of a callback. ``atexit`` is too late for both: its functions run after the threads were joined.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from .._tokioloop import _begin_exit
from .joining import LOOPS, before_joining
from .lifecycle import Lifecycle

# In seconds: how long all loops together may take to leave their runs. A loop in a callback that blocks is abandoned.
PATIENCE = 1.0


def _stop_loops() -> None:
    """Stop every run in another thread that nothing else ends, and wait until they have ended. On the main thread."""
    stopped = [loop for loop in _begin_exit() if isinstance(loop, Lifecycle) and _is_to_be_stopped(loop)]
    for loop in stopped:
        loop._ended_by_exit = True
        loop.stop()
    deadline = time.monotonic() + PATIENCE
    pause = 0.0001
    while any(loop.is_running() for loop in stopped) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    for loop in stopped:
        # A thread that goes on and waits for them would keep the interpreter alive forever. A loop refuses this while it still runs, or
        # while its thread runs it again to clean up.
        with suppress(RuntimeError):
            loop._break_off()
            loop._tell_of_close()


def _is_to_be_stopped(loop: Lifecycle) -> bool:
    ident = loop._thread()
    if not loop.is_running() or ident == threading.get_ident():
        return False
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    # The interpreter does not wait for a thread that `threading` does not know.
    return thread is None or thread.daemon or not loop._has_goal()


before_joining(LOOPS, _stop_loops)
