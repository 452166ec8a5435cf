"""anyio on its asyncio backend: task groups, cancel scopes, streams, datagrams, processes, threads."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .support import HOST, PATIENCE, needed, pattern, serving_tls, trusting_tls

anyio = needed("anyio")

from anyio import from_thread, to_thread  # noqa: E402
from anyio.streams.stapled import MultiListener  # noqa: E402
from anyio.streams.tls import TLSListener, TLSStream  # noqa: E402


@pytest.fixture
def start(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Callable[..., Any]:
    """`anyio.run` on the loop under test."""

    def start(main: Callable[..., Any]) -> Any:
        async def in_time() -> Any:
            with anyio.fail_after(PATIENCE):
                return await main()

        return anyio.run(in_time, backend="asyncio", backend_options={"loop_factory": loop_factory})

    return start


def test_it_is_the_loop_under_test(start, loop_factory) -> None:
    async def main() -> type:
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert start(main) is type(runner.get_loop())


def test_task_groups(start) -> None:
    async def main() -> None:
        done: list[int] = []

        async def work(number: int, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
            task_status.started(number)
            await anyio.lowlevel.checkpoint()
            done.append(number)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(work, number)
            assert await group.start(work, 100) == 100
        assert sorted(done) == list(range(101))

        async def fail() -> None:
            raise LookupError("on purpose")

        async def wait() -> None:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                done.append(-1)
                raise

        async def both() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(fail)

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert [str(error) for error in caught.value.exceptions] == ["on purpose"]
        assert done[-1] == -1

    start(main)


def test_cancel_scopes(start) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0):
                await anyio.sleep_forever()
        reached = []
        with anyio.CancelScope() as outer:
            with anyio.CancelScope(shield=True):
                outer.cancel()
                await anyio.lowlevel.checkpoint()
                reached.append("shielded")
            await anyio.lowlevel.checkpoint()
            reached.append("not here")
        assert reached == ["shielded"]
        assert outer.cancelled_caught

    start(main)


def test_synchronization_and_memory_streams(start) -> None:
    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[int](3)
        limiter, seen = anyio.CapacityLimiter(2), []

        async def consume(receive: Any) -> None:
            async with receive:
                async for item in receive:
                    async with limiter:
                        assert limiter.borrowed_tokens <= 2
                        await anyio.lowlevel.checkpoint()
                        seen.append(item)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(consume, receive.clone())
            receive.close()
            async with send:
                for number in range(200):
                    await send.send(number)
        assert sorted(seen) == list(range(200))

    start(main)


async def echo(stream: Any) -> None:
    async with stream:
        try:
            async for data in stream:
                await stream.send(data)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass


async def send_and_receive(stream: Any, data: bytes) -> None:
    received = bytearray()

    async def receive() -> None:
        while len(received) < len(data):
            received.extend(await stream.receive())

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await stream.send(data)
    assert received == data


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_tcp(start, secure: bool) -> None:
    async def main() -> None:
        listener: Any = await anyio.create_tcp_listener(local_host=HOST, local_port=0)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        if secure:
            listener = TLSListener(listener, serving_tls())

        async def client(seed: int) -> None:
            options = {"tls": True, "ssl_context": trusting_tls()} if secure else {}
            async with await anyio.connect_tcp("localhost", port, **options) as stream:
                assert isinstance(stream, TLSStream) is secure
                assert stream.extra(anyio.abc.SocketAttribute.remote_port) == port
                await send_and_receive(stream, pattern(1_000_001, seed))

        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with anyio.create_task_group() as clients:
                for seed in range(10):
                    clients.start_soon(client, seed)
            group.cancel_scope.cancel()
        with pytest.raises(OSError, match="All connection attempts failed"):
            await anyio.connect_tcp(HOST, port)

    start(main)


def test_half_close_and_unix_streams(start, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "stream.sock"

        async def count(stream: Any) -> None:
            async with stream:
                total = 0
                async for data in stream:
                    total += len(data)
                await stream.send(str(total).encode())

        listeners = [
            await anyio.create_unix_listener(path),
            *(await anyio.create_tcp_listener(local_host=HOST)).listeners,
        ]
        port = listeners[1].extra(anyio.abc.SocketAttribute.local_port)
        async with MultiListener(listeners) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, count)
            for connect in partial(anyio.connect_unix, path), partial(anyio.connect_tcp, HOST, port):
                async with await connect() as stream:
                    await stream.send(pattern(700_001))
                    await stream.send_eof()
                    assert await stream.receive() == b"700001"
                    with pytest.raises(anyio.EndOfStream):
                        await stream.receive()
            group.cancel_scope.cancel()

    start(main)


def test_udp(start) -> None:
    async def main() -> None:
        async with (
            await anyio.create_udp_socket(family=socket.AF_INET, local_host=HOST) as server,
            anyio.create_task_group() as group,
        ):
            port = server.extra(anyio.abc.SocketAttribute.local_port)

            async def answer() -> None:
                async for packet, (host, port) in server:
                    await server.sendto(packet.upper(), host, port)

            async def ask(number: int) -> None:
                async with await anyio.create_connected_udp_socket(HOST, port) as client:
                    for turn in range(20):
                        await client.send(f"packet {number} {turn}".encode())
                        assert await client.receive() == f"PACKET {number} {turn}".encode()

            group.start_soon(answer)
            async with anyio.create_task_group() as clients:
                for number in range(10):
                    clients.start_soon(ask, number)
            group.cancel_scope.cancel()

    start(main)


def test_unix_datagrams(start, tmp_path: Path) -> None:
    async def main() -> None:
        near, far = tmp_path / "near", tmp_path / "far"
        async with (
            await anyio.create_unix_datagram_socket(local_path=far) as server,
            await anyio.create_connected_unix_datagram_socket(far, local_path=near) as client,
        ):
            for number in range(50):
                await client.send(b"%d" % number)
                assert await server.receive() == (b"%d" % number, str(near))
                await server.sendto(b"got %d" % number, str(near))
                assert await client.receive() == b"got %d" % number

    start(main)


def test_processes(start) -> None:
    shout = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(len(sys.argv) - 1)"

    async def main() -> None:
        async def run_one(number: int) -> None:
            words = f"process {number} " * 20_000
            command = [sys.executable, "-c", shout, *["x"] * number]
            result = await anyio.run_process(command, input=words.encode(), check=False)
            assert (result.returncode, result.stdout.decode()) == (number, words.upper())

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(run_one, number)

        async with await anyio.open_process([sys.executable, "-c", shout]) as process:
            await process.stdin.send(b"by hand")
            await process.stdin.aclose()
            assert b"".join([data async for data in process.stdout]) == b"BY HAND"
            assert await process.wait() == 0

        with anyio.CancelScope() as scope:
            # It does not read its input, whose end would end it as well.
            async with await anyio.open_process(["sleep", "3600"]) as process:
                scope.cancel()
                await process.wait()
        assert process.returncode == -9

    start(main)


def test_threads(start) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def here(number: int) -> int:
            assert asyncio.get_running_loop() is loop
            await anyio.lowlevel.checkpoint()
            return number * number

        def there(number: int) -> int:
            assert from_thread.run_sync(lambda: asyncio.get_running_loop() is loop)
            return from_thread.run(here, number)

        squares: dict[int, int] = {}

        async def work(number: int) -> None:
            squares[number] = await to_thread.run_sync(there, number)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(work, number)
        assert squares == {number: number * number for number in range(200)}
        with pytest.raises(LookupError, match="^from there$"):
            await to_thread.run_sync(partial(raising, LookupError("from there")))

    start(main)


def raising(error: Exception) -> None:
    raise error


def test_a_portal_from_a_thread_without_a_loop(loop_factory) -> None:
    options = {"loop_factory": loop_factory}
    with from_thread.start_blocking_portal("asyncio", options) as portal:

        async def main() -> str:
            await anyio.sleep(0)
            return type(asyncio.get_running_loop()).__name__

        assert portal.call(main) == portal.start_task_soon(main).result(PATIENCE)


def test_signals(start) -> None:
    async def main() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR1)
            seen = [await anext(signals), await anext(signals)]
        assert set(seen) == {signal.SIGUSR1, signal.SIGUSR2}

    start(main)


def test_files(start, tmp_path: Path) -> None:
    async def main() -> None:
        path = anyio.Path(tmp_path / "file")
        await path.write_bytes(pattern(500_000))
        async with await anyio.open_file(path, "rb") as file:
            assert await file.read() == pattern(500_000)

    start(main)
