"""What is called before the interpreter, at its end, waits for its threads. (``atexit`` is too late: its functions run after that.)"""

import threading
from collections.abc import Callable
from concurrent.futures import thread as _executor_threads
from contextlib import suppress

# Its hook waits for executors' threads, which may run loops; hooks run in reverse order, so ours must come after.
assert _executor_threads


def before_joining(hook: Callable[[], None]) -> None:
    """Have *hook* called before the interpreter waits for its threads, and before those that were given earlier.

    Nothing happens if that has begun: the threads have been joined then, and none starts any more.
    """
    with suppress(RuntimeError):
        threading._register_atexit(hook)  # type: ignore[attr-defined]
