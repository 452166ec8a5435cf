"""Descriptors that another thread makes blocking at any moment, beside collections: no loop stops, and every byte arrives."""

import asyncio
import gc
import os
import random
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..run import PATIENCE, NotOffered, Run, Tally

SIZES = [1, 100, 5_000, 70_000, 600_000]


class Sink(asyncio.Protocol):
    """Counts the bytes that come, and sets an event when they are enough."""

    def __init__(self) -> None:
        self.size = self.want = 0
        self.enough: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if self.enough and not self.enough.done() and self.size >= self.want:
            self.enough.set_result(None)

    async def wait_for(self, size: int) -> None:
        if self.size < size:
            self.want, self.enough = size, asyncio.get_running_loop().create_future()
            await self.enough


class Meddler:
    """Makes its descriptors blocking and non-blocking, from a thread of its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: set[int] = set()

    def add(self, *fds: int) -> None:
        with self.lock:
            self.known.update(fds)
            for fd in fds:
                os.set_blocking(fd, True)

    def remove(self, *fds: int) -> None:
        with self.lock:
            self.known.difference_update(fds)

    def meddle(self, run: Run) -> None:
        chance, pause = run.random("meddler"), threading.Event()
        while not run.over():
            with self.lock:
                for fd in self.known:
                    os.set_blocking(fd, chance.random() < 0.8)
            pause.wait(chance.random() / 200)


async def by_sock(loop: Any, meddler: Meddler, chance: random.Random) -> int:
    near, far = socket.socketpair()
    with near, far:
        meddler.add(near.fileno(), far.fileno())
        size = chance.choice(SIZES)
        sending = asyncio.ensure_future(loop.sock_sendall(near, b"x" * size))
        left = size
        while left:
            left -= len(await loop.sock_recv(far, 65536))
        await sending
        meddler.remove(near.fileno(), far.fileno())
    return size


async def by_accept(loop: Any, meddler: Meddler, chance: random.Random) -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meddler.add(listener.fileno())
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await asyncio.sleep(0)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = await accepting
            accepted.close()
        meddler.remove(listener.fileno())
    return 1


async def by_transport(loop: Any, meddler: Meddler, chance: random.Random) -> int:
    near, far = socket.socketpair()
    one, _ = await loop.create_connection(Sink, sock=near)
    two, sink = await loop.create_connection(Sink, sock=far)
    fds = (near.fileno(), far.fileno())
    meddler.add(*fds)
    sizes = [chance.choice(SIZES) for _ in range(3)]
    for size in sizes:
        one.write(b"x" * size)
    await sink.wait_for(sum(sizes))
    meddler.remove(*fds)
    one.abort()
    two.abort()
    await asyncio.sleep(0)
    return sum(sizes)


def named_pipe() -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/fifo"
        os.mkfifo(path)
        read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return read, os.open(path, os.O_WRONLY)


async def by_pipe(
    make: Callable[[], tuple[int, int]], loop: Any, meddler: Meddler, chance: random.Random
) -> int:
    read, write = make()
    source, sink = await loop.connect_read_pipe(Sink, os.fdopen(read, "rb", 0))
    target, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
    meddler.add(read, write)
    sizes = [chance.choice(SIZES) for _ in range(3)]
    for size in sizes:
        target.write(b"x" * size)
    await sink.wait_for(sum(sizes))
    meddler.remove(read, write)
    target.abort()
    source.close()
    await asyncio.sleep(0)
    return sum(sizes)


async def by_datagrams(loop: Any, meddler: Meddler, chance: random.Random) -> int:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        meddler.add(near.fileno(), far.fileno())
        receiving = asyncio.ensure_future(loop.sock_recvfrom(far, 100))
        await asyncio.sleep(0)
        near.send(b"x" * 100)
        size = len((await receiving)[0])
        meddler.remove(near.fileno(), far.fileno())
    return size


def scenario(run: Run) -> dict[str, int]:
    if run.native("TokioLoop") is None:
        raise NotOffered("that a blocking descriptor keeps no loop waiting is promised by tokioloop only")
    ways: list[Callable[[Any, Meddler, random.Random], Coroutine[Any, Any, int]]] = [
        by_sock,
        by_accept,
        by_transport,
        by_datagrams,
        partial(by_pipe, os.pipe),
        partial(by_pipe, named_pipe),
    ]
    meddler, moved, collected = Meddler(), 0, 0
    adding = threading.Lock()

    async def move(chance: random.Random, tally: Tally) -> int:
        loop, size = asyncio.get_running_loop(), 0
        while not run.over():
            async with asyncio.timeout(PATIENCE):
                size += await chance.choice(ways)(loop, meddler, chance)
            tally.ops += 1
        return size

    def work(me: int) -> None:
        nonlocal moved
        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            size = runner.run(move(run.random(me), run.tally()))
        with adding:
            moved += size

    def collect() -> None:
        nonlocal collected
        pause, chance = threading.Event(), run.random("collector")
        while not run.over():
            gc.collect()
            collected += 1
            pause.wait(chance.random() / 100)

    run.in_threads(collect, partial(meddler.meddle, run), *(partial(work, n) for n in range(run.threads)))
    return {"bytes": moved, "collections": collected}
