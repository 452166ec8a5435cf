"""websockets' server and client, with each other."""

import asyncio
from pathlib import Path

import pytest

from .support import HOST, needed, pattern, serving_tls, trusting_tls

needed("websockets")

from websockets.asyncio.client import connect, unix_connect  # noqa: E402
from websockets.asyncio.server import ServerConnection, broadcast, serve, unix_serve  # noqa: E402
from websockets.exceptions import (  # noqa: E402
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidStatus,
)

over = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
LARGE = 4 * 2**20


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def server(handler=echo, *, secure: bool = False, **options: object) -> serve:
    return serve(handler, HOST, 0, ssl=serving_tls() if secure else None, max_size=2 * LARGE, **options)


def to(running, *, secure: bool = False, **options: object) -> connect:
    port = running.sockets[0].getsockname()[1]
    address = f"{'wss' if secure else 'ws'}://localhost:{port}/"
    return connect(address, ssl=trusting_tls() if secure else None, proxy=None, max_size=2 * LARGE, **options)


@over
def test_many_clients(run, secure: bool) -> None:
    async def main() -> None:
        async with server(secure=secure) as running:

            async def talk(number: int) -> None:
                async with to(running, secure=secure) as ws:
                    for turn in range(30):
                        await ws.send(f"{number} {turn}")
                        assert await ws.recv() == f"{number} {turn}"
                    await ws.send(b"")
                    assert await ws.recv() == b""
                assert (ws.close_code, ws.close_reason) == (1000, "")

            await asyncio.gather(*map(talk, range(40)))

    run(main())


@over
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_large_messages_and_fragments(run, secure: bool, compression: str | None) -> None:
    async def main() -> None:
        async with server(secure=secure, compression=compression) as running:

            async def talk(seed: int) -> None:
                large = pattern(LARGE if compression is None else LARGE // 8, seed)
                async with to(running, secure=secure, compression=compression) as ws:
                    await ws.send(large)
                    assert await ws.recv() == large
                    await ws.send([large[:10], large[10:300_000], large[300_000:]])
                    assert await ws.recv() == large

            await asyncio.gather(*map(talk, range(3)))

    run(main())


@over
def test_a_slow_reader_holds_the_sender_back(run, secure: bool) -> None:
    """The server sends more than all buffers hold: its buffer stays bounded, and it continues when the client reads."""
    count, message = 200, pattern(100_000)
    limit = 64 * 1024

    async def flood(ws: ServerConnection) -> None:
        for number in range(count):
            await ws.send(number.to_bytes(4, "big") + message)
            kept.append(ws.transport.get_write_buffer_size())

    kept: list[int] = []

    async def main() -> None:
        async with server(flood, secure=secure, compression=None, write_limit=limit) as running:
            async with to(running, secure=secure, compression=None, max_queue=1) as ws:
                for number in range(count):
                    assert await ws.recv() == number.to_bytes(4, "big") + message
                with pytest.raises(ConnectionClosedOK):
                    await ws.recv()
        assert len(kept) == count
        assert max(kept) <= limit

    run(main())


@over
def test_shutdown_notifies_every_client(run, secure: bool) -> None:
    async def main() -> None:
        async with server(secure=secure) as running:
            clients = [await to(running, secure=secure) for _ in range(10)]
            for ws in clients:
                await ws.send("still here")
                assert await ws.recv() == "still here"
            assert len(running.connections) == 10
            running.close()
            for ws in clients:
                with pytest.raises(ConnectionClosedOK) as closed:
                    await ws.recv()
                assert closed.value.rcvd.code == 1001
            await running.wait_closed()
            assert running.connections == set()

    run(main())


@over
def test_broadcast_and_pings(run, secure: bool) -> None:
    async def main() -> None:
        async with server(secure=secure) as running:
            clients = [await to(running, secure=secure) for _ in range(10)]
            broadcast(running.connections, "to all")
            assert [await ws.recv() for ws in clients] == ["to all"] * 10
            pongs = [await ws.ping() for ws in clients]
            assert all(delay >= 0 for delay in await asyncio.gather(*pongs))
            for ws in clients:
                await ws.close()

    run(main())


@over
def test_a_connection_that_breaks(run, secure: bool) -> None:
    """One end disappears without a close; the other notices."""

    async def main() -> None:
        lost: asyncio.Future[ConnectionClosedError] = asyncio.get_running_loop().create_future()

        async def handler(ws: ServerConnection) -> None:
            try:
                await ws.recv()
            except ConnectionClosedError as error:
                lost.set_result(error)

        async with server(handler, secure=secure) as running:
            async with to(running, secure=secure) as ws:
                ws.transport.abort()
                assert (await lost).rcvd is None
                with pytest.raises(ConnectionClosedError):
                    await ws.recv()

    run(main())


def test_a_handshake_that_is_refused(run) -> None:
    async def main() -> None:
        def refuse(ws: ServerConnection, request: object) -> object:
            return ws.respond(403, "not you\n")

        async with server(process_request=refuse) as running:
            with pytest.raises(InvalidStatus, match="403"):
                await to(running)

    run(main())


def test_unix_socket(run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "ws.sock")
        async with unix_serve(echo, path), unix_connect(path) as ws:
            await ws.send(pattern(500_000))
            assert await ws.recv() == pattern(500_000)

    run(main())
