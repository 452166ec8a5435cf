"""The threads of a pool: their loops, set-up, work, and end.

A crew does not know its pool, so that an unreferenced pool can be freed; its threads then finish the submitted
jobs, and end.
"""

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from contextlib import ExitStack
from inspect import iscoroutine
from typing import Any, cast
from weakref import WeakSet

from .. import _tokioloop
from .._loop.joining import POOLS, before_joining
from .._loop.public import public
from .._serving.server import PoolServer
from ..loop import TokioLoop

#: How long cancelled jobs may take to end, in seconds, before their threads are abandoned.
GRACE = 1.0

_here = threading.local()


@public
class Worker:
    """One worker of a pool, the result of ``current_worker()``."""

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        #: The result of ``setup``: a connection pool of this worker's loop, for example. The worker's thread only.
        self.state: Any = None
        self.loop: TokioLoop
        self.thread: threading.Thread
        # Done when the set-up is, or failed with its error.
        self._ready: Future[None] = Future()
        # Done when the thread is about to end.
        self._ended: Future[None] = Future()
        for future in (self._ready, self._ended):
            # Waiters through `asyncio.wrap_future` can't cancel them then.
            future.set_running_or_notify_cancel()
        self._abandoned = False
        # The set-up's coroutine runs. The worker's thread only.
        self._setting_up = False
        # The task that waits for connections to end. The worker's thread only.
        self._draining: asyncio.Task[None] | None = None

    def _made_loop(self) -> TokioLoop | None:
        # None until its thread has begun.
        return getattr(self, "loop", None)

    def __repr__(self) -> str:
        return f"<Worker {self.name}>"


@public
def current_worker() -> Worker:
    """Return the calling thread's worker. RuntimeError in any other thread."""
    worker: Worker | None = getattr(_here, "worker", None)
    if worker is None:
        raise RuntimeError("this thread is not a worker of a pool")
    return worker


class Crew:
    """The workers of one pool. Any thread may call its methods."""

    def __init__(
        self,
        queues: _tokioloop.Pool,
        names: list[str],
        setup: Callable[[], object] | None,
        teardown: Callable[[], object] | None,
    ) -> None:
        self.queues = queues
        self.workers = tuple(Worker(index, name) for index, name in enumerate(names))
        self._setup = setup
        self._teardown = teardown
        self._lock = threading.Lock()
        # Those that are open, or have connections.
        self._servers: WeakSet[PoolServer] = WeakSet()
        # Whether connections are given time to end by themselves.
        self._drains = False
        # The following under the lock.
        self._failure: BaseException | None = None
        self._left = len(names)

    def start(self) -> None:
        """Start the threads. RuntimeError where the system refuses one; those already started end again."""
        with _lock:
            _crews.add(self)
        for worker in self.workers:
            # Daemons, so that a job that never ends can't keep the interpreter: `end_all` gives every crew a fair end.
            worker.thread = threading.Thread(target=self._work, args=(worker,), name=worker.name, daemon=True)
        for index, worker in enumerate(self.workers):
            try:
                worker.thread.start()
            except RuntimeError as error:
                self._break(error)
                for missing in self.workers[index:]:
                    self._depart(missing)
                raise

    def refusal(self) -> Exception:
        """Return the error for submitting to a closing crew."""
        with self._lock:
            failure = self._failure
        if failure is None:
            return RuntimeError("cannot schedule new futures after shutdown")
        refusal = BrokenExecutor(f"a worker failed: {failure!r}")
        refusal.__cause__ = failure
        return refusal

    def wait_ready(self) -> None:
        """Block until every worker is set up; raise what a set-up raised."""
        for worker in self.workers:
            worker._ready.result()

    async def become_ready(self) -> None:
        """As ``wait_ready``, for a coroutine."""
        await asyncio.gather(*(asyncio.wrap_future(worker._ready) for worker in self.workers))

    def add_server(self, server: PoolServer) -> None:
        """Record a server whose connections end with the crew."""
        self._servers.add(server)
        if self.queues._is_closing():
            server.close()

    # The end, from outside.

    def close(self, cancel_jobs: bool, cancel_waiting: bool, drains: bool = False) -> None:
        """Begin the end: refuse new jobs and connections, and cancel jobs as requested."""
        self._drains = drains and not cancel_jobs
        for server in list(self._servers):
            server.close()
        self.queues._close()
        if cancel_jobs:
            self.cancel()
        elif cancel_waiting:
            self.queues._end_waiting()

    def cancel(self) -> None:
        """Cancel waiting jobs and the tasks of running coroutines."""
        self.queues._end_waiting()
        for worker in self.workers:
            if loop := worker._made_loop():
                loop._post(self._cancel_in, worker)

    @staticmethod
    def _cancel_in(worker: Worker) -> None:
        if worker._setting_up:
            for task in asyncio.all_tasks():
                task.cancel()
        _tokioloop._cancel_running()
        if worker._draining is not None:
            worker._draining.cancel()

    def join(self, timeout: float | None) -> bool:
        """Wait for the threads, and return whether all have ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self.workers:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if worker.thread.ident is not None:
                worker.thread.join(left)
        return not self._late()

    async def join_async(self, timeout: float | None) -> bool:
        """As ``join``, for a coroutine."""
        ends = [asyncio.wrap_future(worker._ended) for worker in self.workers]
        _, late = await asyncio.wait(ends, timeout=timeout)
        # The rest of a thread that has reported its end takes microseconds.
        return not late and self.join(None)

    def cut_short(self) -> None:
        """Cancel everything, wait a little, and abandon threads that do not end, even if the wait is interrupted."""
        self.cancel()
        try:
            self.join(GRACE)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Abandon the threads that have not ended: the futures of their jobs are cancelled."""
        late = self._late()
        if not late:
            return
        for worker in late:
            worker._abandoned = True
            if loop := worker._made_loop():
                loop.stop()
        self.queues._finish()
        self.queues._end_begun()
        with _lock:
            _crews.discard(self)
        names = ", ".join(worker.name for worker in late)
        warnings.warn(f"threads that do not end are left behind: {names}", RuntimeWarning, stacklevel=4)

    def _late(self) -> list[Worker]:
        if self.queues._is_forked():
            # The threads are the parent's.
            return []
        return [worker for worker in self.workers if not worker._ended.done()]

    # A worker's thread.

    def _work(self, worker: Worker) -> None:
        _here.worker = worker
        try:
            with asyncio.Runner(loop_factory=TokioLoop) as runner:
                worker.loop = cast("TokioLoop", runner.get_loop())
                if self._set_up(worker, runner):
                    try:
                        self._do_jobs(worker)
                    finally:
                        _tokioloop._leave(worker.loop)
                        self._wind_up(worker, runner)
        except BaseException as error:
            self._break(error)
            raise
        finally:
            _tokioloop._forget()
            self._depart(worker)

    def _set_up(self, worker: Worker, runner: asyncio.Runner) -> bool:
        try:
            if self._setup is not None:
                worker._setting_up = True
                try:
                    worker.state = _call(runner, self._setup)
                finally:
                    worker._setting_up = False
            self.queues._enter(worker.loop, worker.index)
        except BaseException as error:
            self._break(error)
            # Anything but an Exception would be mistaken for the waiter's own, such as its cancellation.
            worker._ready.set_exception(error if isinstance(error, Exception) else self.refusal())
            return False
        # In its first turn, so that waiters find a loop that runs.
        worker.loop.call_soon(worker._ready.set_result, None)
        return True

    def _do_jobs(self, worker: Worker) -> None:
        while not worker._abandoned:
            try:
                worker.loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as error:
                # The worker goes on. A job's own error is that job's end.
                if not _tokioloop._is_of_job(error):
                    message = f"{type(error).__name__} in {worker.name}, which goes on"
                    worker.loop.call_exception_handler({"message": message, "exception": error})
                continue
            if _tokioloop._is_over():
                return

    def _wind_up(self, worker: Worker, runner: asyncio.Runner) -> None:
        """End the connections and the loop when the jobs have ended."""
        try:
            if not worker._abandoned:
                runner.run(self._end_connections(worker))
        finally:
            self._tear_down(worker, runner)

    async def _end_connections(self, worker: Worker) -> None:
        shares = [share for server in list(self._servers) for share in server.shares_of(worker.loop)]
        if self._drains:
            worker._draining = asyncio.current_task()
            try:
                for share in shares:
                    await share.wait_closed()
            except asyncio.CancelledError:
                # The time is up.
                pass
            finally:
                worker._draining = None
        for share in shares:
            await share.end_clients()

    def _tear_down(self, worker: Worker, runner: asyncio.Runner) -> None:
        if self._teardown is None:
            return
        try:
            _call(runner, self._teardown)
        except Exception as error:
            context = {"message": f"the teardown of {worker.name} failed", "exception": error}
            worker.loop.call_exception_handler(context)

    def _break(self, error: BaseException) -> None:
        """A worker failed: so do all jobs."""
        with self._lock:
            if self._failure is None:
                self._failure = error
        self.queues._close()
        self.queues._end_waiting(self.refusal())

    def _depart(self, worker: Worker) -> None:
        if not worker._ready.done():
            worker._ready.set_exception(self.refusal())
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.queues._finish()
            with _lock:
                _crews.discard(self)
        worker._ended.set_result(None)


def _call(runner: asyncio.Runner, fn: Callable[[], object]) -> object:
    result = fn()
    return runner.run(result) if iscoroutine(result) else result


_lock = threading.Lock()
#: The crews whose threads have not ended.
_crews: set[Crew] = set()


def end_all() -> None:
    """Give every crew a fair and bounded end, before the interpreter's: its jobs are cancelled."""
    with _lock:
        crews = list(_crews)
    for crew in crews:
        crew.close(True, False)
    with ExitStack() as stack:
        # Each crew in turn, whatever another raises (a warning that is an error).
        for crew in crews:
            stack.callback(crew.cut_short)


def _forget_parents() -> None:
    """In a forked child: the crews' threads are not there."""
    global _lock
    _lock = threading.Lock()
    _crews.clear()


before_joining(POOLS, end_all)
os.register_at_fork(after_in_child=_forget_parents)
