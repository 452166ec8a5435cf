"""A worker that is never idle still handles the events of its loop."""

import asyncio
import socket
import threading
from typing import Any

import pytest

import tokioloop

from ..loop.support import PATIENCE

TURNS = 100_000


async def _pause() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("filler", [int, _pause], ids=["functions", "coroutines"])
@pytest.mark.parametrize("from_outside", [False, True])
def test_a_worker_with_endless_jobs_handles_a_descriptor(
    one: tokioloop.WorkerPool, filler: Any, from_outside: bool
) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    waits, heard, over = threading.Event(), threading.Event(), threading.Event()
    turns = 0

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(near, hear)
        waits.set()

    def hear() -> None:
        asyncio.get_running_loop().remove_reader(near)
        heard.set()

    def again() -> None:
        nonlocal turns
        turns += 1
        if turns == 10:
            far.send(b"x")
        if heard.is_set() or turns >= TURNS:
            over.set()
            return
        one.submit(filler)
        if not from_outside:
            one.submit(again)

    with near, far:
        one.submit(listen).result(PATIENCE)
        assert waits.wait(PATIENCE)
        one.submit(again)
        while from_outside and not over.is_set():
            one.submit(again).result(PATIENCE)
        assert over.wait(PATIENCE)
    assert heard.is_set()
    assert turns < TURNS
