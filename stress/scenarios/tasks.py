"""Tasks that start, sleep, wait for one another, talk between threads and are cancelled at random moments."""

import asyncio
import random
import threading
from functools import partial

from ..run import Run


class Tally:
    def __init__(self) -> None:
        self.started = self.finished = self.cancelled = 0


async def _body(tally: Tally, chance: random.Random, depth: int) -> int:
    tally.started += 1
    try:
        way = chance.randrange(7)
        if way == 0:
            await asyncio.sleep(0)
        elif way == 1:
            await asyncio.sleep(chance.random() / 500)
        elif way == 2 and depth:
            await asyncio.gather(*(_body(tally, chance, depth - 1) for _ in range(chance.randrange(4))))
        elif way == 3 and depth:
            async with asyncio.TaskGroup() as group:
                for _ in range(chance.randrange(4)):
                    group.create_task(_body(tally, chance, depth - 1))
        elif way == 4:
            try:
                async with asyncio.timeout(chance.random() / 1000):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                pass
        elif way == 5:
            assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        tally.finished += 1
        return depth
    except asyncio.CancelledError:
        tally.cancelled += 1
        raise


def scenario(run: Run) -> dict[str, int]:
    tallies = [Tally() for _ in range(run.threads)]

    def work(me: int) -> None:
        tally, chance, shown = tallies[me], run.random(me), run.tally()

        async def main() -> None:
            while not run.over():
                tasks = [asyncio.create_task(_body(tally, chance, 3)) for _ in range(50)]
                await asyncio.sleep(chance.random() / 500)
                for task in tasks:
                    if chance.random() < 0.3:
                        task.cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert result == 3 or isinstance(result, asyncio.CancelledError), result
                shown.ops = tally.started
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(main())
        assert tally.started == tally.finished + tally.cancelled, vars(tally)

    run.in_threads(*(partial(work, n) for n in range(run.threads)))
    return {
        "tasks": sum(tally.started for tally in tallies),
        "cancelled": sum(tally.cancelled for tally in tallies),
    }
