"""Rows that cross threads: on one core, where the figure is the loops' own cost, and with a core for each side."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable

from .. import cores
from ..model import Loop, LoopFactory, Measurement, Row, Target, per_operation

BATCH = 1000


def _nothing() -> None:
    pass


def threadsafe_burst(loop: Loop, n: int, place: Callable[[], None] = _nothing) -> int:
    """Another thread, on the core that `place` chooses, posts 1000 callbacks and waits until the last has run, repeatedly."""
    batches = max(1, n // BATCH)
    ran = threading.Semaphore(0)

    def post() -> None:
        place()
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


def threadsafe_burst_apart(loop: Loop, n: int) -> int:
    cores.take_last()
    return threadsafe_burst(loop, n, cores.take_others)


def threadsafe_latency(make: LoopFactory, n: int, place: Callable[[], None] = _nothing) -> Measurement:
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
        place()
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


def threadsafe_latency_apart(make: LoopFactory, n: int) -> Measurement:
    cores.take_last()
    return threadsafe_latency(make, n, cores.take_others)


def signal_latency(make: LoopFactory, n: int) -> Measurement:
    """Another thread sends the process a signal that the parked loop handles, one at a time: half of them took at most `p50_us`.

    The loop runs on the main thread, where every loop can handle signals.
    """
    loop = make()
    handled = threading.Semaphore(0)
    pid = os.getpid()
    sent = 0
    taken: list[int] = []

    def handle() -> None:
        taken.append(time.perf_counter_ns() - sent)
        handled.release()

    def send() -> None:
        nonlocal sent
        for _ in range(n):
            sent = time.perf_counter_ns()
            os.kill(pid, signal.SIGUSR1)
            handled.acquire()
        loop.call_soon_threadsafe(loop.stop)

    loop.add_signal_handler(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send)
    wall, cpu = time.perf_counter(), time.process_time()
    loop.call_soon(sender.start)
    loop.run_forever()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    sender.join()
    loop.close()
    return per_operation(n, wall, cpu) | {
        "p50_us": statistics.median(taken) / 1e3,
        "max_us": max(taken) / 1e3,
    }


ROWS = (
    Row(
        "threadsafe_burst",
        "call_soon_threadsafe from another thread, by the thousand, one core",
        "threads",
        20_000,
        body=threadsafe_burst,
        counted=True,
        one_core=True,
        target=Target(times=5.0),
    ),
    Row(
        "threadsafe_latency",
        "call_soon_threadsafe between two loops in turn, per wake, one core",
        "threads",
        20_000,
        special=threadsafe_latency,
        counted=True,
        one_core=True,
        target=Target(times=1.6),
    ),
    Row(
        "threadsafe_burst_apart",
        "threadsafe_burst, each thread on a core of its own",
        "threads",
        20_000,
        body=threadsafe_burst_apart,
    ),
    Row(
        "threadsafe_latency_apart",
        "threadsafe_latency, each loop on a core of its own",
        "threads",
        5_000,
        special=threadsafe_latency_apart,
    ),
    Row(
        "signal_latency",
        "os.kill from another thread to the handler on the loop, half of them at most",
        "threads",
        10_000,
        special=signal_latency,
        figure="p50_us",
        unit="us",
        target=Target(below=1000),
    ),
)
