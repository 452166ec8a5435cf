"""Makes asyncio's functions know the tasks of a ``TokioLoop``: those in Python get other code here."""

from __future__ import annotations

import asyncio
import types
from _asyncio import current_task as _redefined_current_task
from asyncio import AbstractEventLoop, Task, tasks

from .._tokioloop import EventLoop, _native_tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# asyncio's own functions in Python (on 3.13 ``all_tasks``; elsewhere those that the C versions replace) are held by programs and by
# imports made before ours. So each keeps its identity and gets other code, which runs among asyncio's own names and therefore
# imports what it needs. Those in C are redefined by the native module.
_originals: dict[str, types.FunctionType] = {}


def _all_tasks(loop: AbstractEventLoop | None = None) -> set[Task[Any]]:
    """Return a set of all tasks for the loop."""
    from tokioloop._loop.tasks import _answer_all_tasks

    return _answer_all_tasks(loop)


def _current_task(loop: AbstractEventLoop | None = None) -> Task[Any] | None:
    """Return a currently executed task."""
    from tokioloop._loop.tasks import _answer_current_task

    return _answer_current_task(loop)


def _answer_all_tasks(loop: AbstractEventLoop | None) -> set[Task[Any]]:
    if loop is None:
        loop = asyncio.get_running_loop()
    found: set[Task[Any]] = _originals["all_tasks"](loop)
    if isinstance(loop, EventLoop):
        found |= _native_tasks(loop)
    return found


def _answer_current_task(loop: AbstractEventLoop | None) -> Task[Any] | None:
    if loop is None:
        loop = asyncio.get_running_loop()
    # A task of another kind, if one runs, runs inside ours: ours make those give way.
    theirs: Task[Any] | None = _originals["current_task"](loop)
    if theirs is not None or not isinstance(loop, EventLoop):
        return theirs
    return _redefined_current_task(loop)


def _redefine(name: str, function: object, replacement: Any) -> None:
    if not isinstance(function, types.FunctionType):
        return
    # Kept with the function: this module may be imported a second time.
    original = getattr(function, "_before_tokioloop", None)
    if original is None:
        original = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__
        )
        function._before_tokioloop = original  # type: ignore[attr-defined]
        function.__code__ = replacement.__code__
    _originals[name] = original


_redefine("all_tasks", getattr(tasks, "_py_all_tasks", tasks.all_tasks), _all_tasks)
_redefine("current_task", getattr(tasks, "_py_current_task", None), _current_task)
