"""Blocking calls: run_in_executor and the default executor."""

from __future__ import annotations

import asyncio
from asyncio import Future, wrap_future
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from inspect import iscoroutinefunction
from threading import Thread
from warnings import warn

from .._tokioloop import EventLoop, ThreadQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .threads import LoopThreads


class Executor(EventLoop):
    """The default executor's life: made at first use, replaceable, shut down once."""

    _default_executor: LoopThreads | ThreadPoolExecutor | None = None
    _executor_shutdown_called: bool = False

    def run_in_executor[T, *Ts](
        self, executor: futures.Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> Future[T]:
        """Run ``func(*args)`` in *executor*, or in one of the loop's own threads for None.

        Raises RuntimeError on a closed loop, from another thread than the running loop's, and for the
        default executor once it was shut down.
        """
        self._check_closed()
        self._check_thread()
        if self.get_debug():
            _check_callback(func, "run_in_executor")
        if executor is None:
            if self._executor_shutdown_called:
                raise RuntimeError("Executor shutdown has been called")
            own = self._default_executor
            if own is None:
                # A loop that makes asyncio's futures can't see from another thread whether one was cancelled.
                native = self._makes_native_futures()
                own = _make_threads() if native else ThreadPoolExecutor(thread_name_prefix="asyncio")
                self._default_executor = own
            if isinstance(own, ThreadQueue):
                return own.call(self, func, args)
            executor = own
        return wrap_future(executor.submit(func, *args), loop=self)  # type: ignore[arg-type]

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:
        """Use *executor* where ``run_in_executor`` gets None; TypeError for anything but a thread pool."""
        self._check_thread()
        if not isinstance(executor, ThreadPoolExecutor):
            raise TypeError("executor must be ThreadPoolExecutor instance")
        own = self._default_executor
        self._default_executor = executor
        if isinstance(own, ThreadQueue):
            # There is no other reference to them: they end once the submitted jobs are done.
            own.shutdown(wait=False)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Refuse new work for the default executor and wait until its threads are done.

        After *timeout* seconds it warns with a RuntimeWarning and does not wait any longer; None
        waits without limit.
        """
        self._check_thread()
        self._executor_shutdown_called = True
        executor = self._default_executor
        if executor is None:
            return
        joined: Future[None] = self.create_future()
        joiner = Thread(target=self._join_executor, args=(executor, joined))
        joiner.start()
        try:
            async with asyncio.timeout(timeout):
                await joined
        except TimeoutError:
            warn(
                f"The executor did not finishing joining its threads within {timeout} seconds.",
                RuntimeWarning,
                stacklevel=2,
            )
            executor.shutdown(wait=False)
        else:
            joiner.join()

    def _join_executor(self, executor: LoopThreads | ThreadPoolExecutor, joined: Future[None]) -> None:
        # In a thread of its own. After a timeout the caller no longer waits, and the loop may be closed.
        try:
            executor.shutdown(wait=True)
        except Exception as exc:
            self._post(_settle, joined, exc)
        else:
            self._post(_settle, joined, None)

    def _post[*Ts](self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """``call_soon_threadsafe`` for callers that may ignore a closed loop."""
        try:
            self.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.is_closed():
                raise

    def _drop_executor(self) -> None:
        """For ``close``: let the threads end by themselves. A closed loop takes no new work anyway."""
        executor = self._default_executor
        if executor is not None:
            self._default_executor = None
            executor.shutdown(wait=False)


def _make_threads() -> LoopThreads:
    from .threads import LoopThreads

    return LoopThreads()


def _settle(future: Future[None], exc: Exception | None) -> None:
    if future.done():
        return
    if exc is None:
        future.set_result(None)
    else:
        future.set_exception(exc)


def _check_callback(callback: object, method: str) -> None:
    if asyncio.iscoroutine(callback) or iscoroutinefunction(callback):
        raise TypeError(f"coroutines cannot be used with {method}()")
    if not callable(callback):
        raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")
