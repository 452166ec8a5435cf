"""Looking at tasks: what asyncio's functions answer for a ``TokioLoop``, and listings that any thread may ask for."""

import asyncio
import reprlib
import sys
import types
from asyncio import AbstractEventLoop, Task, tasks
from typing import Any

from ._tokioloop import EventLoop, _native_tasks

# On 3.13 ``all_tasks`` is a Python function, and programs hold it by imports made before ours. So the function keeps its
# identity and gets other code, which runs among asyncio's own names and therefore imports what it needs.
_original_all_tasks: Any = None


def _all_tasks(loop: AbstractEventLoop | None = None) -> "set[Task[Any]]":
    """Return a set of all tasks for the loop."""
    from tokioloop._tasks import _answer_all_tasks

    return _answer_all_tasks(loop)


def _answer_all_tasks(loop: AbstractEventLoop | None) -> "set[Task[Any]]":
    if loop is None:
        loop = asyncio.get_running_loop()
    found: set[Task[Any]] = _original_all_tasks(loop)
    if isinstance(loop, EventLoop):
        found |= _native_tasks(loop)
    return found


def _redefine_all_tasks() -> None:
    global _original_all_tasks
    function = tasks.all_tasks
    if _original_all_tasks is None and isinstance(function, types.FunctionType):
        _original_all_tasks = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__
        )
        function.__code__ = _all_tasks.__code__


_redefine_all_tasks()


@reprlib.recursive_repr()
def _foreign_repr(task: "Task[Any]") -> str:
    """What ``repr(task)`` is in another thread than its loop's: without the place in its code, which may be running."""
    state: str = task._state.lower()  # type: ignore[attr-defined]
    parts = ["cancelling" if task.cancelling() and state == "pending" else state, f"name={task.get_name()!r}"]
    coro: Any = task.get_coro()
    parts.append(f"coro=<{getattr(coro, '__qualname__', type(coro).__name__)}()>")
    waiter = task._fut_waiter  # type: ignore[attr-defined]
    if waiter is not None:
        parts.append(f"wait_for={waiter!r}")
    if state == "finished":
        error = task._exception  # type: ignore[attr-defined]
        shown = f"exception={error!r}" if error is not None else f"result={reprlib.repr(task._result)}"  # type: ignore[attr-defined]
        parts.append(shown)
    return f"<{type(task).__name__} {' '.join(parts)}>"
