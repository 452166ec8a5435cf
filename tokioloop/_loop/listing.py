"""Looking at tasks: listings that any thread may ask for, and what ``repr`` is in another thread than the loop's."""

import asyncio
import concurrent.futures
import reprlib
import sys
from asyncio import AbstractEventLoop, Task, base_futures, tasks
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _tokioloop
from .public import public

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


@reprlib.recursive_repr()
def _foreign_repr(future: "asyncio.Future[Any]") -> str:
    """The ``repr`` in another thread than the loop's.

    Each thing is asked for once, since it may change meanwhile; and a task's is without the place in its code, which may be
    running.
    """
    state: str = future._state.lower()
    parts = [state]
    if isinstance(future, Task):
        if state == "pending" and future.cancelling():
            parts = ["cancelling"]
        coro: Any = future.get_coro()
        parts.append(f"name={future.get_name()!r}")
        parts.append(f"coro=<{getattr(coro, '__qualname__', type(coro).__name__)}()>")
        waiter = future._fut_waiter  # type: ignore[attr-defined]
        if waiter is not None:
            # asyncio's own futures, such as gather()'s, are not safe to read from here.
            ours = isinstance(waiter, (_tokioloop.Future, _tokioloop.Task))
            parts.append(f"wait_for={waiter!r}" if ours else f"wait_for={object.__repr__(waiter)}")
    if state == "finished":
        error = future._exception
        parts.append(
            f"exception={error!r}" if error is not None else f"result={reprlib.repr(future._result)}"  # type: ignore[attr-defined]
        )
    callbacks = future._callbacks
    if callbacks:
        parts.append(base_futures._format_callbacks(callbacks))
    place = future._source_traceback  # type: ignore[attr-defined]
    if place:
        parts.append(f"created at {place[-1][0]}:{place[-1][1]}")
    return f"<{type(future).__name__} {' '.join(parts)}>"


@public
def format_call_graph(task: "Task[Any]", *, timeout: float = 1.0) -> str:
    """Return the stack of a task, and below it the tasks that wait for it, as text. Any thread.

    Frames can be read by the loop's thread only, so in another thread this asks the loop and blocks until it answers, for
    *timeout* seconds at the most. A loop that does not answer in time is busy: then the text states that and has no frames.
    """
    return _ask(task.get_loop(), lambda frames: "\n".join(_graph(task, frames, "", set())), timeout)


@public
def print_tasks(
    loop: AbstractEventLoop | None = None, *, file: "SupportsWrite[str] | None" = None, timeout: float = 1.0
) -> None:
    """Print every task of *loop* (default: the running one) that is not done, with its stack and the tasks that wait for it. Any thread.

    *file* defaults to ``sys.stderr``; *timeout* is as for ``format_call_graph``.
    """
    target = loop if loop is not None else asyncio.get_running_loop()

    def listing(frames: bool) -> str:
        found = sorted(tasks.all_tasks(target), key=lambda task: task.get_name())
        lines = [f"{len(found)} pending task{'' if len(found) == 1 else 's'} on {target!r}"]
        for task in found:
            lines += _graph(task, frames, "", set())
        return "\n".join(lines)

    print(_ask(target, listing, timeout), file=file if file is not None else sys.stderr)


def _ask(loop: AbstractEventLoop, text: Callable[[bool], str], timeout: float) -> str:
    """Call *text* on the thread that may read frames; without frames if that thread does not get to it."""
    if not loop.is_running() or asyncio._get_running_loop() is loop:
        return text(True)
    answer: concurrent.futures.Future[str] = concurrent.futures.Future()

    def make() -> None:
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(text(True))
            except Exception as error:
                answer.set_exception(error)

    try:
        loop.call_soon_threadsafe(make)
        return answer.result(timeout)
    except TimeoutError:
        if not answer.cancel():
            return answer.result()  # The text is being made at this moment.
        return f"(the loop did not answer within {timeout:g} s: no frames)\n{text(False)}"


def _graph(future: "asyncio.Future[Any]", frames: bool, indent: str, seen: set[int]) -> list[str]:
    if id(future) in seen:
        return [f"{indent}* (shown above)"]
    seen.add(id(future))
    lines = [f"{indent}* {_title(future)}"]
    if frames and isinstance(future, Task):
        lines += [f"{indent}  {place}" for place in _places(future.get_coro())]
    waiting = getattr(future, "_asyncio_awaited_by", None)
    for parent in sorted(waiting or (), key=_title):
        lines.append(f"{indent}  awaited by:")
        lines += _graph(parent, frames, indent + "    ", seen)
    return lines


def _title(future: "asyncio.Future[Any]") -> str:
    kind = type(future).__name__
    state: str = future._state.lower()
    if not isinstance(future, Task):
        return f"{kind} {state}"
    coro: Any = future.get_coro()
    return f"{kind} {future.get_name()!r} {state}: {getattr(coro, '__qualname__', type(coro).__name__)}()"


def _places(coro: Any) -> list[str]:
    """The frames of a suspended coroutine, from the outside to the inside."""
    places = []
    while coro is not None:
        for kind in ("cr", "gi", "ag"):
            if hasattr(coro, f"{kind}_frame"):
                frame = getattr(coro, f"{kind}_frame")
                if frame is not None:
                    code = frame.f_code
                    places.append(f"{code.co_qualname} at {code.co_filename}:{frame.f_lineno}")
                coro = getattr(coro, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            break
    return places
