"""Measures a server over several loops, in turns with one over a single loop, and the load generator outside."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from tokioloop import PoolServer, serve

from .model import Accept, Loop, LoopFactory, Measurement, Row
from .rows.served import Echo
from .serving import SLICES, Load, Report, merged


def measure(row: Row, make: LoopFactory, accept: Accept, count: int, seconds: float) -> Measurement:
    """Both servers are in this process the whole time: the one without load sleeps and costs nothing."""
    with _server(make, accept, 1) as single, _server(make, accept, count) as several:
        loads = [Load(row, _where(server), os.getpid(), apart=False) for server in (several, single)]
        reports: list[list[Report]] = [[load.run(seconds / SLICES) for load in loads] for _ in range(SLICES)]
        shares = [loop.accepted for loop in several.stats().loops]
    own, one = (merged(list(side)) for side in zip(*reports, strict=True))
    over = {
        name: median(several[field] / single[field] for several, single in map(_figures, reports))
        for name, field in (("over_one_loop", "cpu"), ("rate_over_one_loop", "rate"))
    }
    return own | over | {"one_loop_cpu_us": one["cpu_us"], "busiest": max(shares) / sum(shares)}


def _figures(pair: list[Report]) -> list[Report]:
    return [
        {"cpu": report["cpu_us_per_request"], "rate": report["requests"] / report["seconds"]}
        for report in pair
    ]


def _where(server: PoolServer) -> tuple[str, ...]:
    return ("--addr", f"127.0.0.1:{server.port}")


@contextmanager
def _server(make: LoopFactory, accept: Accept, count: int) -> Iterator[PoolServer]:
    ready = threading.Barrier(count + 1, timeout=30)
    loops: list[Any] = []

    def run() -> None:
        loop: Loop = make()
        loops.append(loop)
        loop.call_soon(ready.wait)
        loop.run_forever()
        loop.close()

    running = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in running:
        thread.start()
    ready.wait()
    server = asyncio.run(serve(loops, Echo, "127.0.0.1", 0, accept=accept, backlog=1024))
    try:
        yield server
    finally:
        asyncio.run(server.drain(1))
        for loop in loops:
            loop.call_soon_threadsafe(loop.stop)
        for thread in running:
            thread.join(timeout=10)
