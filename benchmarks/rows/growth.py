"""How the cost of one operation grows with the number of connections, timers or tasks: a series for each chart, a row for each point."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import Any

from ..model import Body, Loop, LoopFactory, Measurement, Row, Special, per_operation
from .scheduling import future_wakeup, timer_cancel, timer_fire
from .served import Echo

#: Operations of one measurement that does not serve.
OPS = 100_000
#: With more timers or tasks than this, asyncio's set-up takes longer than the rest of the series together.
ASYNCIO_MOST = 100_000
#: The memory of a task that waits, with room to spare, and the memory that must be left for everything else.
TASK_BYTES, SPARE_BYTES = 2048, 1 << 30


@dataclass(frozen=True, slots=True)
class Series:
    """One chart: `title` names the operation, `axis` the number that grows."""

    name: str
    title: str
    axis: str
    sizes: tuple[int, ...]
    #: The row of one size.
    row: Callable[[str, str, int], Row]
    #: What one connection, timer or task needs of this process: descriptors, bytes.
    descriptors: int = 0
    bytes_each: int = 0

    def rows(self) -> dict[int, Row]:
        return {
            size: self.row(f"{self.name}:{size}", f"{self.title}, {size:,} {self.axis}", size)
            for size in self.sizes
        }


async def serve_accepted(loop: Loop, listener: socket) -> Callable[[], None]:
    """Echoes on connections that the program itself accepts.

    A server of uvloop accepts one connection a turn: while the open ones are busy, ten thousand take minutes.
    """
    serving: set[asyncio.Task[Any]] = set()

    def accept() -> None:
        with suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(Echo, connection))
                serving.add(task)
                task.add_done_callback(serving.discard)

    loop.add_reader(listener, accept)
    return partial(_no_longer, loop, listener)


def _no_longer(loop: Loop, listener: socket) -> None:
    loop.remove_reader(listener)


def _echo(name: str, title: str, size: int) -> Row:
    load = ("echo", "--size", "1024", "--connections", str(size))
    return Row(name, title, "network", serve=serve_accepted, load=load, floor=())


def _scheduling(
    special: Callable[[int, LoopFactory, int], Measurement], name: str, title: str, size: int
) -> Row:
    bound: Special = partial(special, size)
    loops = ("uvloop", "rloop", "zuvloop", "tokioloop", *(("asyncio",) if size <= ASYNCIO_MOST else ()))
    return Row(name, title, "scheduling", OPS, special=bound, loops=loops)


def beside_timers(body: Body, pending: int, make: LoopFactory, n: int) -> Measurement:
    """`body` while this many other timers wait, none of them due before the end."""
    loop = make()
    start = loop.time() + 3600
    waiting = [loop.call_at(start + i % 977, _nothing) for i in range(pending)]
    found = _measured(lambda: body(loop, n), lambda: body(loop, n // 10))
    for handle in waiting:
        handle.cancel()
    loop.close()
    return found


def beside_tasks(pending: int, make: LoopFactory, n: int) -> Measurement:
    """A future's wake-up while this many tasks wait for a future each."""
    loop = make()

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    futures = [loop.create_future() for _ in range(pending)]
    tasks = [loop.create_task(wait(future)) for future in futures]
    loop.run_until_complete(asyncio.sleep(0))
    found = _measured(lambda: future_wakeup(loop, n), lambda: future_wakeup(loop, n // 10))
    for future in futures:
        future.set_result(None)
    loop.run_until_complete(_turns(3))
    assert all(task.done() for task in tasks)
    loop.close()
    return found


def running_tasks(running: int, make: LoopFactory, n: int) -> Measurement:
    """One step of one of this many tasks, which all take a step in every turn: `sleep(0)`."""
    loop = make()
    going = True

    async def run() -> None:
        while going:
            await asyncio.sleep(0)

    tasks = [loop.create_task(run()) for _ in range(running)]
    loop.run_until_complete(_turns(2))
    turns = max(2, n // running)

    def steps() -> int:
        loop.run_until_complete(_turns(turns))
        return turns * running

    found = _measured(steps, lambda: 0)
    going = False
    loop.run_until_complete(_turns(3))
    assert all(task.done() for task in tasks)
    loop.close()
    return found


def _nothing() -> None:
    pass


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _measured(operations: Callable[[], int], warm_up: Callable[[], int]) -> Measurement:
    warm_up()
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    ops = operations()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return per_operation(ops, wall, cpu)


CONNECTIONS = (1, 10, 100, 1_000, 10_000)
MANY = (1_000, 10_000, 100_000, 1_000_000)

SERIES = (
    Series("growth_echo", "echo of 1 KiB, Protocol", "connections", CONNECTIONS, _echo, descriptors=1),
    Series(
        "growth_timer_fire",
        "call_at and the timer's run",
        "timers pending",
        MANY,
        partial(_scheduling, partial(beside_timers, timer_fire)),
    ),
    Series(
        "growth_timer_cancel",
        "call_later and cancel",
        "timers pending",
        MANY,
        partial(_scheduling, partial(beside_timers, timer_cancel)),
    ),
    Series(
        "growth_tasks_pending",
        "a future's wake-up of one task",
        "other tasks pending",
        MANY,
        partial(_scheduling, beside_tasks),
        bytes_each=TASK_BYTES,
    ),
    Series(
        "growth_tasks_running",
        "a step of a task, sleep(0)",
        "tasks running",
        MANY,
        partial(_scheduling, running_tasks),
        bytes_each=TASK_BYTES,
    ),
)

ROWS: dict[str, Row] = {row.name: row for series in SERIES for row in series.rows().values()}
