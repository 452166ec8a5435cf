"""Short-lived children of several loops, with pipes: every byte and every exit status is right, and no zombie stays."""

import asyncio
import os
import random
import signal
import sys
import time
from functools import partial

from ..run import PATIENCE, NotOffered, Run, Tally

PIPE = asyncio.subprocess.PIPE


async def _cat(chance: random.Random, pids: list[int]) -> None:
    """More than a pipe holds, sent through a child and compared."""
    data = chance.randbytes(chance.choice([0, 1, 4096, 200_000]))
    child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    pids.append(child.pid)
    out, err = await child.communicate(data)
    assert out == data, f"{len(out)} of {len(data)} bytes came back"
    assert err is None
    assert child.returncode == 0, child.returncode


async def _status(chance: random.Random, pids: list[int]) -> None:
    number = chance.randrange(256)
    child = await asyncio.create_subprocess_exec("sh", "-c", f"exit {number}")
    pids.append(child.pid)
    assert await child.wait() == number, f"status {child.returncode} for {number}"


async def _both(chance: random.Random, pids: list[int]) -> None:
    """Two streams that must not mix, and a status."""
    number = chance.randrange(1 << 30)
    child = await asyncio.create_subprocess_shell(
        f"echo out {number}; echo err {number} >&2; exit 7", stdout=PIPE, stderr=PIPE
    )
    pids.append(child.pid)
    out, err = await child.communicate()
    assert (out, err) == (b"out %d\n" % number, b"err %d\n" % number), (out, err)
    assert child.returncode == 7, child.returncode


async def _killed(chance: random.Random, pids: list[int]) -> None:
    """Ended by a signal, from here or by itself."""
    number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
    if chance.random() < 0.5:
        child = await asyncio.create_subprocess_exec("sleep", "1000")
        pids.append(child.pid)
        child.send_signal(number)
    else:
        child = await asyncio.create_subprocess_exec("sh", "-c", f"kill -{number:d} $$")
        pids.append(child.pid)
    assert await child.wait() == -number, f"status {child.returncode} for a child ended by {number!r}"


async def _unread(chance: random.Random, pids: list[int]) -> None:
    """Writes without end to a pipe that is read in part, then is killed."""
    child = await asyncio.create_subprocess_exec("yes", stdout=PIPE, limit=4096)
    pids.append(child.pid)
    assert child.stdout is not None
    assert await child.stdout.readexactly(2000) == b"y\n" * 1000
    child.kill()
    assert await child.wait() == -signal.SIGKILL, child.returncode
    # What it had written can still be read.
    rest = await child.stdout.read()
    assert rest.replace(b"y\n", b"") in (b"", b"y"), "wrong bytes were left"


WAYS = [_cat, _cat, _status, _both, _killed, _unread]


async def _one(chance: random.Random, pids: list[int], tally: Tally) -> None:
    began = time.perf_counter()
    await chance.choice(WAYS)(chance, pids)
    tally.took(began)


def _works_off_the_main_thread(run: Run) -> bool:
    """Whether the loop can start children from other threads than the main one."""
    refused: list[str] = []

    async def attempt() -> None:
        try:
            child = await asyncio.create_subprocess_exec("true")
            await child.wait()
        except (NotImplementedError, RuntimeError) as error:
            refused.append(str(error))

    def work() -> None:
        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(attempt())

    run.part(1).in_threads(work)
    if refused:
        run.note(f"children from the main thread's loop only: {refused[0]}")
    return not refused


def scenario(run: Run) -> dict[str, int]:
    if not sys.platform.startswith("linux"):
        raise NotOffered("the children used here are Linux's")
    pids: list[list[int]] = [[] for _ in range(run.threads)]

    def work(me: int) -> None:
        chance, tally = run.random(me), run.tally()

        async def storm() -> None:
            while not run.over():
                batch = [_one(random.Random(chance.random()), pids[me], tally) for _ in range(4)]
                await asyncio.gather(*batch)

        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(asyncio.wait_for(storm(), run.settings.seconds + PATIENCE))

    if _works_off_the_main_thread(run):
        run.in_threads(*(partial(work, n) for n in range(run.threads)))
    else:
        work(0)
    for pid in (pid for column in pids for pid in column):
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            continue
        raise AssertionError(f"child {pid} was never waited for")
    return {"children": sum(map(len, pids))}
