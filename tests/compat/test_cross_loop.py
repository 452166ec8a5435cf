"""aiologic's locks and culsans' queues between loops in several threads: nothing is lost, whatever is cancelled meanwhile."""

import asyncio
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from .support import PATIENCE, needed

aiologic = needed("aiologic")
culsans = needed("culsans")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "threads.md"
LOOPS = 4
ROUNDS = 100


@pytest.fixture
def together(loop_factory) -> Callable[..., list[Any]]:
    """Run a coroutine function on several loops at once, each in a thread of its own; its argument is the loop's number."""

    def together(main: Callable[[int], Coroutine[Any, Any, Any]], count: int = LOOPS) -> list[Any]:
        results: dict[int, Any] = {}
        failed: list[BaseException] = []
        gate = threading.Barrier(count, timeout=PATIENCE)

        async def in_time(number: int) -> Any:
            gate.wait()
            async with asyncio.timeout(PATIENCE):
                return await main(number)

        def run(number: int) -> None:
            try:
                with asyncio.Runner(loop_factory=loop_factory) as runner:
                    results[number] = runner.run(in_time(number))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive()
        if failed:
            raise failed[0]
        return [results[number] for number in range(count)]

    return together


@pytest.mark.parametrize(("number", "said"), [(0, "1000\n"), (1, "4950\n")])
def test_the_example_of_the_documentation(number, said) -> None:
    section = DOCS.read_text().partition("## Locks and queues between loops")[2].partition("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[number]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", said)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "BinarySemaphore"])
def test_a_lock_lets_one_in_at_a_time(together, kind) -> None:
    lock = getattr(aiologic, kind)()
    inside = count = 0

    async def task() -> None:
        nonlocal inside, count
        for _ in range(ROUNDS):
            async with lock:
                inside += 1
                assert inside == 1
                count += 1
                await asyncio.sleep(0)
                inside -= 1

    async def main(number: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(task())

    together(main)
    assert count == LOOPS * 3 * ROUNDS


def test_a_semaphore_lets_as_many_in_as_it_says(together) -> None:
    semaphore = aiologic.Semaphore(3)
    guard = threading.Lock()
    inside = most = 0

    async def task() -> None:
        nonlocal inside, most
        for _ in range(ROUNDS):
            async with semaphore:
                with guard:
                    inside += 1
                    most = max(most, inside)
                await asyncio.sleep(0)
                with guard:
                    inside -= 1

    async def main(number: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(task())

    together(main)
    assert inside == 0 and 1 <= most <= 3 and semaphore.value == 3


def test_an_event_wakes_waiters_on_other_loops(together) -> None:
    events = [aiologic.Event() for _ in range(ROUNDS)]
    ready = [aiologic.CountdownEvent(LOOPS - 1) for _ in range(ROUNDS)]

    async def main(number: int) -> int:
        for event, waiting in zip(events, ready, strict=True):
            if number == 0:
                await waiting
                event.set()
            else:
                waiting.down()
                await event
        return number

    assert together(main) == list(range(LOOPS))


def test_a_condition_passes_a_turn_round_the_loops(together) -> None:
    condition = aiologic.Condition(aiologic.Lock())
    turn = 0

    async def main(number: int) -> None:
        nonlocal turn
        for _ in range(ROUNDS):
            async with condition:
                while turn % LOOPS != number:
                    await condition
                turn += 1
                condition.notify_all()

    together(main)
    assert turn == LOOPS * ROUNDS


def test_waiters_that_are_cancelled_lose_nothing(together) -> None:
    """Half of the waiters are cancelled, some in the moment they are woken from another loop; the lock is free at the end."""
    lock = aiologic.Lock()
    count = 0
    entered = [0] * LOOPS

    async def task(number: int) -> None:
        nonlocal count
        async with lock:
            before = count
            await asyncio.sleep(0)
            count = before + 1
        entered[number] += 1

    async def main(number: int) -> None:
        for _ in range(ROUNDS // 4):
            tasks = [asyncio.create_task(task(number)) for _ in range(6)]
            await asyncio.sleep(0)
            for victim in tasks[::2]:
                victim.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)

    together(main)
    assert not lock.locked()
    # A task that left the lock and was cancelled in no other place has counted itself.
    assert count == sum(entered)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_queue_between_loops_loses_nothing(together, size) -> None:
    queue = culsans.Queue(size)
    got: list[list[tuple[int, int]]] = [[] for _ in range(LOOPS)]

    async def main(number: int) -> None:
        if number % 2:
            for n in range(2 * ROUNDS):
                await queue.async_q.put((number, n))
            await queue.async_q.put(None)
        else:
            while (item := await queue.async_q.get()) is not None:
                got[number].append(item)

    together(main)
    items = [item for part in got for item in part]
    assert Counter(items) == Counter((number, n) for number in range(1, LOOPS, 2) for n in range(2 * ROUNDS))
    for part in got:
        for producer in range(1, LOOPS, 2):
            mine = [n for number, n in part if number == producer]
            assert mine == sorted(mine)


def test_a_plain_thread_feeds_loops(together) -> None:
    queue = culsans.Queue(5)
    got: list[int] = []

    def feed() -> None:
        for n in range(4 * ROUNDS):
            queue.sync_q.put(n)
        for _ in range(LOOPS):
            queue.sync_q.put(None)

    async def main(number: int) -> None:
        while (item := await queue.async_q.get()) is not None:
            got.append(item)

    feeder = threading.Thread(target=feed)
    feeder.start()
    together(main)
    feeder.join(PATIENCE)
    assert sorted(got) == list(range(4 * ROUNDS))


def test_consumers_that_are_cancelled_take_nothing_along(together) -> None:
    queue = culsans.Queue()
    got: list[int] = []
    count = LOOPS // 2 * ROUNDS

    async def consume() -> None:
        got.append(await queue.async_q.get())
        queue.async_q.task_done()

    async def main(number: int) -> None:
        if number % 2:
            for n in range(ROUNDS):
                await queue.async_q.put(number // 2 * ROUNDS + n)
                await asyncio.sleep(0)
            await queue.async_q.join()
            return
        while len(got) < count:
            tasks = [asyncio.create_task(consume()) for _ in range(4)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)

    together(main)
    assert sorted(got) == list(range(count)) and queue.async_q.empty()
