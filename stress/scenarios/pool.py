"""A pool of workers with loops, given jobs of every kind that return, fail and are cancelled: each ends in exactly one way.

Other loops use the nearest equivalent: threads that run loops, and ``run_coroutine_threadsafe``.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from ..marks import Marks
from ..run import PATIENCE, Run, Tally

Job = Callable[..., Any]


class Refused(Exception):
    pass


class Ledger:
    """Which jobs began and ended; any thread writes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.began, self.ended = Marks(), Marks()

    def plain(self, number: int) -> int:
        self._begin(number)
        try:
            return self._answer(number)
        finally:
            self._end(number)

    async def coroutine(self, number: int) -> int:
        self._begin(number)
        try:
            for _ in range(number % 3):
                await asyncio.sleep(0)
            if number % 5 == 0:
                await asyncio.sleep(0.001)
            return self._answer(number)
        finally:
            self._end(number)

    async def endless(self, number: int) -> int:
        """Ends by its cancellation only."""
        self._begin(number)
        try:
            await asyncio.get_running_loop().create_future()
            raise AssertionError("never set")
        finally:
            self._end(number)

    def _begin(self, number: int) -> None:
        with self.lock:
            self.began.add(number)

    def _end(self, number: int) -> None:
        with self.lock:
            self.ended.add(number)

    @staticmethod
    def _answer(number: int) -> int:
        if number % 7 == 0:
            raise Refused(number)
        return number


class StandIn(Executor):
    """Threads with loops, for the loops that have no pool."""

    def __init__(self, run: Run, threads: int) -> None:
        self.stack = ExitStack()
        self.loops = [self.stack.enter_context(run.serve(run.new_loop())) for _ in range(threads)]
        self.functions = self.stack.enter_context(ThreadPoolExecutor(threads))
        self.turn = itertools.cycle(self.loops)
        self.lock = threading.Lock()

    def submit(self, fn: Job, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not iscoroutinefunction(fn):
            return self.functions.submit(fn, *args, **kwargs)
        with self.lock:
            running = next(self.turn)
        return asyncio.run_coroutine_threadsafe(fn(*args, **kwargs), running.loop)

    async def run(self, fn: Job, *args: Any) -> Any:
        return await asyncio.wrap_future(self.submit(fn, *args))

    async def imap(self, fn: Job, items: Iterable[Any], *, limit: int) -> AsyncIterator[Any]:
        left = iter(items)
        while batch := list(itertools.islice(left, limit)):
            for job in [self.submit(fn, item) for item in batch]:
                yield await asyncio.wrap_future(job)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, cancel_jobs: bool = False) -> None:
        if cancel_jobs:
            self.functions.shutdown(wait, cancel_futures=True)
            for running in self.loops:
                running.wait(self._cancel_all())
        self.stack.close()

    @staticmethod
    async def _cancel_all() -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)


class Ends:
    """How the jobs of one client ended."""

    def __init__(self) -> None:
        self.asked = self.returned = self.failed = self.cancelled = 0

    def take(self, job: Future[Any], number: int) -> None:
        assert job.done(), "a job never ended"
        try:
            assert job.result(0) == number, "another job's answer came"
            self.returned += 1
        except Refused as error:
            assert error.args == (number,), "another job's error came"
            self.failed += 1
        except CancelledError:
            self.cancelled += 1


def scenario(run: Run) -> dict[str, int]:
    native = run.native("WorkerPool")
    if native is None:
        run.note("by ThreadPoolExecutor and run_coroutine_threadsafe: there is no pool of loops")

    def new_pool() -> Any:
        return native(run.threads) if native else StandIn(run, run.threads)

    numbers = itertools.count(1)
    ledger = Ledger()
    ends = [Ends() for _ in range(run.threads + 1)]
    pools = 0

    def clients(pool: Any, until: float) -> None:
        def work(me: int) -> None:
            chance, tally = run.random((me, pools)), run.tally()
            while not run.over() and time.monotonic() < until:
                _threads_jobs(pool, ledger, ends[me], numbers, chance, tally)

        async def main() -> None:
            while not run.over() and time.monotonic() < until:
                await _loops_jobs(pool, ledger, ends[-1], numbers)

        def work_from_a_loop() -> None:
            with asyncio.Runner(loop_factory=run.new_loop) as runner:
                runner.run(main())

        run.in_threads(*(partial(work, n) for n in range(run.threads)), work_from_a_loop)

    while not run.over():
        pools += 1
        pool = new_pool()
        clients(pool, time.monotonic() + 2)
        _shut_down(pool, ledger, ends[-1], numbers)
    assert ledger.began == ledger.ended, "a job began and never ended"
    twice = ledger.began.more_than_once()
    assert not twice, f"jobs ran twice: {twice[:5]}"
    total = {name: sum(getattr(it, name) for it in ends) for name in vars(Ends())}
    assert total["asked"] == total["returned"] + total["failed"] + total["cancelled"], total
    return total | {"pools": pools}


def _threads_jobs(
    pool: Any, ledger: Ledger, ends: Ends, numbers: Iterable[int], chance: Any, tally: Tally
) -> None:
    """A thread submits some jobs, cancels a few, and waits for all."""
    began = time.perf_counter()
    jobs: list[tuple[Future[Any], int]] = []
    for number in itertools.islice(numbers, 50):
        fn = chance.choice([ledger.plain, ledger.coroutine, ledger.coroutine, ledger.endless])
        job = pool.submit(fn, number)
        jobs.append((job, number))
        if fn == ledger.endless or chance.random() < 0.1:
            job.cancel()
    ends.asked += len(jobs)
    waiting = [job for job, _ in jobs]
    assert not wait(waiting, PATIENCE).not_done, "jobs never ended"
    for job, number in jobs:
        ends.take(job, number)
    tally.took(began)
    tally.ops += len(jobs) - 1
    plain = [number for number in itertools.islice(numbers, 20) if number % 7]
    ends.asked += len(plain)
    assert list(pool.map(ledger.plain, plain, timeout=PATIENCE)) == plain, "map() gave other answers"
    ends.returned += len(plain)
    tally.ops += len(plain)


async def _loops_jobs(pool: Any, ledger: Ledger, ends: Ends, numbers: Iterable[int]) -> None:
    """A loop awaits jobs one by one and many at a time."""
    for number in itertools.islice(numbers, 20):
        ends.asked += 1
        try:
            async with asyncio.timeout(PATIENCE):
                assert await pool.run(ledger.coroutine, number) == number, "another job's answer came"
            ends.returned += 1
        except Refused as error:
            assert error.args == (number,), "another job's error came"
            ends.failed += 1
    plain = [number for number in itertools.islice(numbers, 30) if number % 7]
    ends.asked += len(plain)
    async with asyncio.timeout(PATIENCE):
        answers = [answer async for answer in pool.imap(ledger.coroutine, plain, limit=8)]
    assert sorted(answers) == plain, "imap() gave other answers"
    ends.returned += len(plain)


def _shut_down(pool: Any, ledger: Ledger, ends: Ends, numbers: Iterable[int]) -> None:
    """End the pool with work in every state: jobs that can't end by themselves are cancelled, and none is lost."""
    jobs = []
    for number in itertools.islice(numbers, 60):
        fn = ledger.endless if number % 3 == 0 else ledger.coroutine if number % 3 == 1 else ledger.plain
        jobs.append((pool.submit(fn, number), number))
    ends.asked += len(jobs)
    pool.shutdown(wait=True, cancel_jobs=True)
    for job, number in jobs:
        ends.take(job, number)
    try:
        pool.submit(ledger.plain, 0)
    except RuntimeError:
        return
    raise AssertionError("a pool that was shut down took a job")
