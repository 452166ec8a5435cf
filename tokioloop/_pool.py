"""WorkerPool: threads with a loop each, which share what is submitted."""

import asyncio
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from inspect import iscoroutine
from typing import Any, Self, cast, overload
from weakref import WeakSet

from . import _tokioloop
from ._across import outcome
from ._job import JobFuture
from .loop import TokioLoop

#: What jobs that were cancelled get to end, in seconds, before their threads are left behind.
GRACE = 1.0

#: How many results an ``imap`` keeps on their way for each worker.
IN_FLIGHT = 16

_here = threading.local()


class Worker:
    """One worker of a pool, as ``current_worker()`` gives it."""

    def __init__(self, pool: "WorkerPool", index: int, name: str) -> None:
        self.pool = pool
        self.index = index
        self.name = name
        #: What ``setup`` returned: a connection pool of this worker's loop, say. The worker's thread only.
        self.state: Any = None
        self.loop: TokioLoop
        self.thread: threading.Thread
        #: Done when the setup is, or failed with its error.
        self.ready: Future[None] = Future()
        #: Done when the thread is about to end.
        self.ended: Future[None] = Future()
        self.abandoned = False

    def __repr__(self) -> str:
        return f"<Worker {self.name}>"


def current_worker() -> Worker:
    """Return the worker that the calling thread is. RuntimeError in any other thread."""
    worker: Worker | None = getattr(_here, "worker", None)
    if worker is None:
        raise RuntimeError("this thread is no worker of a pool")
    return worker


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What one worker did so far."""

    #: Jobs it began.
    begun: int
    #: How often it took jobs that another worker had taken before.
    stolen: int
    #: Coroutines that it began and that have not ended.
    running: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool."""

    #: Jobs that nobody has begun.
    waiting: int
    workers: tuple[WorkerStats, ...]


class WorkerPool(_tokioloop.Pool, Executor):  # type: ignore[misc]
    """Threads that run one ``TokioLoop`` each and share the jobs that are submitted.

    A job is a function or a coroutine function with its arguments. It waits until a worker has nothing else to do, is begun
    on that worker's loop and stays there: a function is called on the loop's thread (and blocks that loop meanwhile), a
    coroutine runs as a task beside others. Jobs that wait with one worker are taken over by another that has nothing to do.

    *threads* is the number of workers; None stands for the cores this process may use. *name* begins the threads' names.
    *setup* is called once on each worker's loop before its first job, and *teardown* after its last; both may be coroutine
    functions. What *setup* returns is ``current_worker().state`` there. If it fails, so do all jobs, with BrokenExecutor.

    As a context manager it waits for all jobs at the end. On Ctrl-C in the main thread that is done too; a second Ctrl-C
    cancels what is left. A pool that is not shut down is, with its jobs cancelled, when the interpreter ends.

    Any thread may call its methods, but for those that belong to a coroutine.
    """

    def __new__(cls, threads: int | None = None, *args: object, **kwargs: object) -> Self:
        return super().__new__(cls, os.process_cpu_count() or 1 if threads is None else threads)

    def __init__(
        self,
        threads: int | None = None,
        *,
        name: str = "tokioloop-worker",
        setup: Callable[[], object] | None = None,
        teardown: Callable[[], object] | None = None,
    ) -> None:
        self._setup = setup
        self._teardown = teardown
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        count = os.process_cpu_count() or 1 if threads is None else threads
        self._left = count
        self._workers = tuple(Worker(self, index, f"{name}-{index}") for index in range(count))
        _pools.add(self)
        for worker in self._workers:
            # Daemons, so that a job that never ends can't keep the interpreter: `_end_pools` gives all of them a fair end.
            worker.thread = threading.Thread(target=self._work, args=(worker,), name=worker.name, daemon=True)
        for index, worker in enumerate(self._workers):
            try:
                worker.thread.start()
            except RuntimeError as error:
                self._break(error)
                for missing in self._workers[index:]:
                    self._depart(missing)
                raise

    # Submitting. `submit` itself is native.

    @overload
    async def run[T](
        self,
        fn: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        worker: int | None = None,
        **kwargs: Any,
    ) -> T: ...
    @overload
    async def run[T](
        self, fn: Callable[..., T], /, *args: Any, worker: int | None = None, **kwargs: Any
    ) -> T: ...
    async def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Submit a job and return its result, or raise what it raised. From a coroutine of any loop.

        If the caller is cancelled, so is the job; a coroutine that runs is waited for then, as when a task awaits another.
        """
        return await outcome(self.submit(fn, *args, **kwargs))

    @overload
    def imap[A, T](
        self,
        fn: Callable[[A], Coroutine[Any, Any, T]],
        iterable: Iterable[A] | AsyncIterable[A],
        *,
        limit: int | None = None,
    ) -> AsyncGenerator[T]: ...
    @overload
    def imap[A, T](
        self, fn: Callable[[A], T], iterable: Iterable[A] | AsyncIterable[A], *, limit: int | None = None
    ) -> AsyncGenerator[T]: ...
    async def imap(
        self,
        fn: Callable[[Any], Any],
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int | None = None,
    ) -> AsyncGenerator[Any]:
        """Iterate over ``fn(item)`` for each item, in their order, from a coroutine of any loop.

        At most *limit* jobs are under way or have results that nobody took (16 for each worker by default), however long
        *iterable* is: it is read only as results are taken. The first exception ends the iteration and is raised. What is under
        way at an early end is cancelled.
        """
        if limit is None:
            limit = IN_FLIGHT * len(self._workers)
        elif limit < 1:
            raise ValueError("limit must be at least 1")
        under_way: deque[JobFuture[Any]] = deque()
        try:
            if isinstance(iterable, AsyncIterable):
                async for item in iterable:
                    under_way.append(self.submit(fn, item))
                    if len(under_way) >= limit:
                        yield await outcome(under_way.popleft())
            else:
                for item in iterable:
                    under_way.append(self.submit(fn, item))
                    if len(under_way) >= limit:
                        yield await outcome(under_way.popleft())
            while under_way:
                yield await outcome(under_way.popleft())
        finally:
            for job in under_way:
                job.cancel()

    # Looking.

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers; a job can be pinned to one by its index."""
        return self._workers

    @property
    def loops(self) -> tuple[TokioLoop, ...]:
        """The workers' loops. Waits until all are set up; raises what a setup raised."""
        self._wait_ready()
        return tuple(worker.loop for worker in self._workers)

    def stats(self) -> PoolStats:
        """Return what the pool does at this moment."""
        waiting, figures = self._figures()
        return PoolStats(waiting, tuple(WorkerStats(*worker) for worker in figures))

    def __repr__(self) -> str:
        state = "closing" if self._is_closing() else "open"
        return f"<{type(self).__name__} workers={len(self._workers)} {state}>"

    # The end.

    def shutdown(
        self,
        wait: bool = True,
        timeout: float | None = None,
        cancel_jobs: bool = False,
        *,
        cancel_futures: bool = False,
    ) -> None:
        """Refuse new jobs, let those that were submitted end, then close the loops and end the threads.

        With *cancel_jobs* those that wait are cancelled and coroutines that run are asked to cancel themselves; with
        *cancel_futures* only the former. With *wait* it returns when the threads have ended. After *timeout* seconds
        everything is cancelled; threads that do not end within another second are left behind with a RuntimeWarning.
        KeyboardInterrupt during the wait does the same at once and is raised. RuntimeError where a worker would wait for itself.
        """
        if wait and self._index() is not None:
            raise RuntimeError("a worker can't wait for the end of its own pool")
        self._begin_end(cancel_jobs, cancel_futures)
        if not wait:
            return
        try:
            self._join(timeout)
        except BaseException:
            self._cancel_all()
            self._join(GRACE)
            raise
        if self._has_ended():
            return
        self._cancel_all()
        self._join(GRACE)
        self._give_up()

    async def aclose(self, timeout: float | None = None, cancel_jobs: bool = False) -> None:
        """As ``shutdown``, for a coroutine of any loop. If the caller is cancelled, everything is cancelled at once."""
        if self._index() is not None:
            raise RuntimeError("a worker can't wait for the end of its own pool")
        self._begin_end(cancel_jobs, False)
        try:
            if await self._join_async(timeout):
                return
        except BaseException:
            self._cancel_all()
            await self._join_async(GRACE)
            raise
        self._cancel_all()
        await self._join_async(GRACE)
        self._give_up()

    def __enter__(self) -> Self:
        self._wait_ready()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(asyncio.wrap_future(worker.ready) for worker in self._workers))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _wait_ready(self) -> None:
        for worker in self._workers:
            worker.ready.result()

    def _begin_end(self, cancel_jobs: bool, cancel_futures: bool) -> None:
        self._close()
        if cancel_jobs:
            self._cancel_all()
        elif cancel_futures:
            self._end_waiting()

    def _cancel_all(self) -> None:
        self._end_waiting()
        for worker in self._workers:
            if worker.ready.done():
                worker.loop._post(self._cancel_running)

    def _has_ended(self) -> bool:
        return all(worker.ended.done() for worker in self._workers)

    def _join(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if worker.thread.ident is not None:
                worker.thread.join(left)

    async def _join_async(self, timeout: float | None) -> bool:
        ends = [asyncio.wrap_future(worker.ended) for worker in self._workers]
        _, late = await asyncio.wait(ends, timeout=timeout)
        if late:
            return False
        # What is left of the threads takes microseconds.
        self._join(None)
        return True

    def _give_up(self) -> None:
        """Leave behind the threads that have not ended: their jobs are cancelled for whoever waits for them."""
        late = [worker for worker in self._workers if not worker.ended.done()]
        if not late:
            return
        for worker in late:
            worker.abandoned = True
            if worker.ready.done():
                worker.loop.stop()
        self._end_begun()
        names = ", ".join(worker.name for worker in late)
        warnings.warn(f"threads that do not end are left behind: {names}", RuntimeWarning, stacklevel=3)

    # A worker's thread.

    def _work(self, worker: Worker) -> None:
        _here.worker = worker
        try:
            with asyncio.Runner(loop_factory=TokioLoop) as runner:
                worker.loop = cast("TokioLoop", runner.get_loop())
                try:
                    if self._setup is not None:
                        worker.state = _call(runner, self._setup)
                    self._enter(worker.loop, worker.index)
                except BaseException as error:
                    worker.ready.set_exception(error)
                    self._break(error)
                else:
                    worker.ready.set_result(None)
                    try:
                        self._do_jobs(worker)
                    finally:
                        self._leave(worker.loop)
                        if self._teardown is not None:
                            _call(runner, self._teardown)
        finally:
            self._forget()
            self._depart(worker)

    def _do_jobs(self, worker: Worker) -> None:
        while not worker.abandoned:
            try:
                worker.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # A coroutine's, whose job has it. The worker goes on.
                continue
            if self._is_over():
                return

    def _break(self, error: BaseException) -> None:
        """A setup failed: so do all jobs."""
        with self._lock:
            if self._failure is None:
                self._failure = error
        self._close()
        self._end_waiting(self._refusal())

    def _refusal(self) -> Exception:
        """Return what ``submit`` raises once the pool is closing. Called by native."""
        if self._failure is not None:
            refusal = BrokenExecutor(f"the setup of a worker failed: {self._failure!r}")
            refusal.__cause__ = self._failure
            return refusal
        return RuntimeError("cannot schedule new futures after shutdown")

    def _depart(self, worker: Worker) -> None:
        if not worker.ready.done():
            worker.ready.set_exception(self._refusal())
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish()
        worker.ended.set_result(None)


def _call(runner: asyncio.Runner, fn: Callable[[], object]) -> object:
    result = fn()
    return runner.run(result) if iscoroutine(result) else result


_pools: WeakSet[WorkerPool] = WeakSet()


def _end_pools() -> None:
    """Give every pool a fair and bounded end, before the interpreter's."""
    for pool in list(_pools):
        pool.shutdown(timeout=GRACE, cancel_jobs=True)


threading._register_atexit(_end_pools)  # type: ignore[attr-defined]
