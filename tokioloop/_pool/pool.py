"""WorkerPool: threads with a loop each, which share the submitted jobs."""

import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Self, overload

from .. import _tokioloop
from .._loop.gil import warn_if_gil_is_on
from .._loop.public import public
from .._net.names import Host, Port
from .._serving.server import Accept, Factory, PoolServer, StreamsCallback
from .._serving.spread import serve
from ..loop import TokioLoop
from .across import outcome
from .crew import GRACE, Crew, Worker
from .job import JobFuture

#: How many results an ``imap`` keeps in progress for each worker.
IN_FLIGHT = 16


@public
@dataclass(frozen=True, slots=True)
class WorkerStats:
    """The counters of one worker."""

    #: Jobs it began.
    begun: int
    #: How often it took jobs that another worker had taken before.
    stolen: int
    #: Coroutines that it began and that have not ended.
    running: int


@public
@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool."""

    #: Jobs that have not begun.
    waiting: int
    workers: tuple[WorkerStats, ...]


@public
class WorkerPool(_tokioloop.Pool, Executor):  # type: ignore[misc]
    """Threads that run one ``TokioLoop`` each and share the jobs that are submitted.

    A job is a function or a coroutine function with its arguments. It waits until a worker takes it, begins on that
    worker's loop and stays there: a function is called on the loop's thread (and blocks that loop meanwhile), a
    coroutine runs as a task beside others. An idle worker takes over jobs that wait with another.

    *threads* is the number of workers; None means the number of cores this process may use. *name* begins the threads' names.
    *setup* is called once on each worker's loop before its first job, and *teardown* after its last; both may be coroutine
    functions. The result of *setup* is ``current_worker().state`` there. If it fails, all jobs fail with BrokenExecutor.

    As a context manager it waits for all jobs at the end. Ctrl-C in the main thread ends the body but not that wait; a second Ctrl-C
    cancels the remaining jobs. A pool that was not shut down ends with the interpreter, its jobs cancelled; an unreferenced
    one finishes the submitted jobs and ends.

    Any thread may call its methods, except those for coroutines.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        name: str = "tokioloop-worker",
        setup: Callable[[], object] | None = None,
        teardown: Callable[[], object] | None = None,
    ) -> None:
        warn_if_gil_is_on()
        queues = self._begin(os.process_cpu_count() or 1 if threads is None else threads)
        names = [f"{name}-{index}" for index in range(self._workers())]
        self._crew = Crew(queues, names, setup, teardown)
        self._crew.start()

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

        If the caller is cancelled, the job is cancelled too; the caller then waits for a running coroutine, as when a task awaits another.
        """
        return await outcome(self.submit(fn, *args, **kwargs))

    @overload
    def map[T](
        self,
        fn: Callable[..., Coroutine[Any, Any, T]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        **options: Any,
    ) -> Iterator[T]: ...
    @overload
    def map[T](
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        **options: Any,
    ) -> Iterator[T]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """Submit ``fn(*items)`` for each tuple of items at once, and iterate over the results in that order. From plain code.

        As ``concurrent.futures.Executor.map``; with 3.14's *buffersize* as an option there.
        """
        return super().map(fn, *iterables, timeout=timeout, **options)

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

        At most *limit* jobs are running or have untaken results (16 for each worker by default), however long
        *iterable* is: it is read only as results are taken. The first exception ends the iteration and is raised. Running
        jobs are cancelled at an early end.
        """
        if limit is None:
            limit = IN_FLIGHT * len(self._crew.workers)
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

    # Serving.

    async def serve(
        self,
        make: "Factory | StreamsCallback",
        host: Host | Sequence[Host] = None,
        port: Port = None,
        *,
        accept: Accept = "reuseport",
        **options: Any,
    ) -> PoolServer:
        """Serve on all workers' loops, from a coroutine of any loop; connections belong to one worker each.

        *make* is a protocol factory or a streams callback, called on the connection's worker. *accept* says how connections come
        to the workers: "reuseport", each listens on a socket of its own; "shared", one socket wakes one of them; "balance", the
        first accepts for the one that has fewest. The other *options*, among them ``ssl``, ``sock`` and ``path``, are those of
        docs/servers.md. The server's ``close``, ``drain`` and ``stats`` are for all workers. ``shutdown`` closes it.
        """
        await self._crew.become_ready()
        if self._is_closing():
            raise self._refusal()
        loops = [worker.loop for worker in self._crew.workers]
        server = await serve(loops, make, host, port, accept=accept, **options)
        self._crew.add_server(server)
        return server

    # Looking.

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers; a job can be pinned to one by its index."""
        return self._crew.workers

    @property
    def loops(self) -> tuple[TokioLoop, ...]:
        """The workers' loops. Waits until all are set up; raises what a set-up raised."""
        self._crew.wait_ready()
        return tuple(worker.loop for worker in self._crew.workers)

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool's figures."""
        waiting, figures = self._figures()
        return PoolStats(waiting, tuple(WorkerStats(*worker) for worker in figures))

    def __repr__(self) -> str:
        state = "closing" if self._is_closing() else "open"
        return f"<{type(self).__name__} workers={self._workers()} {state}>"

    # The end.

    def shutdown(
        self,
        wait: bool = True,
        timeout: float | None = None,
        cancel_jobs: bool = False,
        *,
        cancel_futures: bool = False,
    ) -> None:
        """Refuse new jobs and connections, let jobs end, then close the loops and end the threads.

        Connections of servers are closed when the jobs have ended; with a *timeout* they have that time to end by themselves.
        With *cancel_jobs* waiting jobs and the tasks of running coroutines are cancelled; with
        *cancel_futures* only the former. With *wait* it returns when the threads have ended. After *timeout* seconds
        everything is cancelled; threads that do not end within another second are abandoned with a RuntimeWarning.
        KeyboardInterrupt during the wait does the same at once and is raised. RuntimeError where a worker would wait for itself.
        """
        if wait:
            self._refuse_workers()
        crew = self._crew
        crew.close(cancel_jobs, cancel_futures, timeout is not None)
        if not wait:
            return
        try:
            if crew.join(timeout):
                return
        except BaseException:
            crew.cut_short()
            raise
        crew.cut_short()

    async def aclose(self, timeout: float | None = None, cancel_jobs: bool = False) -> None:
        """As ``shutdown``, for a coroutine of any loop. If the caller is cancelled, everything is cancelled at once."""
        self._refuse_workers()
        crew = self._crew
        crew.close(cancel_jobs, False, timeout is not None)
        try:
            if await crew.join_async(timeout):
                return
        except BaseException:
            crew.cancel()
            await crew.join_async(GRACE)
            crew.abandon()
            raise
        crew.cancel()
        await crew.join_async(GRACE)
        crew.abandon()

    def _refuse_workers(self) -> None:
        if self._index() is not None:
            raise RuntimeError("a worker can't wait for the end of its own pool")

    def _refusal(self) -> Exception:
        # Called by the native side when a job is submitted to a pool that is closing.
        return self._crew.refusal()

    def __enter__(self) -> Self:
        self._crew.wait_ready()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        await self._crew.become_ready()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # No more jobs can be submitted. The threads finish all jobs; there are none if `__init__` failed.
        self._close()
