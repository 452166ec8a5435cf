"""Rows that cross threads."""

from __future__ import annotations

import threading
import time

from ..model import Loop, LoopFactory, Measurement, Row, Target, per_operation

BATCH = 1000


def _nothing() -> None:
    pass


def threadsafe_burst(loop: Loop, n: int) -> int:
    """Another thread posts 1000 callbacks and waits until the last has run, over and over."""
    batches = max(1, n // BATCH)
    ran = threading.Semaphore(0)

    def post() -> None:
        for _ in range(batches):
            for _ in range(BATCH - 1):
                loop.call_soon_threadsafe(_nothing)
            loop.call_soon_threadsafe(ran.release)
            ran.acquire()
        loop.call_soon_threadsafe(loop.stop)

    poster = threading.Thread(target=post)
    poster.start()
    loop.run_forever()
    poster.join()
    return batches * BATCH


def threadsafe_latency(make: LoopFactory, n: int) -> Measurement:
    """Two loops in two threads wake each other in turn: an operation is one wake of a parked loop."""
    ready = threading.Barrier(2)
    loops = [make(), make()]
    left = 0

    def hop(side: int) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            loops[1 - side].call_soon_threadsafe(hop, 1 - side)
        else:
            for loop in loops:
                loop.call_soon_threadsafe(loop.stop)

    def other() -> None:
        ready.wait()
        loops[1].run_forever()

    def run(n: int) -> None:
        nonlocal left
        left = n
        thread = threading.Thread(target=other)
        thread.start()
        loops[0].call_soon(hop, 0)
        ready.wait()
        loops[0].run_forever()
        thread.join()

    run(100)
    wall, cpu = time.perf_counter(), time.process_time()
    run(n)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    for loop in loops:
        loop.close()
    return per_operation(n, wall, cpu)


ROWS = (
    Row(
        "threadsafe_burst",
        "call_soon_threadsafe from another thread, by the thousand",
        "threads",
        20_000,
        body=threadsafe_burst,
        target=Target(times=4.0),
    ),
    Row(
        "threadsafe_latency",
        "call_soon_threadsafe between two loops in turn, per wake",
        "threads",
        20_000,
        special=threadsafe_latency,
        target=Target(times=1.5),
    ),
)
