"""Collections beside everything that waits for a thread or a loop: an object in transit is never taken for garbage, and is freed later."""

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..run import Run, Tally


class Door:
    """Its finaliser closes it. It is in a cycle, so that only the collector frees it."""

    closed = 0
    counting = threading.Lock()

    def __init__(self) -> None:
        self.open = True
        self.itself = self

    def __del__(self) -> None:
        self.open = False
        with Door.counting:
            Door.closed += 1

    def use(self) -> bool:
        return self.open

    async def use_later(self) -> bool:
        await asyncio.sleep(0)
        return self.open


Way = Callable[[], Awaitable[bool]]


def ways(loop: asyncio.AbstractEventLoop, other: asyncio.AbstractEventLoop, pool: Any) -> list[Way]:
    """The ways to send an object to another thread, each time one without other references."""

    def answered() -> asyncio.Future[bool]:
        future = loop.create_future()

        def answer(door: Door) -> None:
            loop.call_soon_threadsafe(future.set_result, door.use())

        other.call_soon_threadsafe(answer, Door())
        return future

    async def returned() -> bool:
        return (await loop.run_in_executor(None, Door)).use()

    async def named() -> bool:
        door = Door()
        await loop.getaddrinfo("127.0.0.1", 80)
        return door.use()

    found: list[Way] = [
        answered,
        returned,
        named,
        lambda: loop.run_in_executor(None, Door().use),
        lambda: asyncio.to_thread(Door().use),
        lambda: asyncio.wrap_future(asyncio.run_coroutine_threadsafe(Door().use_later(), other)),
    ]
    if pool is not None:
        found += [
            lambda: asyncio.wrap_future(pool.submit(Door().use)),
            lambda: asyncio.wrap_future(pool.submit(Door().use_later)),
            lambda: pool.run(Door().use),
        ]
    return found


async def give(run: Run, chance: random.Random, tally: Tally, found: list[Way]) -> int:
    given = 0
    while not run.over():
        batch = [asyncio.ensure_future(chance.choice(found)()) for _ in range(8)]
        if chance.random() < 0.3:
            gc.collect()
        assert all(await asyncio.gather(*batch)), "an object was finalised on its way"
        given += len(batch)
        tally.ops += len(batch)
    await asyncio.get_running_loop().shutdown_default_executor()
    return given


def scenario(run: Run) -> dict[str, int]:
    # So many that a collection takes a while between its two visits of one object.
    heap = [([number],) + (None,) * 20 for number in range(40_000)]
    collected = given = 0
    pool_class = run.native("WorkerPool")

    def work(me: int) -> None:
        nonlocal given
        chance, tally = run.random(me), run.tally()
        with run.serve(run.new_loop()) as other, asyncio.Runner(loop_factory=run.new_loop) as runner:
            pool = pool_class(threads=2) if pool_class else None
            found = ways(runner.get_loop(), other.loop, pool)
            count = runner.run(give(run, chance, tally, found))
            if pool:
                pool.shutdown()
        with Door.counting:
            given += count

    def collect() -> None:
        nonlocal collected
        pause = threading.Event()
        chance = run.random("collector")
        while not run.over():
            gc.collect()
            collected += 1
            # Without a pause no other thread would run.
            pause.wait(chance.random() / 50)

    before = Door.closed
    run.in_threads(collect, *(partial(work, n) for n in range(run.threads)))
    del heap
    gc.collect()
    freed = Door.closed - before
    assert freed >= given, f"{given} objects were given, {freed} freed"
    return {"given": given, "collections": collected}
