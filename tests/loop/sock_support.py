"""Helpers of the tests of the registrations that sock_* keep."""

import asyncio
import re
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import tokioloop

from .support import tcp_pair, unix_pair

PAIRS = pytest.mark.parametrize("make", [tcp_pair, unix_pair], ids=["tcp", "unix"])


def registered() -> dict[int, int]:
    """The descriptors that the process's epoll instances know, with their events."""
    found = {}
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except OSError:
            continue
        for number, events in re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", text):
            found[int(number)] = int(events, 16)
    return found


async def waiting(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that runs *coro* and has come to wait."""
    task = asyncio.ensure_future(coro)
    await asyncio.sleep(0)
    return task


async def exchange(
    loop: tokioloop.TokioLoop, near: socket.socket, far: socket.socket, data: bytes = b"data"
) -> None:
    """One receive that waits."""
    task = await waiting(loop.sock_recv(near, 1000))
    assert not task.done()
    far.send(data)
    assert await task == data
