"""Measures one row on one loop in this process: `python -m benchmarks.worker ROW[@N] LOOP [options]`.

The last line of stdout is the measurement as JSON. Fields: `ops`; `cpu_us` and `wall_us` per operation (for a
served row `cpu_us` is the server process's, `wall_us` the median reply time); `rate` in operations a second. Rows
compared with the floor were measured in turns with it: `floor_cpu_us`, and `over_floor`, the median of the turns. A server over
several loops was measured in turns with one over one loop: `one_loop_cpu_us`, `over_one_loop`, `rate_over_one_loop`, and
`busiest`, the part of the connections that the loop with the most of them had.
"""

from __future__ import annotations

import argparse
import gc
import json
import threading
import time
from contextlib import suppress

from . import cores, peers, serving, spread
from .model import Body, Loop, LoopFactory, Measurement, Row, per_operation
from .rows import split


def measure(row: Row, threads: int, peer: str, seconds: float, *, latencies: bool = False) -> Measurement:
    """One measurement; where latencies are wanted, with all of them and without the floor. Errors propagate."""
    if peer == peers.FLOOR:
        return serving.floor(row, seconds)
    make = peers.factory(peer)
    if row.one_core:
        cores.take_last()
    if row.serve is not None:
        if threads == 1:
            return serving.alone(row, row.serve, make, seconds, latencies=latencies)
        return serving.beside(row, row.serve, make, seconds, threads)
    if row.spread is not None:
        return spread.measure(row, make, *row.spread, seconds)
    if row.special is not None:
        return dict(row.special(make, row.n))
    assert row.body is not None
    if threads == 1:
        return _alone(row.body, make, row.n, seconds)
    return _beside(row.body, make, row.n, seconds, threads)


def _calls(body: Body, loop: Loop, n: int, seconds: float) -> int:
    """How many calls of `body` with `n` operations take about `seconds`; this warms up too."""
    small = max(1, n // 10)
    body(loop, small)
    wall, cpu = time.perf_counter(), time.process_time()
    ops = body(loop, small)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    # CPU time: on a busy machine the wall clock would count others' work. A body that mostly waits ends too.
    return max(1, round(seconds / (max(cpu, wall / 4) * n / ops)))


def _alone(body: Body, make: LoopFactory, n: int, seconds: float) -> Measurement:
    loop = make()
    calls = _calls(body, loop, n, seconds)
    gc.collect()
    wall, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    ops = sum(body(loop, n) for _ in range(calls))
    own, cpu, wall = time.thread_time() - own, time.process_time() - cpu, time.perf_counter() - wall
    loop.close()
    return per_operation(ops, wall, cpu) | {"thread_cpu_us": own * 1e6 / ops}


def count(row: Row, peer: str, n: int) -> None:
    """`n` operations on one thread after the same warm-up, not measured here: a counter of instructions runs this.

    The collector is off, since the number of its runs within the operations would vary.
    """
    make = peers.factory(peer)
    if row.body is None:
        assert row.special is not None
        gc.disable()
        row.special(make, n)
        return
    loop = make()
    row.body(loop, row.n // 10)
    gc.collect()
    gc.disable()
    row.body(loop, n)
    loop.close()


def _beside(body: Body, make: LoopFactory, n: int, seconds: float, threads: int) -> Measurement:
    """The same number of operations on each of `threads` loops at once."""
    gate = threading.Barrier(threads + 1, timeout=120)
    calls: list[int] = []
    ops: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            loop = make()
            calls.append(_calls(body, loop, n, seconds))
            gate.wait()
            gate.wait()
            ops.append(sum(body(loop, n) for _ in range(max(calls))))
            gate.wait()
            loop.close()
        except BaseException as error:
            failed.append(error)
            gate.abort()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    wall = cpu = 0.0
    with suppress(threading.BrokenBarrierError):
        gate.wait()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        gate.wait()
        gate.wait()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    for thread in running:
        thread.join()
    if failed:
        raise failed[0]
    return per_operation(sum(ops), wall, cpu)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("row", help="a row's name, or NAME@N for N threads")
    parser.add_argument("loop", choices=[*peers.FACTORIES, peers.FLOOR])
    parser.add_argument("--seconds", type=float, default=0.3, help="measured time")
    parser.add_argument(
        "--latencies", action="store_true", help="a served row's alone, each with how often it was seen"
    )
    parser.add_argument("--count", type=int, help="do so many operations and measure nothing")
    options = parser.parse_args()
    row, threads = split(options.row)
    if options.count is not None:
        count(row, options.loop, options.count)
        return
    found = measure(row, threads, options.loop, options.seconds, latencies=options.latencies)
    print(json.dumps({"row": options.row, "loop": options.loop, "threads": threads} | found), flush=True)


if __name__ == "__main__":
    main()
