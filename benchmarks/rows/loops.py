"""Rows about loops themselves: the cost of making one and the memory of an idle one."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import time
from pathlib import Path

from .. import cores
from ..model import Loop, LoopFactory, Measurement, Row, Target, per_operation


def create_close(make: LoopFactory, n: int) -> Measurement:
    for _ in range(50):
        make().close()
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(n):
        make().close()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return per_operation(n, wall, cpu)


def idle_bytes(make: LoopFactory, n: int) -> Measurement:
    """Memory per loop that ran one turn and lives on."""
    return _growth(lambda: _one_turn(make()), n)


def new_bytes(make: LoopFactory, n: int) -> Measurement:
    """Memory per loop that never ran."""
    return _growth(make, n)


def pending_task_bytes(make: LoopFactory, n: int) -> Measurement:
    """Memory per task that waits for a future of its own, both and the coroutine included."""
    loop = make()

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    async def main() -> Measurement:
        kept: list[asyncio.Task[None] | None] = [None] * n
        gc.collect()
        resident, blocks = _resident(), sys.getallocatedblocks()
        for i in range(n):
            kept[i] = loop.create_task(wait(loop.create_future()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        blocks = sys.getallocatedblocks() - blocks
        found = {"ops": n, "bytes": (_resident() - resident) / n, "blocks": blocks / n}
        for task in kept:
            if task is not None:
                task.cancel()
        await asyncio.wait([task for task in kept if task is not None])
        return found

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def _one_turn(loop: Loop) -> Loop:
    loop.call_soon(loop.stop)
    loop.run_forever()
    return loop


def _growth(make: LoopFactory, n: int) -> Measurement:
    """Growth of resident memory and of the C heap, in bytes per loop, and of Python's blocks, over `n` loops that are kept."""
    n = min(n, (cores.descriptors() - 200) // 8)
    # The first loops of a process allocate things once (imports, arenas, thread state) that must not count.
    for _ in range(20):
        make().close()
    kept: list[Loop | None] = [None] * n
    gc.collect()
    resident, heap, blocks = _resident(), _heap(), sys.getallocatedblocks()
    for i in range(n):
        kept[i] = make()
    blocks = sys.getallocatedblocks() - blocks
    found = {
        "ops": n,
        "bytes": (_resident() - resident) / n,
        "heap_bytes": (_heap() - heap) / n,
        "blocks": blocks / n,
    }
    for loop in kept:
        if loop is not None:
            loop.close()
    return found


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class _Mallinfo2(ctypes.Structure):
    # In the order of malloc.h.
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _heap() -> int:
    """Bytes in use from the C allocator, which Rust uses too; 0 where the C library has no mallinfo2."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


ROWS = (
    Row(
        "loop_create_close",
        "make a loop and close it",
        "loops",
        2_000,
        special=create_close,
        counted=True,
        target=Target(times=4.0, below=15),
    ),
    Row(
        "idle_loop_bytes",
        "resident memory per loop that ran one turn and lives on",
        "loops",
        2_000,
        special=idle_bytes,
        figure="bytes",
        unit="bytes",
        target=Target(below=4096),
    ),
    Row(
        "new_loop_bytes",
        "resident memory per loop that never ran",
        "loops",
        2_000,
        special=new_bytes,
        figure="bytes",
        unit="bytes",
    ),
    Row(
        "pending_task_bytes",
        "resident memory per task that waits for a future",
        "loops",
        50_000,
        special=pending_task_bytes,
        figure="bytes",
        unit="bytes",
        target=Target(times=1.0),
    ),
)
