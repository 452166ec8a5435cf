"""Every call on a loop, its handles and transports from threads that do not own it: refused or answered, never a crash."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..run import NotOffered, Run

# Called on an object by name, with these arguments. The rest of its public names is called without any.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "add_signal_handler": (signal.SIGUSR2, int),
    "remove_signal_handler": (signal.SIGUSR2,),
    "call_soon": (int,),
    "call_later": (0, int),
    "call_at": (0, int),
    "call_soon_threadsafe": (int,),
    "call_exception_handler": ({"message": "misuse"},),
    "default_exception_handler": ({"message": "misuse"},),
    "run_in_executor": (None, int),
    "set_default_executor": (None,),
    "set_debug": (False,),
    "set_exception_handler": (None,),
    "set_task_factory": (None,),
    "set_protocol": (asyncio.Protocol(),),
    "set_write_buffer_limits": (1000, 10),
    "get_extra_info": ("socket",),
    "write": (b"x",),
    "writelines": ([b"x", b"y"],),
}
# Left out: stop() would end the scenario's loops, and the handlers would report errors that did not happen.
LEFT_OUT = {"stop", "__class__", "call_exception_handler", "default_exception_handler"}

# What a refusal looks like; anything else is a finding.
REFUSALS = (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError, OSError)


def attack(target: Any, extra: list[Callable[[], Any]]) -> int:
    """Call and read everything on *target* once."""
    calls = 0
    for name in dir(target):
        if name in LEFT_OUT or (name.startswith("__") and name not in ("__repr__", "__hash__")):
            continue
        private = name.startswith("_")
        if private and name not in (
            "_run",
            "_callback",
            "_args",
            "_source_traceback",
            "_check_thread",
            "_current_handle",
        ):
            continue
        calls += 1
        with contextlib.suppress(*REFUSALS):
            value = getattr(target, name)
            if callable(value):
                result = value(*ARGUMENTS.get(name, ()))
                if hasattr(result, "close") and asyncio.iscoroutine(result):
                    with contextlib.closing(result), contextlib.suppress(StopIteration):
                        result.send(None)
    for call in extra:
        calls += 1
        with contextlib.suppress(*REFUSALS):
            call()
    return calls


class Received(asyncio.Protocol):
    """Counts. The run itself must not make classes: 3.13t keeps those forever once there are threads, and all they refer to."""

    def __init__(self, victim: "Victim") -> None:
        self.victim = victim

    def data_received(self, data: bytes) -> None:
        self.victim.received += len(data)


class Victim:
    """A loop that works in its own thread, and the objects that it exposes to the attackers."""

    def __init__(self, loop: Any, sock: socket.socket) -> None:
        self.loop, self.sock = loop, sock
        self.targets: list[Any] = [loop]
        self.turns = 0
        self.received = 0
        self.transport: Any = None

    async def begin(self, over: Callable[[], bool]) -> None:
        self.transport, _ = await self.loop.create_connection(lambda: Received(self), sock=self.sock)
        self.over = over
        self.turn()

    def turn(self) -> None:
        """Makes, cancels and runs handles of every age, all of which the attackers can reach."""
        self.turns += 1
        loop = self.loop
        made = [loop.call_soon(object), loop.call_later(0, object), loop.call_later(10, object, 1, 2, 3)]
        future = loop.create_future()
        self.targets = [loop, self.transport, *made, future if self.turns % 50 == 0 else loop]
        made[2].cancel()
        if self.turns % 3 == 0:
            made[0].cancel()
        if not self.over():
            loop.call_soon(self.turn)


def scenario(run: Run) -> dict[str, int]:
    if run.settings.loop != "tokioloop":
        raise NotOffered("calls from other threads are promised to be refused by tokioloop only")
    # Some calls switch debug mode on; its logs are ignored.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    loop: Any = run.new_loop()
    loop.set_exception_handler(lambda loop, context: None)
    victim = Victim(loop, near)
    # A Future is C code of asyncio's own, not safe to touch from elsewhere: only the loop, handles and transports are.
    calls = [0] * run.threads
    spare, _other = socket.socketpair()

    def work(me: int) -> None:
        tally = run.tally()
        extra: list[Callable[[], Any]] = [
            lambda: loop.add_reader(spare, int),
            lambda: loop.add_writer(spare, int),
            lambda: loop.remove_reader(spare),
            lambda: loop.remove_writer(spare),
            lambda: loop.sock_recv(spare, 1).send(None),
            lambda: loop.sock_sendall(spare, b"x").send(None),
            lambda: setattr(loop, "slow_callback_duration", 1),
            lambda: loop._make_socket_transport(spare, asyncio.Protocol()),
            lambda: [repr(target) for target in victim.targets if not asyncio.isfuture(target)],
            lambda: [target == target for target in victim.targets],
            lambda: loop.set_debug(True),
            lambda: attack(loop.call_soon_threadsafe(int, 1, 2, 3), []),
        ]
        while not run.over():
            for target in victim.targets:
                if not asyncio.isfuture(target):
                    calls[me] += attack(target, extra)
                    tally.ops = calls[me]
            if me == 0:
                gc.collect()
            with contextlib.suppress(BlockingIOError):
                far.send(b"data")

    with run.serve(loop) as running:
        running.wait(victim.begin(run.over))
        run.in_threads(*(partial(work, n) for n in range(run.threads)))
        running.flush()

        async def end() -> None:
            assert not victim.transport.is_closing(), "a foreign call closed the transport"
            victim.transport.abort()
            await asyncio.sleep(0.001)

        running.wait(end())
    victim.targets.clear()
    for sock in (far, spare, _other):
        sock.close()
    still = stopped_loop(run)
    assert threading.active_count() >= 1
    return {
        "foreign calls": sum(calls),
        "turns": victim.turns,
        "bytes": victim.received,
        "rounds when stopped": still,
    }


def stopped_loop(run: Run) -> int:
    """Several threads on a loop that is not running: each call claims it for its length, so they may interleave freely."""
    rounds = [0] * run.threads
    loop: Any = run.new_loop()
    loop.set_exception_handler(lambda loop, context: None)
    shared: list[Any] = [loop.call_later(1000, object, 1, 2) for _ in range(10)]

    looks: list[Callable[[Any], object]] = [
        repr,
        lambda handle: handle._callback,
        lambda handle: handle._args,
        lambda handle: handle.cancel(),
        lambda handle: handle._run(),
    ]

    def work(me: int) -> None:
        chance = run.random(f"stopped {me}")
        makes = [
            partial(loop.call_later, 1000, object, me, 2, 3),
            partial(loop.call_soon, int),
            partial(loop.call_soon_threadsafe, int),
        ]
        for _ in range(300):
            rounds[me] += 1
            place = chance.randrange(len(shared))
            with contextlib.suppress(RuntimeError):
                chance.choice(looks)(shared[place])
            with contextlib.suppress(RuntimeError):
                shared[place] = chance.choice(makes)()
            if chance.random() < 0.1:
                with contextlib.suppress(RuntimeError):
                    loop.stop()
                    loop.run_forever()

    run.in_threads(*(partial(work, n) for n in range(run.threads)))
    loop.close()
    return sum(rounds)
