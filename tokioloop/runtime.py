"""The Tokio runtime that all loops of the process share: its settings and its figures.

tokioloop.runtime.configure(worker_threads=2, thread_name="names")
tokioloop.runtime.metrics().blocking_threads

It starts when something first needs it, such as a name to be resolved, and there is one per process. Its threads block all
signals and touch no Python object. Loops do their socket I/O themselves and need no thread of it.

Name look-ups have a limit of their own: a look-up that is stuck in the system's resolver and can't be
stopped takes no thread from other blocking work, nor the other way round. More than ``resolver_threads`` wait for their turn, and
a cancelled one leaves the queue.

The environment variables TOKIOLOOP_WORKER_THREADS, TOKIOLOOP_MAX_BLOCKING_THREADS, TOKIOLOOP_RESOLVER_THREADS and
TOKIOLOOP_THREAD_NAME set the same;
``configure`` takes precedence. They are read when the runtime starts; an invalid value raises ValueError then.
"""

from operator import index
from typing import NamedTuple

from ._tokioloop import _configure_runtime, _runtime_metrics

__all__ = ("Metrics", "configure", "metrics")


class Metrics(NamedTuple):
    """The runtime at one moment. All 0 before it has started."""

    started: bool
    worker_threads: int
    alive_tasks: int
    #: Threads that make blocking calls, busy or idle; idle ones end after ten seconds.
    blocking_threads: int
    idle_blocking_threads: int
    #: Blocking calls that have not begun.
    blocking_queue_depth: int
    #: Tasks that wait for a worker.
    global_queue_depth: int
    #: Look-ups of names that run.
    running_lookups: int
    #: Look-ups that wait for one of those to end.
    waiting_lookups: int


def configure(
    *,
    worker_threads: int | None = None,
    max_blocking_threads: int | None = None,
    resolver_threads: int | None = None,
    thread_name: str | None = None,
) -> None:
    """Set how the runtime will be built; None leaves a setting as it is. May be called in any thread, more than once.

    worker_threads: how many threads run its tasks, from 1 to 32767; as many as there are cores if nothing is set.
    max_blocking_threads: the most threads for blocking calls except look-ups, from 1 to 32767; 512 if nothing is set.
    resolver_threads: how many names are looked up at a time, each by a thread, from 1 to 32767; 32 if nothing is set.
    thread_name: the name of its threads to the system, which keeps 15 bytes of it; "tokioloop" if nothing is set.

    Raises TypeError and ValueError for other values, RuntimeError once the runtime runs in this process. A forked child has
    none yet: it starts from its parent's settings and may change them.
    """
    workers = _count("worker_threads", worker_threads)
    blocking = _count("max_blocking_threads", max_blocking_threads)
    resolving = _count("resolver_threads", resolver_threads)
    if thread_name is not None and not isinstance(thread_name, str):
        raise TypeError(f"thread_name must be a str or None, not {type(thread_name).__name__}")
    _configure_runtime(workers, blocking, resolving, thread_name)


def metrics() -> Metrics:
    """Return the runtime's figures. May be called in any thread; starts nothing."""
    return Metrics(*_runtime_metrics())


def _count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}")
    count = index(value)
    # The native side's integers end here; its error names the allowed range.
    if not 0 <= count < 1 << 32:
        raise ValueError(f"{name} must be from 1 to 32767, not {count}")
    return count
