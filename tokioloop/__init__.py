"""An asyncio event loop written in Rust, made for free-threaded CPython: one loop per thread.

import tokioloop

tokioloop.run(main())                              # instead of asyncio.run(main())
asyncio.run(main(), loop_factory=tokioloop.TokioLoop)
"""

import sys as _sys
from importlib import import_module as _import_module

if (
    _sys.implementation.name != "cpython"
    or _sys.version_info < (3, 13)
    or not _sys.platform.startswith("linux")
):  # pragma: no cover - the condition for everything that follows
    raise ImportError(
        "tokioloop supports CPython 3.13 or later on Linux; this is "
        f"{_sys.implementation.name} {_sys.version_info.major}.{_sys.version_info.minor} on {_sys.platform}"
    )

from ._loop import exit as _exit  # noqa: F401 - stops loops when the interpreter ends
from ._tokioloop import Future, Task, __version__
from .loop import TokioLoop, loops, new_event_loop

# As in `typing`, which takes 2 ms to import where asyncio does not import it (3.14).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import runtime, tls
    from ._loop.listing import format_call_graph, print_tasks
    from ._net.streams import (
        StreamReader,
        StreamReaderProtocol,
        StreamWriter,
        open_connection,
        open_unix_connection,
        start_server,
        start_unix_server,
    )
    from ._pool.across import run_on
    from ._pool.crew import Worker, current_worker
    from ._pool.pool import PoolStats, WorkerPool, WorkerStats
    from ._serving.server import LoopStats, PoolServer, ServerStats
    from ._serving.spread import serve
    from ._setup.install import install, is_installed, uninstall
    from ._setup.policy import EventLoopPolicy
    from ._setup.run import run

__all__ = (
    "EventLoopPolicy",
    "Future",
    "LoopStats",
    "PoolServer",
    "PoolStats",
    "ServerStats",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "Task",
    "TokioLoop",
    "Worker",
    "WorkerPool",
    "WorkerStats",
    "__version__",
    "current_worker",
    "format_call_graph",
    "install",
    "is_installed",
    "loops",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "print_tasks",
    "run",
    "run_on",
    "runtime",
    "serve",
    "start_server",
    "start_unix_server",
    "tls",
    "uninstall",
)

# Names that are imported at first use, and their modules: few programs need all of them.
_LATER = {
    name: module
    for module, names in {
        "_loop.listing": "format_call_graph print_tasks",
        "_net.streams": "StreamReader StreamReaderProtocol StreamWriter open_connection open_unix_connection start_server start_unix_server",
        "_pool.across": "run_on",
        "_pool.crew": "Worker current_worker",
        "_pool.pool": "PoolStats WorkerPool WorkerStats",
        "_serving.server": "LoopStats PoolServer ServerStats",
        "_serving.spread": "serve",
        "_setup.install": "install is_installed uninstall",
        "_setup.policy": "EventLoopPolicy",
        "_setup.run": "run",
        "runtime": "",
        "tls": "",
    }.items()
    for name in names.split() or [module]
}


def __getattr__(name: str) -> object:
    # Several threads may do this at the same time: the import system gives all of them one module, once it is complete.
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _import_module(f".{module}", __name__)
    value = found if name == module else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Pickles made before the modules were in folders name modules that are found there.
__path__.append(f"{__path__[0]}/_former")
