"""Several threads step, close, cancel and look at the same futures and awaitables; chains and circles of tasks are cancelled."""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from ..counted import Counted
from ..run import NotOffered, Run

# The errors of a call that comes from another thread, too late, or during another call.
ANSWERS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    StopIteration,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
    asyncio.IncompleteReadError,
)


async def _await(future: Any, *_: Any) -> Any:
    return await future


async def _await_each_other(others: list[Any], me: int) -> None:
    await asyncio.sleep(0)
    await others[(me + 1) % len(others)]


def _throw(target: Any) -> None:
    target.throw(KeyError(Counted()))


def _watch(target: Any) -> None:
    target.add_done_callback(Counted())


def _init(target: Any) -> None:
    target.__init__(loop=target.get_loop())


STEPS: list[Callable[[Any], object]] = [
    next,
    repr,
    _throw,
    lambda target: target.send(None),
    lambda target: target.close(),
    lambda target: next(target.__await__()),
]
CHANGES: list[Callable[[Any], object]] = [
    repr,
    _watch,
    _init,
    lambda target: target.cancel(Counted()),
    lambda target: target.set_result(Counted()),
    lambda target: target.set_exception(KeyError(Counted())),
    lambda target: target.remove_done_callback(_watch),
    lambda target: target._callbacks,
    lambda target: target.result(),
    lambda target: target.exception(),
    lambda target: next(iter(target)),
]


class Batch:
    """Objects of a loop that does not run, so that every thread may change them."""

    def __init__(self, run: Run, chance: random.Random, never: socket.socket) -> None:
        self.loop = loop = run.new_loop()
        loop.set_exception_handler(lambda loop, context: None)
        reader = run.native("StreamReader")
        done, failed = loop.create_future(), loop.create_future()
        done.set_result(Counted())
        failed.set_exception(KeyError(Counted()))
        pending = loop.create_future()
        # No coroutine of Python's own: two threads that step one crash the interpreter, 3.13t and 3.14t, without any loop.
        steps = [iter(done), iter(failed), iter(pending), loop.sock_recv(never, 1)]
        steps += [reader(loop=loop).readline(), reader(loop=loop).__anext__()]
        changed = [loop.create_future(), done, failed, pending]
        changed += [loop.create_task(_await(pending, Counted())) for _ in range(3)]
        changed += [loop.call_soon(Counted(), Counted()), loop.call_later(0.001, Counted(), Counted())]
        self.targets: list[tuple[Any, list[Callable[[Any], object]]]] = [(each, STEPS) for each in steps]
        self.targets += [(each, CHANGES) for each in changed]
        chance.shuffle(self.targets)

    def hit(self, chance: random.Random, tally: Any) -> None:
        for target, calls in self.targets:
            for call in chance.sample(calls, 3):
                tally.ops += 1
                with contextlib.suppress(*ANSWERS):
                    call(target)

    def end(self) -> None:
        for _ in range(3):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        left = asyncio.all_tasks(self.loop)
        self.loop.close()
        assert not left, f"still pending: {left}"


def _circle(run: Run, chance: random.Random, links: int) -> None:
    """A circle that can't end. The collector frees it."""
    loop, circle = run.new_loop(), list[Any]()
    loop.set_exception_handler(lambda loop, context: None)
    circle += [loop.create_task(_await_each_other(circle, me)) for me in range(links)]

    def work() -> None:
        loop.stop()
        for task in chance.sample(circle, 2):
            for call in (repr, lambda task: task.cancel()):
                with contextlib.suppress(RecursionError):
                    call(task)

    loop.call_later(0.001, work)
    # In a thread of its own, as another loop runs in this one.
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    thread.join()
    loop.close()


async def _chains(run: Run, chance: random.Random, tally: Any) -> int:
    """Chains of every length are cancelled at one end; circles too, where an error says that they have no end."""
    loop, cancelled = asyncio.get_running_loop(), 0
    while not run.over():
        future: Any = loop.create_future()
        chain = [future]
        for _ in range(chance.choice([1, 10, 100, 3000])):
            chain.append(loop.create_task(_await(chain[-1])))
        await asyncio.sleep(0)
        chance.choice([chain[-1], future, chance.choice(chain)]).cancel()
        future.cancel()
        await asyncio.wait(chain)
        repr(chain[-1])
        links = chance.choice([2, 3, 50, 1000])
        _circle(run, chance, links)
        tally.ops += len(chain) + links
        cancelled += len(chain) + links
        del chain, future
    return cancelled


def scenario(run: Run) -> dict[str, int]:
    if run.settings.loop != "tokioloop":
        raise NotOffered("asyncio's own tasks take no lock and recurse for each link of a chain")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    never, peer = socket.socketpair()
    never.setblocking(False)
    batches, cancelled = 0, 0
    together = threading.Barrier(run.threads)
    current: list[Batch] = []

    def attack(me: int) -> None:
        nonlocal batches
        chance, tally = run.random(me), run.tally()
        while True:
            if me == 0:
                current[:] = [] if run.over() else [Batch(run, chance, never) for _ in range(20)]
            together.wait()
            if not current:
                return
            for batch in list(current):
                batch.hit(chance, tally)
            together.wait()
            if me == 0:
                for batch in current:
                    batch.end()
                batches += len(current)

    def guarded(me: int) -> None:
        """An error in one thread leaves no other waiting."""
        try:
            attack(me)
        except BaseException:
            together.abort()
            raise

    def chains() -> None:
        nonlocal cancelled
        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            cancelled = runner.run(_chains(run, run.random("chains"), run.tally()))

    before = Counted.alive()
    run.in_threads(chains, *(partial(guarded, n) for n in range(run.threads)))
    never.close()
    peer.close()
    for _ in range(5):
        gc.collect()
    assert Counted.alive() == before, f"{Counted.alive() - before} objects are left"
    return {"loops": batches, "cancelled": cancelled}
