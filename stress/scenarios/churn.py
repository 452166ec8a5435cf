"""Loops made, run, stopped from elsewhere, handed over and closed, or left to the collector, in every thread at once."""

import asyncio
import contextlib
import gc
import socket
import threading
import time
from functools import partial

from ..run import Run


async def _talk() -> None:
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    far.send(b"x" * 1000)
    assert len(await reader.readexactly(1000)) == 1000
    writer.close()
    await writer.wait_closed()
    far.close()


def scenario(run: Run) -> dict[str, int]:
    counts = [0] * run.threads

    def work(me: int) -> None:
        chance, tally = run.random(me), run.tally()
        while not run.over():
            began = time.perf_counter()
            loop = run.new_loop()
            counts[me] += 1
            way = chance.choice(["empty", "sleep", "talk", "hand over", "stopped", "contested", "dropped"])
            if way == "sleep":
                loop.run_until_complete(asyncio.sleep(0.0001))
            elif way == "talk":
                loop.run_until_complete(_talk())
            elif way == "hand over":
                loop.run_until_complete(asyncio.sleep(0))
                thread = threading.Thread(target=loop.run_until_complete, args=(_talk(),))
                thread.start()
                thread.join()
            elif way == "stopped":
                stopper = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
                loop.call_soon(stopper.start)
                loop.run_forever()
                stopper.join()
            elif way == "contested" and run.settings.loop == "tokioloop":
                _contest(loop)
            elif way == "dropped":
                near, far = socket.socketpair()
                loop.add_reader(near, loop.stop)
                loop.call_later(100, loop.stop)
                del loop
                near.close()
                far.close()
                if chance.random() < 0.02:
                    gc.collect()
                continue
            loop.close()
            tally.took(began)

    # The interpreter ignores ResourceWarnings by default; each loop that is dropped gives one.
    run.in_threads(*(partial(work, n) for n in range(run.threads)))
    gc.collect()
    return {"loops": sum(counts)}


def _contest(loop: asyncio.AbstractEventLoop) -> None:
    """One thread begins to run while another closes: one of them is refused, neither hangs."""
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        with contextlib.suppress(RuntimeError):
            loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    barrier.wait()
    try:
        loop.close()
    except RuntimeError:
        loop.stop()
    thread.join(60)
    assert not thread.is_alive(), f"{loop!r} cannot be stopped"
