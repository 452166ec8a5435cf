"""Rows about work handed to other threads: pools of workers against what the standard library offers, and calls across loops.

tokioloop's own loops get a `WorkerPool` of two workers; loops of other kinds get the nearest equivalent: two threads of a
`ThreadPoolExecutor`, or two loops in two threads and `run_coroutine_threadsafe`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from statistics import median
from typing import Any

from ..model import Loop, LoopFactory, Measurement, Row, Target, per_operation

WORKERS = 2
AT_A_TIME = 64

type Submit = Callable[[], Future[Any]]


def _nothing() -> None:
    pass


async def _nothing_async() -> None:
    pass


def _spin(nanoseconds: int) -> None:
    end = time.perf_counter_ns() + nanoseconds
    while time.perf_counter_ns() < end:
        pass


def _is_ours(make: LoopFactory) -> bool:
    return make.__module__.partition(".")[0] == "tokioloop"


@contextmanager
def _executor(make: LoopFactory) -> Iterator[Executor]:
    """A pool of two workers that have all begun."""
    if _is_ours(make):
        import tokioloop

        pool: Executor = tokioloop.WorkerPool(WORKERS)
    else:
        pool = ThreadPoolExecutor(WORKERS)
    with pool:
        all_there = threading.Barrier(WORKERS, timeout=30)
        for ready in [pool.submit(all_there.wait) for _ in range(WORKERS)]:
            ready.result()
        yield pool


@contextmanager
def _loops(make: LoopFactory, count: int) -> Iterator[list[Loop]]:
    """Loops that run in threads of their own."""
    loops = [make() for _ in range(count)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield loops
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def _timed(submit: Submit, n: int) -> Measurement:
    """Submits `n` jobs from this thread and waits for each."""
    for job in [submit() for _ in range(n // 10)]:
        job.result()
    wall, cpu = time.perf_counter(), time.process_time()
    for job in [submit() for _ in range(n)]:
        job.result()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return per_operation(n, wall, cpu)


def submit_function(make: LoopFactory, n: int, work: Callable[[], object] = _nothing) -> Measurement:
    with _executor(make) as pool:
        return _timed(partial(pool.submit, work), n)


def submit_coroutine(make: LoopFactory, n: int) -> Measurement:
    if _is_ours(make):
        return submit_function(make, n, _nothing_async)
    with _loops(make, WORKERS) as loops:
        turn = 0

        def submit() -> Future[None]:
            nonlocal turn
            turn += 1
            return asyncio.run_coroutine_threadsafe(_nothing_async(), loops[turn % WORKERS])

        return _timed(submit, n)


@asynccontextmanager
async def _awaited(
    make: LoopFactory, work: Callable[[], object]
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Runs `work` in another thread and waits for it."""
    if _is_ours(make):
        import tokioloop

        async with tokioloop.WorkerPool(WORKERS) as pool:
            yield partial(pool.run, work)
    else:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKERS))
        yield partial(asyncio.to_thread, work)


def await_function(make: LoopFactory, n: int, work: Callable[[], object]) -> Measurement:
    """64 coroutines of one loop await jobs one after the other."""

    async def main() -> Measurement:
        async with _awaited(make, work) as once:
            return await _by_many(once, n)

    return _run(make, main())


async def _by_many(once: Callable[[], Awaitable[object]], n: int) -> Measurement:
    each = max(1, n // AT_A_TIME)

    async def some(count: int) -> None:
        for _ in range(count):
            await once()

    await asyncio.gather(*[some(max(1, each // 10)) for _ in range(AT_A_TIME)])
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[some(each) for _ in range(AT_A_TIME)])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return per_operation(each * AT_A_TIME, wall, cpu)


def _run(make: LoopFactory, main: Coroutine[Any, Any, Measurement]) -> Measurement:
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main)


def across(make: LoopFactory, n: int) -> Measurement:
    """Each of 64 coroutines of one loop runs coroutines on another loop, one after the other."""
    with _loops(make, 1) as [other]:
        if _is_ours(make):
            import tokioloop

            async def once() -> None:
                await tokioloop.run_on(other, _nothing_async())
        else:

            async def once() -> None:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_nothing_async(), other))

        return _run(make, _by_many(once, n))


def steal(make: LoopFactory, n: int) -> Measurement:
    """The time from when one worker runs out of work until it begins a job queued at another worker."""
    import tokioloop

    found: list[float] = []
    with tokioloop.WorkerPool(2) as pool:
        for _ in range(n):
            waits, began, ended = threading.Event(), threading.Event(), [0, 0]

            def stolen(began: threading.Event = began, ended: list[int] = ended) -> None:
                ended[1] = time.perf_counter_ns()
                began.set()

            def keeper(
                waits: threading.Event = waits,
                began: threading.Event = began,
                stolen: Callable[[], None] = stolen,
            ) -> None:
                pool.submit(stolen)
                waits.set()
                began.wait(10)

            def thief(waits: threading.Event = waits, ended: list[int] = ended) -> None:
                waits.wait(10)
                ended[0] = time.perf_counter_ns()

            jobs = [pool.submit(thief, worker=1), pool.submit(keeper, worker=0)]
            for job in jobs:
                job.result()
            found.append((ended[1] - ended[0]) / 1000)
    return {"ops": n, "latency_us": median(found), "latency_max_us": max(found)}


ROWS = (
    Row(
        "pool_submit",
        "submit() of an empty coroutine to two workers; others: run_coroutine_threadsafe to two loops",
        "pools",
        20_000,
        special=submit_coroutine,
        counted=True,
        figure="wall_us",
        unit="us a job",
        target=Target(times=10.0),
    ),
    Row(
        "pool_submit_function",
        "submit() of an empty function to two workers; others: ThreadPoolExecutor",
        "pools",
        20_000,
        special=submit_function,
        counted=True,
        figure="wall_us",
        unit="us a job",
        target=Target(times=4.0),
    ),
    Row(
        "pool_submit_cpu",
        "as pool_submit, CPU of all threads",
        "pools",
        20_000,
        special=submit_coroutine,
        target=Target(below=4.0),
    ),
    Row(
        "pool_10us",
        "functions of 10 us on two workers, ideally 5 us each; others: ThreadPoolExecutor",
        "pools",
        20_000,
        special=partial(submit_function, work=partial(_spin, 10_000)),
        figure="wall_us",
        unit="us a job",
        target=Target(below=5 / 0.85),
    ),
    Row(
        "pool_1ms",
        "functions of 1 ms on two workers, ideally 500 us each; others: ThreadPoolExecutor",
        "pools",
        400,
        special=partial(submit_function, work=partial(_spin, 1_000_000)),
        figure="wall_us",
        unit="us a job",
    ),
    Row(
        "pool_await_10us",
        "64 coroutines await run() of a 10 us function on two workers; others: asyncio.to_thread",
        "pools",
        10_000,
        special=partial(await_function, work=partial(_spin, 10_000)),
        figure="wall_us",
        unit="us a job",
    ),
    Row(
        "pool_await_1ms",
        "64 coroutines await run() of a 1 ms function on two workers; others: asyncio.to_thread",
        "pools",
        400,
        special=partial(await_function, work=partial(_spin, 1_000_000)),
        figure="wall_us",
        unit="us a job",
    ),
    Row(
        "pool_steal",
        "from when a worker runs out of work until it begins a job queued at another",
        "pools",
        200,
        special=steal,
        figure="latency_us",
        unit="us",
        loops=("tokioloop",),
        target=Target(below=50.0),
    ),
    Row(
        "run_on",
        "64 coroutines run coroutines on another loop; others: wrap_future(run_coroutine_threadsafe())",
        "pools",
        20_000,
        special=across,
        counted=True,
        figure="wall_us",
        unit="us a call",
        target=Target(times=2.0),
    ),
)
