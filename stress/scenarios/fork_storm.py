"""Forks while loops run in other threads: each child makes a loop of its own, talks through it, and ends with status 0."""

import asyncio
import os
import signal
import socket
import time
import traceback
import warnings
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

from ..run import Run

# Seconds a child may take before the kernel ends it: far above what it takes.
CHILD = 30
# How far a child came; it sends one byte for each step.
STAGES = {
    b"": "before any of its Python code",
    b"f": "making a loop",
    b"l": "talking",
    b"t": "closing its loop",
    b"c": "after all",
}


async def _talk() -> None:
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    back, forth = await asyncio.open_connection(sock=far)
    for size in (1, 1000, 50_000):
        writer.write(b"x" * size)
        forth.write(await back.readexactly(size))
        assert await reader.readexactly(size) == b"x" * size
        await asyncio.sleep(0.0001)
    for it in (writer, forth):
        it.close()
        await it.wait_closed()


def _child(run: Run, tell: int) -> NoReturn:
    """The child's part; it ends with _exit, so that none of the parent's exit handlers runs twice."""
    status = 1
    try:
        signal.alarm(CHILD)
        os.write(tell, b"f")
        loop = run.new_loop()
        os.write(tell, b"l")
        loop.run_until_complete(_talk())
        os.write(tell, b"t")
        loop.close()
        os.write(tell, b"c")
        status = 0
    except BaseException:  # the child's only way to report
        traceback.print_exc()
    finally:
        os._exit(status)


async def _busy(run: Run) -> None:
    """What a loop does while others fork: timers, tasks, sockets."""
    while not run.over():
        await asyncio.gather(_talk(), *(asyncio.sleep(0.0005) for _ in range(10)))


def scenario(run: Run) -> dict[str, int]:
    forks = [0] * max(1, run.threads // 2)
    # A process with threads is forked on purpose.
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)

    def fork(me: int) -> None:
        tally = run.tally()
        # Some forks happen in a thread that has a loop, which the child can't use.
        own = run.new_loop()
        own.run_until_complete(asyncio.sleep(0))
        while not run.over():
            began = time.perf_counter()
            hear, tell = os.pipe()
            pid = os.fork()
            if pid == 0:
                _child(run, tell)
            os.close(tell)
            _, status = os.waitpid(pid, 0)
            # Other children of this process may have inherited the writing end, so there is no end of file to wait for.
            os.set_blocking(hear, False)
            try:
                stage = os.read(hear, 10)[-1:]
            except BlockingIOError:
                stage = b""
            os.close(hear)
            code = os.waitstatus_to_exitcode(status)
            how = "hung" if code == -signal.SIGALRM else f"ended with {code}"
            assert code == 0, f"after {forks[me]} forks a child {how}, {STAGES[stage]}"
            forks[me] += 1
            tally.took(began)
        own.close()

    with ExitStack() as stack:
        loops = [stack.enter_context(run.serve(run.new_loop())) for _ in range(2)]
        busy = [asyncio.run_coroutine_threadsafe(_busy(run), running.loop) for running in loops]
        run.in_threads(*(partial(fork, n) for n in range(len(forks))))
        for future in busy:
            future.result(CHILD)
    return {"forks": sum(forks)}
