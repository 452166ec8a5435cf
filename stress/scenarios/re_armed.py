"""Timers cancelled and armed again in every turn, beside I/O of every kind: nothing starves."""

import asyncio
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial

from ..run import PATIENCE, Run, Tally

# How many turns a loop may take before it reports an event that happened before the first of them.
TURNS = 100_000

Way = Callable[[], Awaitable[object]]


class Busy:
    """Keeps a loop from ever sleeping, in changing ways: each has been an early return from the step that polls the kernel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random, run: Run) -> None:
        self.loop, self.chance, self.run = loop, chance, run
        self.turns = 0
        self.timers: list[asyncio.TimerHandle] = []
        self.ended = False

    def again(self) -> None:
        self.turns += 1
        for timer in self.timers:
            timer.cancel()
        if self.ended:
            self.timers.clear()
            return
        delays = [0.0, 1e-6, 0.001, 10.0, 1e6]
        count = self.chance.choice([1, 1, 2, 8])
        self.timers = [self.loop.call_later(self.chance.choice(delays), _nothing) for _ in range(count)]
        # The next turn is due to the ready queue, to a timer that is due, or to both.
        way = self.chance.randrange(4)
        if way == 0:
            self.loop.call_later(0, self.again)
        elif way == 1:
            self.loop.call_at(self.loop.time() - 1, self.again)
        else:
            self.loop.call_soon(self.again)


def _nothing(*_: object) -> None:
    pass


class Heard(asyncio.Protocol, asyncio.DatagramProtocol):
    """Calls back for everything it receives."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None

    def heard(self, *_: object) -> None:
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)

    data_received = datagram_received = heard  # type: ignore[assignment]


class Ways:
    """Sources of events. Each event is ready at once, so that turns can be counted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ends: list[Callable[[], object]] = []

    def pair(self, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        one.setblocking(False)
        other.setblocking(False)
        self.ends += [other.close, one.close]
        return one, other

    async def make(self) -> dict[str, Way]:
        loop = self.loop
        watched, watched_peer = self.pair()
        awaited, awaited_peer = self.pair()
        carried, carried_peer = self.pair()
        messages = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        messages.bind(("127.0.0.1", 0))
        messages.setblocking(False)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        out, into = os.pipe()
        transport, stream = await loop.create_connection(Heard, sock=carried)
        endpoint, datagram = await loop.create_datagram_endpoint(Heard, sock=messages)
        reading, pipe = await loop.connect_read_pipe(Heard, os.fdopen(out, "rb", 0))
        self.ends += [transport.close, endpoint.close, reading.close, partial(os.close, into)]
        self.ends += [sender.close, listener.close]

        async def by_reader() -> None:
            waiter = loop.create_future()
            watched_peer.send(b"x")
            loop.add_reader(watched, lambda: waiter.done() or waiter.set_result(watched.recv(1)))
            await waiter
            loop.remove_reader(watched)

        async def by_writer() -> None:
            waiter = loop.create_future()
            loop.add_writer(watched, lambda: waiter.done() or waiter.set_result(None))
            await waiter
            loop.remove_writer(watched)

        async def by_sock_call() -> None:
            waiting = loop.create_task(loop.sock_recv(awaited, 1))
            await asyncio.sleep(0)
            awaited_peer.send(b"x")
            await waiting

        async def accepted() -> None:
            with socket.create_connection(listener.getsockname()):
                one, _ = await loop.sock_accept(listener)
                one.close()

        def by_protocol(protocol: Heard, send: Callable[[], object]) -> Way:
            async def way() -> None:
                protocol.waiter = loop.create_future()
                send()
                await protocol.waiter

            return way

        return (
            {
                "a reader": by_reader,
                "a writer": by_writer,
                "sock_recv": by_sock_call,
                "sock_accept": accepted,
                "a transport": by_protocol(stream, lambda: carried_peer.send(b"x")),
                "datagrams": by_protocol(datagram, lambda: sender.sendto(b"x", messages_name)),
                "a pipe": by_protocol(pipe, lambda: os.write(into, b"x")),
            }
            if (messages_name := messages.getsockname())
            else {}
        )


def others(loop: asyncio.AbstractEventLoop, number: int) -> dict[str, Way]:
    """Sources that depend on another thread or process, so that turns can't be counted."""

    async def posted() -> None:
        waiter = loop.create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(waiter.set_result, None))
        thread.start()
        await waiter
        thread.join()

    async def child() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "")
        await process.wait()

    return {
        "a post": posted,
        "an executor": lambda: loop.run_in_executor(None, _nothing),
        "a name": lambda: loop.getaddrinfo("127.0.0.1", 80),
        **({"a child": child} if number == 0 else {}),
    }


async def hear(
    name: str, way: Way, busy: Busy, run: Run, tally: Tally, counts: dict[str, int], exact: bool
) -> None:
    while not run.over():
        before, began = busy.turns, time.perf_counter()
        async with asyncio.timeout(PATIENCE):
            await way()
        turns = busy.turns - before
        assert not exact or turns < TURNS, f"{name} was reported after {turns} turns"
        counts[name] = counts.get(name, 0) + 1
        tally.took(began)
        await asyncio.sleep(0)


def scenario(run: Run) -> dict[str, int]:
    totals: dict[str, int] = {}
    totalling = threading.Lock()
    signals = [0]

    async def main(number: int) -> None:
        loop, tally = asyncio.get_running_loop(), run.tally()
        busy = Busy(loop, run.random(number), run)
        counts: dict[str, int] = {}
        ways = Ways(loop)
        exact, loose = await ways.make(), others(loop, number)
        busy.again()
        try:
            async with asyncio.TaskGroup() as group:
                for found, is_exact in ((exact, True), (loose, False)):
                    for name, way in found.items():
                        group.create_task(hear(name, way, busy, run, tally, counts, is_exact))
        finally:
            busy.ended = True
            for end in ways.ends:
                end()
        assert counts.keys() == exact.keys() | loose.keys(), f"never reported: {exact.keys() - counts.keys()}"
        with totalling:
            for name, count in counts.items():
                totals[name] = totals.get(name, 0) + count

    def work(number: int) -> None:
        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(main(number))

    threads = run.start(*(partial(work, n) for n in range(run.threads)))

    async def hear_signals() -> None:
        """In the main thread, where Python's signals come."""
        loop, tally = asyncio.get_running_loop(), run.tally()
        busy = Busy(loop, run.random("signals"), run)
        busy.again()
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        while not run.over():
            before = busy.turns
            os.kill(os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(PATIENCE):
                await came.wait()
            came.clear()
            assert busy.turns - before < TURNS, "a signal was reported too late"
            signals[0] += 1
            tally.ops += 1
        busy.ended = True
        loop.remove_signal_handler(signal.SIGUSR1)

    try:
        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(hear_signals())
    finally:
        for thread in threads:
            thread.join()
    run.check()
    return totals | {"a signal": signals[0]}
