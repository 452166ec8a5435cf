"""Objects that a loop, an executor or a pool keeps for later are alive for the collector at every moment, in every thread."""

import asyncio
import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tokioloop

from ..loop.support import PATIENCE

ROUNDS = 15
AT_ONCE = 8


class Door:
    """Its finaliser closes it. It is in a cycle, so that only the collector frees it."""

    def __init__(self) -> None:
        self.open = True
        self.itself = self

    def __del__(self) -> None:
        self.open = False

    def use(self, *_: Any) -> bool:
        return self.open

    async def use_later(self) -> bool:
        await asyncio.sleep(0)
        return self.open

    async def use_after(self, awaitable: Awaitable[Any]) -> bool:
        await awaitable
        return self.open


@pytest.fixture(scope="module")
def heap() -> list[Any]:
    """So many objects that a collection takes a while between its two visits of one."""
    return [([number],) + (None,) * 20 for number in range(60_000)]


class Collections:
    """A thread that collects once for each request, beside the test's work."""

    def __init__(self) -> None:
        self._asked = threading.Semaphore(0)
        self._done = False
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self) -> None:
        while True:
            self._asked.acquire()
            if self._done:
                return
            gc.collect()

    def ask(self) -> None:
        self._asked.release()

    def end(self) -> None:
        self._done = True
        self.ask()
        self._thread.join(PATIENCE)


@pytest.fixture
def collections(heap: list[Any]) -> Iterator[Collections]:
    collections = Collections()
    yield collections
    collections.end()


@pytest.fixture
def other() -> Iterator[tokioloop.TokioLoop]:
    """A loop that runs in a thread of its own."""
    loop = tokioloop.TokioLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


Use = Callable[[], Awaitable[bool]]


async def all_open(use: Use, collections: Collections | None = None) -> None:
    """Many at once, begun before a collection and ended after it: a collection by this thread or by another one."""
    for _ in range(ROUNDS):
        if collections is None:
            answers = [asyncio.ensure_future(use()) for _ in range(AT_ONCE)]
            gc.collect()
        else:
            collections.ask()
            answers = [asyncio.ensure_future(use()) for _ in range(AT_ONCE)]
        assert await asyncio.gather(*answers) == [True] * AT_ONCE


@pytest.fixture
def slow_core() -> Iterator[int]:
    """A core that other processes keep busy: a thread that is woken there may run at any moment, even in the middle of a collection."""
    core = max(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(2)]
    yield core
    for process in busy:
        process.kill()
        process.wait()


@pytest.mark.parametrize("wrap", [lambda use: use, functools.partial], ids=["method", "partial"])
def test_an_executors_argument(heap: list[Any], slow_core: int, wrap: Any) -> None:
    """A thread that waits for a job is detached, and no collection stops it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        threads = min(32, (os.process_cpu_count() or 1) + 4)
        all_there = threading.Barrier(threads)

        def slow_down() -> None:
            os.sched_setaffinity(0, {slow_core})
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
            all_there.wait(PATIENCE)

        await asyncio.gather(*[loop.run_in_executor(None, slow_down) for _ in range(threads)])
        await all_open(lambda: loop.run_in_executor(None, wrap(Door().use)))

    # The collector visits objects of a new thread first.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(tokioloop.run, main()).result()


def test_the_result_of_an_executors_function(collections: Collections) -> None:
    async def made() -> bool:
        door = await asyncio.get_running_loop().run_in_executor(None, Door)
        return door.use()

    tokioloop.run(all_open(made, collections))


def test_arguments_of_a_pools_job(heap: list[Any]) -> None:
    with tokioloop.WorkerPool(threads=2) as pool:

        async def main() -> None:
            await all_open(lambda: asyncio.wrap_future(pool.submit(Door().use)))
            await all_open(lambda: asyncio.wrap_future(pool.submit(Door().use, worker=1)))
            await all_open(lambda: asyncio.wrap_future(pool.submit(Door().use_later)))
            for _ in range(ROUNDS):
                jobs = pool.map(Door.use, [Door() for _ in range(AT_ONCE)])
                gc.collect()
                assert list(jobs) == [True] * AT_ONCE

        tokioloop.run(main())


def test_the_result_of_a_pools_job(collections: Collections) -> None:
    with tokioloop.WorkerPool(threads=2) as pool:

        async def made() -> bool:
            return (await pool.run(Door)).use()

        tokioloop.run(all_open(made, collections))


def test_a_coroutine_for_another_loop(heap: list[Any], other: tokioloop.TokioLoop) -> None:
    async def main() -> None:
        await all_open(lambda: tokioloop.run_on(other, Door().use_later()))

    tokioloop.run(main())


def test_posts(heap: list[Any], other: tokioloop.TokioLoop) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def answered() -> asyncio.Future[bool]:
            future = loop.create_future()

            def answer(door: Door) -> None:
                loop.call_soon_threadsafe(future.set_result, door.use())

            other.call_soon_threadsafe(answer, Door())
            return future

        await all_open(answered)

    tokioloop.run(main())


def test_handlers_of_signals(collections: Collections) -> None:
    def answer(came: asyncio.Future[bool], door: Door) -> None:
        came.set_result(door.use())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ROUNDS):
            collections.ask()
            came: asyncio.Future[bool] = loop.create_future()
            door = Door()
            loop.add_signal_handler(signal.SIGUSR1, functools.partial(answer, came, door))
            del door
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await came
            loop.remove_signal_handler(signal.SIGUSR1)

    tokioloop.run(main())


class Greeter(asyncio.Protocol):
    """Answers whether the object of its factory is still open."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def connection_made(self, transport: Any) -> None:
        transport.write(b"y" if self.door.use() else b"n")
        transport.close()


async def greeting(address: tuple[str, int]) -> bool:
    reader, writer = await asyncio.open_connection(*address)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer == b"y"


def test_factories_of_servers_and_readers(collections: Collections) -> None:
    async def main() -> None:
        door = Door()
        server = await asyncio.get_running_loop().create_server(lambda: Greeter(door), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await all_open(lambda: greeting(address), collections)
        await all_open(lambda: Door().use_after(greeting(address)), collections)
        server.close()
        await server.wait_closed()

    tokioloop.run(main())


@pytest.mark.parametrize("accept", ["shared", "balance", "reuseport"])
def test_connections_handed_to_the_loops_of_a_pool(collections: Collections, accept: Any) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door = Door()
        await reader.readline()
        writer.write(b"y" if door.use() else b"n")
        writer.close()

    async def asked(address: tuple[str, int]) -> bool:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"?\n")
        answer = await reader.read()
        writer.close()
        return answer == b"y"

    async def main() -> None:
        async with tokioloop.WorkerPool(threads=2) as pool:
            server = await pool.serve(client, "127.0.0.1", 0, accept=accept)
            address = server.sockets[0].getsockname()
            await all_open(lambda: asked(address), collections)
            server.close()
            await server.wait_closed()

    tokioloop.run(main())


def test_callers_that_wait_for_a_name(collections: Collections) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await all_open(lambda: Door().use_after(loop.getaddrinfo("127.0.0.1", 80)), collections)

    tokioloop.run(main())


def test_callers_that_send_a_file(collections: Collections, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)

    async def send(path: Path) -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        with near, far, path.open("rb") as file:
            sent = asyncio.ensure_future(loop.sock_sendfile(near, file))
            left = 300_000
            while left:
                left -= len(await loop.sock_recv(far, 65536))
            await sent

    tokioloop.run(all_open(lambda: Door().use_after(send(path)), collections))


def test_callers_that_wait_for_a_child(collections: Collections) -> None:
    async def child() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "print(1)", stdout=asyncio.subprocess.PIPE
        )
        assert (await process.communicate())[0] == b"1\n"

    async def main() -> None:
        for _ in range(3):
            collections.ask()
            assert await Door().use_after(child())

    tokioloop.run(main())
