"""Every call on tasks and futures from threads that do not own them, while their loops make, cancel and finish them.

A call is answered, refused or routed, and nothing crashes or hangs. On asyncio's own loop the same program ends with a segmentation
fault within seconds on a free-threaded interpreter: ``python -m stress run --scenario task_misuse --threads 8 --loop asyncio``.
"""

import asyncio
import contextlib
import gc
import io
import logging
import random
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

from ..run import Run

# What a refusal looks like, and what targets end with; anything else is a finding.
ANSWERS = (
    RuntimeError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    TimeoutError,
    StopIteration,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
)


async def _idle() -> None:
    pass


async def _wait(future: Any) -> Any:
    return await future


async def _steps(count: int) -> int:
    for _ in range(count):
        await asyncio.sleep(0)
    return count


async def _fail(future: Any) -> None:
    with contextlib.suppress(*ANSWERS):
        await future
    raise ValueError("as it should")


async def _stubborn() -> None:
    for _ in range(3):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def _nest(depth: int) -> None:
    if depth:
        await asyncio.gather(_nest(depth - 1), asyncio.sleep(0), return_exceptions=True)


def _nothing(*args: object) -> None:
    pass


def _call_callbacks(target: Any) -> None:
    for callback, _ in target._callbacks or ():
        with contextlib.suppress(*ANSWERS):
            callback(target)


def _begin(target: Any) -> None:
    coro = _idle()
    try:
        if isinstance(target, asyncio.Task):
            target.__init__(coro, loop=target.get_loop())  # type: ignore[misc]
        else:
            target.__init__(loop=target.get_loop())
    finally:
        coro.close()


def _show_waiter(target: Any) -> None:
    """A native task may wait for gather()'s future, of asyncio's own type: that one is not safe from other threads."""
    waiter = target._fut_waiter
    if type(waiter).__module__ == type(target).__module__:
        repr(waiter)


ATTRIBUTES = [
    "_state",
    "_loop",
    "_callbacks",
    "_result",
    "_exception",
    "_log_traceback",
    "_source_traceback",
    "_cancel_message",
    "_asyncio_future_blocking",
    "_must_cancel",
    "_log_destroy_pending",
    "_coro",
    "_fut_waiter",
]
METHODS = [
    "done",
    "cancelled",
    "result",
    "exception",
    "get_loop",
    "get_name",
    "get_coro",
    "get_context",
    "cancelling",
    "uncancel",
    "cancel",
    "_make_cancelled_error",
    "get_stack",
    "__await__",
    "__iter__",
]
LOOKS: list[Callable[[Any], object]] = [
    repr,
    hash,
    weakref.ref,
    asyncio.isfuture,
    lambda target: target == target,
    lambda target: target.set_name("renamed"),
    lambda target: repr(target.get_coro()),
    _show_waiter,
    lambda target: asyncio.all_tasks(target.get_loop()),
    lambda target: asyncio.current_task(target.get_loop()),
    lambda target: [task.get_name() for task in asyncio.all_tasks(target.get_loop())],
    *(partial(lambda name, target: getattr(target, name), name) for name in ATTRIBUTES),
    *(partial(lambda name, target: getattr(target, name)(), name) for name in METHODS),
]
CHANGES: list[Callable[[Any], object]] = [
    lambda target: target.cancel("from elsewhere"),
    lambda target: target.set_result(1),
    lambda target: target.set_exception(ValueError("from elsewhere")),
    lambda target: target.add_done_callback(_nothing),
    lambda target: target.add_done_callback(_nothing, context=copy_context()),
    lambda target: target.remove_done_callback(_nothing),
    lambda target: target.print_stack(file=io.StringIO()),
    lambda target: setattr(target, "_log_traceback", False),
    lambda target: setattr(target, "_log_destroy_pending", False),
    lambda target: setattr(target, "_asyncio_future_blocking", True),
    lambda target: setattr(target, "_cancel_message", "changed"),
    lambda target: next(iter(target)),
    lambda target: target.__await__().send(None),
    lambda target: target.__await__().throw(ValueError("thrown")),
    _call_callbacks,
    _begin,
]
CALLS = LOOKS + CHANGES


def _look_safely(target: Any) -> None:
    """What never fails on a native object, wherever it is asked."""
    assert repr(target).startswith("<")
    target.done(), target.cancelled(), target.get_loop(), target._callbacks, target._state
    if isinstance(target, asyncio.Task):
        target.set_name("renamed")
        assert target.get_name()
        target.get_coro(), target._fut_waiter, target.cancelling()


class Victim:
    """A loop that works in its own thread by callbacks, and the objects that it exposes to the attackers."""

    def __init__(self, loop: Any, chance: random.Random) -> None:
        self.loop, self.chance = loop, chance
        self.targets: list[Any] = []
        self.turns = 0
        self.made = 0
        self.ending = False
        loop.set_exception_handler(lambda loop, context: None)

    def make(self) -> Iterator[Any]:
        loop = self.loop
        future = loop.create_future()
        yield future
        yield loop.create_future()
        for coro in (_wait(future), _fail(future), _steps(3), _stubborn(), _nest(2), _idle()):
            yield loop.create_task(coro)
        done = loop.create_future()
        done.set_exception(LookupError("retrieved by the attackers"))
        yield done
        yield loop.create_task(_wait(done), name="waits for a failure", context=copy_context())

    def turn(self) -> None:
        """Makes targets of every kind and age; ends, cancels or drops those of the turn before."""
        self.turns += 1
        chance = self.chance
        for target in self.targets:
            way = chance.randrange(4)
            with contextlib.suppress(*ANSWERS):
                if way == 0:
                    target.cancel()
                elif way == 1:
                    target.set_result(None)
                elif way == 2:
                    target.set_exception(ValueError("an end"))
        if self.ending:
            self.loop.stop()
            return
        self.targets = list(self.make())
        self.made += len(self.targets)
        (self.loop.call_soon if chance.random() < 0.9 else partial(self.loop.call_later, 0.0005))(self.turn)

    def settle(self) -> None:
        """Cancels tasks until none is left: a task that can't be ended is a finding."""
        for _ in range(10):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        assert not tasks, f"still pending: {tasks}"

    def run(self, in_pieces: bool) -> None:
        self.loop.call_soon(self.turn)
        while not self.ending:
            if in_pieces:
                # Between the pieces the loop does not run, and any thread may change its objects.
                self.loop.call_later(self.chance.random() / 100, self.loop.stop)
            self.loop.run_forever()
        self.settle()
        self.targets = []
        self.loop.close()


def _new_loop(run: Run, route: bool) -> Any:
    loop = run.new_loop()
    if route and run.settings.loop == "tokioloop":
        loop.close()
        loop = type(loop)(cross_thread="route")  # type: ignore[call-arg]
    return loop


def scenario(run: Run) -> dict[str, int]:
    # Tasks and coroutines that end unfinished warn; the warnings are ignored.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", RuntimeWarning)
    victims = [Victim(_new_loop(run, n == 1), run.random(f"victim {n}")) for n in range(3)]
    passing: list[Victim] = []
    calls, loops, collections = [0] * run.threads, [0], [0]

    def attack(me: int) -> None:
        chance, tally = run.random(me), run.tally()
        while not run.over():
            targets = chance.choice(victims + passing).targets
            for target in chance.sample(targets, min(len(targets), 4)):
                if run.settings.loop == "tokioloop":
                    _look_safely(target)
                for call in chance.sample(CALLS, 20):
                    calls[me] += 1
                    tally.ops += 1
                    with contextlib.suppress(*ANSWERS):
                        call(target)

    seen: list[str] = []

    def attack_from_a_loop() -> None:
        """Awaits objects of other loops, in every possible way."""
        chance = run.random("loop")

        async def main() -> None:
            while not run.over():
                targets = chance.choice(victims).targets
                for target in chance.sample(targets, min(len(targets), 4)):
                    for way in (_wait, asyncio.shield, asyncio.gather, partial(asyncio.wait_for, timeout=1)):
                        with contextlib.suppress(*ANSWERS):
                            async with asyncio.timeout(1):
                                await way(target)  # type: ignore[operator]
                await asyncio.sleep(0)

        loop = run.new_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(repr(context)))
        loop.run_until_complete(main())
        loop.close()

    def make_loops() -> None:
        """Loops that live for a few turns, with targets that outlive them."""
        chance = run.random("loops")
        while not run.over():
            victim = Victim(_new_loop(run, chance.random() < 0.5), chance)
            passing[:] = [*passing[-2:], victim]
            victim.loop.call_later(chance.random() / 50, setattr, victim, "ending", True)
            victim.loop.call_soon(victim.turn)
            victim.loop.run_forever()
            loops[0] += 1
            if chance.random() < 0.7:
                victim.settle()
            victim.loop.close()

    def collect() -> None:
        while not run.over():
            gc.collect()
            collections[0] += 1
            time.sleep(0.005)

    def end_victims() -> None:
        while not run.over():
            time.sleep(0.02)
        for victim in victims:
            victim.ending = True
            with contextlib.suppress(RuntimeError):
                victim.loop.call_soon_threadsafe(_nothing)

    threads = [threading.Thread(target=victim.run, args=(n == 2,)) for n, victim in enumerate(victims)]
    for thread in threads:
        thread.start()
    attackers = [partial(attack, n) for n in range(run.threads)]
    try:
        run.in_threads(*attackers, attack_from_a_loop, make_loops, collect, end_victims)
    finally:
        for victim in victims:
            victim.ending = True
        for thread in threads:
            thread.join()
    passing.clear()
    for text in dict.fromkeys(seen):
        print(f"task_misuse: reported in the attacking loop: {text[:500]}")
    return {
        "foreign calls": sum(calls),
        "turns": sum(victim.turns for victim in victims),
        "targets": sum(victim.made for victim in victims),
        "loops": loops[0],
        "collections": collections[0],
    }
