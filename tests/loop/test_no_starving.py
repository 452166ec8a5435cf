"""Whatever a program does in its turns, its loop handles descriptors, signals, children and threads.

Each way to keep a loop busy is an early way out of the step that asks the driver. Something happens while the program is busy,
which gives up after so many turns: a loop that asks at its interval has long noticed it by then.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tokioloop

from .support import PATIENCE

TURNS = 100_000
BEFORE = 10


class Busy:
    """A program that never rests: counts its turns, makes an event happen, and ends the run when the event was not handled in time."""

    def __init__(self, loop: tokioloop.TokioLoop) -> None:
        self.loop = loop
        self.heard = False
        self.turns = 0
        self.answered = threading.Semaphore(0)
        self.poster: threading.Thread | None = None
        self.made: list[Any] = []
        self.happen: Callable[[], Any] = print

    def hear(self, *_: Any) -> None:
        self.heard = True
        self.answered.release()
        self.loop.stop()

    def goes_on(self) -> bool:
        self.turns += 1
        if self.turns == BEFORE:
            self.happen()
        if self.turns == TURNS:
            self.loop.stop()
        return not self.heard and self.turns < TURNS


# ---- what keeps the loop busy -----------------------------------------------------------------------------


def from_call_soon(busy: Busy) -> None:
    """Something is ready in every turn."""

    def again() -> None:
        if busy.goes_on():
            busy.loop.call_later(0, print).cancel()
            busy.loop.call_soon(again)

    again()


def from_timers(busy: Busy) -> None:
    """Nothing is ready, a timer is due, and a cancelled one comes before it."""

    def again() -> None:
        if busy.goes_on():
            busy.loop.call_later(0, print).cancel()
            busy.loop.call_later(0, again)

    again()


def from_many_timers(busy: Busy) -> None:
    """As many cancelled timers as the queue keeps, and a few more."""

    def again() -> None:
        if busy.goes_on():
            for _ in range(busy.turns % 100):
                busy.loop.call_later(0, print).cancel()
            busy.loop.call_later(0, again)

    again()


def from_a_rearmed_timer(busy: Busy) -> None:
    """A timeout that is reset in every turn, as by a connection that is never idle."""
    timeout = busy.loop.call_later(1000, print)

    def again() -> None:
        nonlocal timeout
        if busy.goes_on():
            timeout.cancel()
            timeout = busy.loop.call_later(0.000001, print)
            timeout.cancel()
            timeout = busy.loop.call_at(busy.loop.time(), again)

    again()


def from_tasks(busy: Busy) -> None:
    """A task that yields and sets timers that it cancels."""

    async def work() -> None:
        while busy.goes_on():
            timer = busy.loop.call_later(0, print)
            await asyncio.sleep(0)
            timer.cancel()

    busy.made.append(work())
    busy.loop.create_task(busy.made[-1])


def from_destructors(busy: Busy) -> None:
    """An object released with a cancelled timer sets the next one."""

    class Next:
        def __call__(self) -> None:
            pass

        def __del__(self) -> None:
            if busy.goes_on():
                busy.loop.call_soon(busy.loop.call_later(0, Next()).cancel)

    busy.loop.call_soon(busy.loop.call_later(0, Next()).cancel)


def _posts(busy: Busy, at_once: int) -> None:
    """Another thread posts as fast as it is answered: whenever the loop is about to sleep, there is something to run."""
    for _ in range(at_once):
        busy.answered.release()

    def run() -> None:
        busy.goes_on()
        busy.answered.release()

    def post() -> None:
        while not busy.heard and busy.turns < TURNS:
            busy.loop.call_soon_threadsafe(run)
            assert busy.answered.acquire(timeout=PATIENCE)
        if not busy.heard:
            busy.loop.call_soon_threadsafe(busy.loop.stop)

    busy.poster = threading.Thread(target=post)
    busy.poster.start()


def from_a_post(busy: Busy) -> None:
    _posts(busy, 0)


def from_posts(busy: Busy) -> None:
    _posts(busy, 100)


WAYS = [
    from_call_soon,
    from_timers,
    from_many_timers,
    from_a_rearmed_timer,
    from_tasks,
    from_destructors,
    from_a_post,
    from_posts,
]


# ---- the events ---------------------------------------------------------------------------------


def a_reader(busy: Busy, sockets: Callable[[], Any]) -> None:
    near, far = sockets()
    busy.loop.add_reader(near, busy.hear)
    busy.happen = lambda: far.send(b"x")


def a_writer(busy: Busy, sockets: Callable[[], Any]) -> None:
    near, far = sockets()
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(b"x" * 65536)
    busy.loop.add_writer(near, busy.hear)

    def read_all() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                far.recv(65536)

    busy.happen = read_all


def a_stream(busy: Busy, sockets: Callable[[], Any]) -> None:
    near, far = sockets()

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            busy.hear()

    transport, _ = busy.loop.run_until_complete(busy.loop.create_connection(Protocol, sock=near))
    busy.made.append(transport)
    busy.happen = lambda: far.send(b"x")


def a_sock_call(busy: Busy, sockets: Callable[[], Any]) -> None:
    near, far = sockets()

    async def receive() -> None:
        await busy.loop.sock_recv(near, 10)
        busy.hear()

    busy.made.append(receive())
    busy.loop.create_task(busy.made[-1])
    busy.happen = lambda: far.send(b"x")


def a_datagram(busy: Busy, sockets: Callable[[], Any]) -> None:
    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            busy.hear()

    made = busy.loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    transport, _ = busy.loop.run_until_complete(made)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    busy.made += [transport, sender]
    busy.happen = lambda: sender.sendto(b"x", transport.get_extra_info("sockname"))


def a_connection(busy: Busy, sockets: Callable[[], Any]) -> None:
    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()  # type: ignore[attr-defined]
            busy.hear()

    server = busy.loop.run_until_complete(busy.loop.create_server(Protocol, "127.0.0.1", 0))
    client = socket.socket()
    busy.made += [server, client]
    busy.happen = lambda: client.connect(server.sockets[0].getsockname())


def a_childs_end(busy: Busy, sockets: Callable[[], Any]) -> None:
    class Protocol(asyncio.SubprocessProtocol):
        def process_exited(self) -> None:
            busy.hear()

    nothing = subprocess.DEVNULL
    started = busy.loop.subprocess_exec(
        Protocol, "sleep", "1000", stdin=nothing, stdout=nothing, stderr=nothing
    )
    transport, _ = busy.loop.run_until_complete(started)
    busy.made.append(transport)

    def end() -> None:
        transport.kill()
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)

    busy.happen = end


def a_signal(busy: Busy, sockets: Callable[[], Any]) -> None:
    busy.loop.add_signal_handler(signal.SIGUSR1, busy.hear)
    busy.happen = lambda: os.kill(os.getpid(), signal.SIGUSR1)


def a_signal_beside_a_descriptor(busy: Busy, sockets: Callable[[], Any]) -> None:
    near, _ = sockets()
    busy.loop.add_reader(near, print)
    a_signal(busy, sockets)


def a_signal_and_nothing_else(busy: Busy, sockets: Callable[[], Any]) -> None:
    """A descriptor that comes and goes: afterwards only signals can be noticed."""
    near, _ = sockets()
    busy.loop.add_reader(near, print)
    busy.loop.remove_reader(near)
    a_signal(busy, sockets)


def a_threads_post(busy: Busy, sockets: Callable[[], Any]) -> None:
    def happen() -> None:
        poster = threading.Thread(target=busy.loop.call_soon_threadsafe, args=(busy.hear,))
        poster.start()
        poster.join(PATIENCE)

    busy.happen = happen


KINDS = [
    a_reader,
    a_writer,
    a_stream,
    a_sock_call,
    a_datagram,
    a_connection,
    a_childs_end,
    a_signal,
    a_signal_beside_a_descriptor,
    a_signal_and_nothing_else,
    a_threads_post,
]


@pytest.fixture
def sockets() -> Iterator[Callable[[], Any]]:
    made: list[socket.socket] = []

    def pair() -> Any:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        made.extend((near, far))
        return near, far

    yield pair
    for sock in made:
        sock.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_loop_handles(
    loop: tokioloop.TokioLoop, way: Callable[[Busy], None], kind: Any, sockets: Callable[[], Any]
) -> None:
    busy = Busy(loop)
    kind(busy, sockets)
    loop.call_soon(way, busy)
    loop.run_forever()
    if busy.poster is not None:
        busy.poster.join(PATIENCE)
    assert busy.heard
    assert busy.turns < TURNS
    for made in busy.made:
        made.close()
    for _ in range(2):  # Time for each to be ended.
        loop.call_soon(loop.stop)
        loop.run_forever()
