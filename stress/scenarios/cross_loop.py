"""Coroutines that call one another across loops, several loops deep: every answer, error and cancellation arrives, once."""

import asyncio
import random
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any

from ..run import PATIENCE, Run, Tally

DEPTH = 5


class Refused(Exception):
    pass


class Place:
    """One loop, and how many coroutines began and ended on it. Its own thread writes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.began = self.ended = self.cancelled = 0


class World:
    """Several loops, and how one calls another."""

    def __init__(self, run: Run, places: list[Place]) -> None:
        self.run, self.places = run, places
        self.native = run.native("run_on")

    async def on(self, place: Place, coro: Coroutine[Any, Any, Any]) -> Any:
        if self.native:
            return await self.native(place.loop, coro)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coro, place.loop))

    async def visit(self, place: Place, chance: random.Random, depth: int, value: int) -> int:
        """Runs on *place*: calls another loop, or answers, fails or waits to be cancelled."""
        assert asyncio.get_running_loop() is place.loop, "a coroutine runs on another loop than was asked for"
        place.began += 1
        try:
            if depth:
                return 1 + await self.go(chance, depth - 1, value)
            way = chance.randrange(6)
            if way == 0:
                raise Refused(value)
            if way == 1:
                await asyncio.sleep(PATIENCE)
                raise AssertionError("a cancellation never came")
            if way == 2:
                await asyncio.sleep(chance.random() / 1000)
            elif way == 3:
                await asyncio.sleep(0)
            return value
        except asyncio.CancelledError:
            place.cancelled += 1
            raise
        finally:
            place.ended += 1

    async def go(self, chance: random.Random, depth: int, value: int) -> int:
        place = chance.choice(self.places)
        result: int = await self.on(place, self.visit(place, chance, depth, value))
        return result


async def _trip(world: World, chance: random.Random, tally: Tally, ends: list[int]) -> None:
    """One call through up to DEPTH loops, which either ends by itself or is cancelled from here."""
    began = time.perf_counter()
    depth, value = chance.randrange(DEPTH), chance.randrange(1 << 30)
    inner = random.Random(chance.random())
    # Calls that wait for a cancellation are known beforehand by their limit.
    limit = chance.choice([0.0, 0.0005, 0.002, 0.02])
    try:
        async with asyncio.timeout(limit):
            result = await world.go(inner, depth, value)
        assert result == value + depth, f"{result} came back for {value} through {depth} loops"
        ends[0] += 1
        tally.took(began)
        return
    except Refused as error:
        assert error.args == (value,), f"another call's error came back: {error.args} for {value}"
        ends[1] += 1
    except TimeoutError:
        ends[2] += 1
    tally.ops += 1


def scenario(run: Run) -> dict[str, int]:
    places = [Place(run.new_loop()) for _ in range(max(2, run.threads))]
    world = World(run, places)
    if not world.native:
        run.note("by run_coroutine_threadsafe and wrap_future")
    ends = [[0, 0, 0] for _ in places]

    async def main(me: int) -> None:
        chance, tally = run.random(me), run.tally()
        while not run.over():
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(_trip(world, chance, tally, ends[me]))

    async def drain() -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    with ExitStack() as stack:
        loops = [stack.enter_context(run.serve(place.loop)) for place in places]
        run.in_threads(
            *(
                partial(lambda me, loop: _outlast(run, main(me), loop), me, running.loop)
                for me, running in enumerate(loops)
            )
        )
        # Each pass moves a cancellation on by one loop at least.
        for _ in range(DEPTH + 1):
            for running in loops:
                running.wait(drain())
        began, ended = sum(it.began for it in places), sum(it.ended for it in places)
        assert began == ended, f"{began} coroutines began, {ended} ended"
    returned, failed, cut = (sum(column) for column in zip(*ends, strict=True))
    return {"returned": returned, "failed": failed, "timed out": cut, "visits": began}


def _outlast(run: Run, coro: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(coro, loop).result(run.settings.seconds + 2 * PATIENCE)
