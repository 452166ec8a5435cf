"""Helpers of the tests of subprocesses: a protocol that records its calls, and this process's children."""

import asyncio
import gc
import os
import pathlib
import sys
from asyncio.subprocess import PIPE

from ..loop.support import Watched

PY = sys.executable


class Child(Watched, asyncio.SubprocessProtocol):
    """Records each call."""

    def __init__(self):
        super().__init__()
        self.output = {1: b"", 2: b""}

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def pipe_data_received(self, fd, data):
        self.output[fd] += data
        self.note("data", fd)

    def pipe_connection_lost(self, fd, exc):
        self.note("pipe lost", fd, type(exc))

    def process_exited(self):
        self.note("exited", self.transport.get_returncode())

    def connection_lost(self, exc):
        self.note("lost", exc)


def held():
    """This process's descriptors (how many) and children (which)."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), children()


def children():
    """The live and unreaped children of this process."""
    tasks = pathlib.Path("/proc/self/task")
    return [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


async def output(*args, **options):
    process = await asyncio.create_subprocess_exec(*args, stdout=PIPE, **options)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def code_of(code, *args, **options):
    return await output(PY, "-c", code, *map(str, args), **options)
