"""Rows of one loop that does no I/O: callbacks, timers, tasks and futures."""

from __future__ import annotations

import asyncio

from ..model import Loop, Row, Target, Together

BATCH = 1000


def _nothing() -> None:
    pass


def call_soon_chain(loop: Loop, n: int) -> int:
    left = n

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    loop.run_forever()
    return n


def call_soon_burst(loop: Loop, n: int) -> int:
    left = batches = max(1, n // BATCH)

    def burst() -> None:
        nonlocal left
        if not left:
            loop.stop()
            return
        left -= 1
        for _ in range(BATCH - 1):
            loop.call_soon(_nothing)
        loop.call_soon(burst)

    loop.call_soon(burst)
    loop.run_forever()
    return batches * BATCH


def timer_cancel(loop: Loop, n: int) -> int:
    """Timers a minute away, made and cancelled by the thousand, as time-outs of requests that are answered."""
    left = batches = max(1, n // BATCH)

    def batch() -> None:
        nonlocal left
        if not left:
            loop.stop()
            return
        left -= 1
        handles = [loop.call_later(60, _nothing) for _ in range(BATCH)]
        for handle in handles:
            handle.cancel()
        loop.call_soon(batch)

    loop.call_soon(batch)
    loop.run_forever()
    return batches * BATCH


def timer_fire(loop: Loop, n: int) -> int:
    """Timers spread over a millisecond, a thousand at a time; the last to fire makes the next thousand."""
    left = batches = max(1, n // BATCH)

    def batch() -> None:
        nonlocal left
        if not left:
            loop.stop()
            return
        left -= 1
        start = loop.time()
        for i in range(BATCH - 1):
            loop.call_at(start + i * 1e-6, _nothing)
        loop.call_at(start + BATCH * 1e-6, batch)

    loop.call_soon(batch)
    loop.run_forever()
    return batches * BATCH


async def _sleep_often(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def sleep0_1(loop: Loop, n: int) -> int:
    loop.run_until_complete(_sleep_often(n))
    return n


def sleep0_100(loop: Loop, n: int) -> int:
    each = max(1, n // 100)

    async def main() -> None:
        tasks = [loop.create_task(_sleep_often(each)) for _ in range(100)]
        for task in tasks:
            await task

    loop.run_until_complete(main())
    return each * 100


async def _no_steps() -> None:
    pass


def create_task(loop: Loop, n: int) -> int:
    async def main() -> None:
        for _ in range(n):
            await loop.create_task(_no_steps())

    loop.run_until_complete(main())
    return n


def future_wakeup(loop: Loop, n: int) -> int:
    async def main() -> None:
        for _ in range(n):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    loop.run_until_complete(main())
    return n


def gather(loop: Loop, n: int) -> int:
    async def one(i: int) -> int:
        return i

    async def main() -> None:
        got = await asyncio.gather(*[one(i) for i in range(n)])
        assert len(got) == n and got[-1] == n - 1

    loop.run_until_complete(main())
    return n


def executor(loop: Loop, n: int) -> int:
    async def main() -> None:
        for _ in range(n):
            await loop.run_in_executor(None, _nothing)

    loop.run_until_complete(main())
    return n


ROWS = (
    Row(
        "call_soon_chain",
        "call_soon, each callback schedules the next",
        "scheduling",
        20_000,
        counted=True,
        body=call_soon_chain,
        two_threads=True,
        target=Target(times=3.0),
    ),
    Row(
        "call_soon_burst",
        "call_soon, 1000 callbacks a turn",
        "scheduling",
        20_000,
        counted=True,
        body=call_soon_burst,
        two_threads=True,
        target=Target(times=3.0),
        together=Together(times=3.0, scale=1.85),
    ),
    Row(
        "timer_cancel",
        "call_later of 60 s and cancel, by the thousand",
        "scheduling",
        20_000,
        counted=True,
        body=timer_cancel,
        target=Target(times=3.0),
    ),
    Row(
        "timer_fire",
        "call_at within 1 ms, by the thousand",
        "scheduling",
        20_000,
        counted=True,
        body=timer_fire,
        two_threads=True,
        target=Target(times=4.0),
    ),
    Row(
        "sleep0_1",
        "sleep(0), one task",
        "scheduling",
        20_000,
        counted=True,
        body=sleep0_1,
        target=Target(times=2.5),
    ),
    Row(
        "sleep0_100",
        "sleep(0), 100 tasks",
        "scheduling",
        20_000,
        counted=True,
        body=sleep0_100,
        two_threads=True,
        more_threads=(4, 8),
        target=Target(times=2.5),
        together=Together(times=5.0, scale=1.85),
    ),
    Row(
        "create_task",
        "create a task and await it",
        "scheduling",
        10_000,
        counted=True,
        body=create_task,
        two_threads=True,
        more_threads=(4, 8),
        target=Target(times=3.0),
        together=Together(times=6.0, scale=1.85),
    ),
    Row(
        "future_wakeup",
        "await a future that a callback sets",
        "scheduling",
        10_000,
        counted=True,
        body=future_wakeup,
        two_threads=True,
        target=Target(times=3.0),
        together=Together(times=6.0, scale=1.85),
    ),
    Row(
        "gather_100k",
        "gather of 100,000 coroutines, per coroutine",
        "scheduling",
        100_000,
        counted=True,
        body=gather,
        two_threads=True,
        target=Target(times=2.0),
        together=Together(scale=1.85),
    ),
    Row(
        "executor",
        "run_in_executor round trip, default executor, one core",
        "scheduling",
        1_000,
        body=executor,
        one_core=True,
        target=Target(times=2.0),
    ),
)
