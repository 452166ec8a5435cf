"""Rows that start children: the cost of a child for the process that starts it, without the child's own time."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from shutil import which

from ..model import Loop, Row, Target

AT_A_TIME = 8
TRUE, CAT = which("true") or "/bin/true", which("cat") or "/bin/cat"
DATA = bytes(range(256)) * 4


def _by_eights(loop: Loop, n: int, one: Callable[[], Awaitable[None]]) -> int:
    """Awaits `one` about `n` times, eight at a time."""
    each = max(1, n // AT_A_TIME)

    async def some() -> None:
        for _ in range(each):
            await one()

    async def main() -> None:
        await asyncio.gather(*[some() for _ in range(AT_A_TIME)])

    loop.run_until_complete(main())
    return each * AT_A_TIME


async def _spawn() -> None:
    process = await asyncio.create_subprocess_exec(TRUE)
    status = await process.wait()
    assert status == 0, status


async def _communicate() -> None:
    process = await asyncio.create_subprocess_exec(CAT, stdin=PIPE, stdout=PIPE)
    out, _ = await process.communicate(DATA)
    assert out == DATA and process.returncode == 0, (out, process.returncode)


def spawn(loop: Loop, n: int) -> int:
    return _by_eights(loop, n, _spawn)


def communicate(loop: Loop, n: int) -> int:
    return _by_eights(loop, n, _communicate)


ROWS = (
    Row(
        "subprocess_spawn",
        "create_subprocess_exec of true and wait(), 8 at a time, one core",
        "processes",
        200,
        body=spawn,
        one_core=True,
        target=Target(times=2.0),
    ),
    Row(
        "subprocess_communicate",
        "create_subprocess_exec of cat with pipes, communicate() of 1 KiB, 8 at a time, one core",
        "processes",
        200,
        body=communicate,
        one_core=True,
    ),
)
