"""Threads post to loops while these run, rest and are closed: each post is taken or refused, and every close() ends."""

import asyncio
import contextlib
import gc
import threading
import time
from functools import partial
from typing import Any, ClassVar

from ..counted import Counted
from ..run import PATIENCE, Run


class Argument(Counted):
    """An argument of posts. Some collect garbage when they are freed, which stops all threads, including those that wait for the loop."""

    #: An item for each collection that is still allowed: threads that collect all the time leave no time for the others.
    permits: ClassVar[list[None]] = []

    def __init__(self, collects: bool) -> None:
        super().__init__()
        self.collects = collects

    def __del__(self) -> None:
        super().__del__()
        if self.collects:
            with contextlib.suppress(IndexError):
                Argument.permits.pop()
                gc.collect(0)


def scenario(run: Run) -> dict[str, int]:
    closed = 0
    taken, refused = [0] * run.threads, [0] * run.threads
    current: list[Any] = []
    ended = threading.Event()

    def post(me: int) -> None:
        chance, tally = run.random(me), run.tally()

        def nothing(*_: object) -> None:
            pass

        while not ended.is_set():
            for loop in list(current):
                began = time.perf_counter()
                argument = Argument(chance.random() < 0.01)
                try:
                    handle = loop.call_soon_threadsafe(nothing, argument)
                    if chance.random() < 0.2:
                        handle.cancel()
                    if chance.random() < 0.01:
                        loop.call_soon_threadsafe(loop.stop)
                except RuntimeError:
                    refused[me] += 1
                else:
                    taken[me] += 1
                del argument
                tally.took(began)

    def close() -> None:
        nonlocal closed
        chance = run.random("close")
        try:
            while not run.over():
                loops = [run.new_loop() for _ in range(chance.choice([1, 2, 4]))]
                Argument.permits[:] = [None] * 3
                current[:] = loops
                for loop in loops:
                    began = time.monotonic()
                    if chance.random() < 0.7:
                        loop.call_later(chance.random() / 500, loop.stop)
                        loop.run_forever()
                    if chance.random() < 0.3:
                        with contextlib.suppress(RuntimeError):  # The loop had been stopped before it ran.
                            loop.run_until_complete(asyncio.sleep(0))
                    ran = time.monotonic()
                    loop.close()
                    closed += 1
                    took = time.monotonic() - ran
                    assert took < PATIENCE, f"a close took {took:.0f} s"
                    assert ran - began < PATIENCE, f"a run took {ran - began:.0f} s"
        finally:
            ended.set()
            current.clear()

    before = Counted.alive()
    run.in_threads(close, *(partial(post, n) for n in range(run.threads)))
    for _ in range(5):
        gc.collect()
    assert Counted.alive() == before, f"{Counted.alive() - before} arguments are left"
    return {"closed": closed, "taken": sum(taken), "refused": sum(refused)}
