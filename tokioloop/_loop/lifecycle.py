"""A loop's life: run until done, async generators, close, and the warning for a loop left open."""

from __future__ import annotations

import warnings
from asyncio import Future, ensure_future, events, gather, isfuture
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from threading import get_ident
from weakref import WeakSet

from .._tokioloop import EventLoop
from .errors import Errors
from .executor import Executor
from .log import logger
from .signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

type _AsyncGen = AsyncGenerator[Any, Any]


class Listeners(EventLoop):
    """Functions that are called at the loop's end, each once, in the thread that closes it."""

    _told_of_close: list[Callable[[], object]] | None = None

    def _on_close(self, tell: Callable[[], object]) -> None:
        self._told_of_close = [*(self._told_of_close or ()), tell]

    def _forget_close(self, tell: Callable[[], object]) -> None:
        self._told_of_close = [other for other in self._told_of_close or () if other != tell] or None

    def _tell_of_close(self) -> None:
        """Call them: the loop is closed."""
        told, self._told_of_close = self._told_of_close, None
        for tell in told or ():
            tell()


class Lifecycle(Signals, Executor, Errors, Listeners):
    """The life of a loop."""

    # Made when the first async generator starts: most loops never see one.
    _asyncgens: WeakSet[_AsyncGen] | None = None
    _asyncgens_shutdown_called: bool = False

    # Stopped because the interpreter ends, see _exit.
    _ended_by_exit: bool = False

    # The worker thread whose policy slot this loop took, see _adopt_thread.
    _adopted_thread: int | None = None

    def _adopt_thread(self) -> None:
        """Become this worker thread's loop for asyncio's policy too, unless it has one. The native side calls this when a run begins.

        Code that asks the policy instead of the running loop then gets the same answer. This does not apply to the main
        thread: there ``asyncio.run`` and the program itself manage that slot.
        """
        local = getattr(events._event_loop_policy, "_local", None)  # type: ignore[attr-defined]
        if getattr(local, "_loop", None) is None:
            events.set_event_loop(self)  # type: ignore[arg-type]
            self._adopted_thread = get_ident()

    def run_until_complete[T](self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until *future* is done and return its result or raise its exception.

        A coroutine is wrapped in a task first. Raises RuntimeError if the loop is closed, already running,
        or stopped before the future is done.
        """
        self._check_closed()
        self._check_running()
        ours = not isfuture(future)
        task: Future[T] = ensure_future(future, loop=self)  # type: ignore[call-overload]
        if ours:
            # If the task does not finish, this raises below; a second report at the task's end would be noise.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.add_done_callback(_stop_when_done)
        had_goal = self._set_goal(True)
        try:
            self.run_forever()
        except BaseException:
            if ours and task.done() and not task.cancelled():
                # The caller never sees this task: mark its exception as retrieved.
                task.exception()
            raise
        finally:
            self._set_goal(had_goal)
            task.remove_done_callback(_stop_when_done)
        if not task.done():
            if self._ended_by_exit:
                # A daemon thread at the interpreter's end: it ends silently, as it would without a loop.
                raise SystemExit
            raise RuntimeError("Event loop stopped before Future completed.")
        return task.result()

    def close(self) -> None:
        """Close the loop: drop what is queued, let the default executor's threads end, restore signals.

        A second call does nothing. Raises RuntimeError while the loop runs.
        """
        if not self.is_closed():
            if self.get_debug() and not self.is_running():
                logger.debug("Close %r", self)
            super().close()
            self._drop_executor()
            # At the interpreter's end, a module's names may be gone, and with them the hooks to restore.
            if events is not None and self._adopted_thread == get_ident():
                local = getattr(events._event_loop_policy, "_local", None)  # type: ignore[attr-defined]
                if getattr(local, "_loop", None) is self:
                    events.set_event_loop(None)
        if self._signal_handlers:
            self._drop_signal_handlers()
        self._tell_of_close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # Bound as a default: at the interpreter's end the module's own names are gone before the last loops.
        if self.is_closed():
            return
        _warn(f"unclosed event loop {self!r}", ResourceWarning, stacklevel=1, source=self)
        if not self.is_running():
            self.close()

    # Async generators. The native side installs these two as the thread's hooks while the loop runs.

    def _asyncgen_firstiter_hook(self, agen: _AsyncGen) -> None:
        if self._asyncgens_shutdown_called:
            warnings.warn(
                f"asynchronous generator {agen!r} was scheduled after loop.shutdown_asyncgens() call",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        live = self._asyncgens
        if live is None:
            live = self._asyncgens = WeakSet()
        live.add(agen)

    def _asyncgen_finalizer_hook(self, agen: _AsyncGen) -> None:
        # The collector calls this in whichever thread it runs.
        if self._asyncgens is not None:
            self._asyncgens.discard(agen)
        if not self.is_closed():
            self._post(self.create_task, agen.aclose())

    async def shutdown_asyncgens(self) -> None:
        """Close every async generator that was iterated on this loop and is still open.

        One that fails to close is reported through the exception handler.
        """
        self._check_thread()
        self._asyncgens_shutdown_called = True
        if not self._asyncgens:
            return
        closing = list(self._asyncgens)
        self._asyncgens.clear()
        results = await gather(*[agen.aclose() for agen in closing], return_exceptions=True)
        for agen, result in zip(closing, results, strict=True):
            if isinstance(result, Exception):
                self.call_exception_handler(
                    {
                        "message": f"an error occurred during closing of asynchronous generator {agen!r}",
                        "exception": result,
                        "asyncgen": agen,
                    }
                )


def _stop_when_done(future: Future[Any]) -> None:
    if not future.cancelled() and isinstance(future.exception(), (SystemExit, KeyboardInterrupt)):
        # The exception itself has left run_forever.
        return
    future.get_loop().stop()
