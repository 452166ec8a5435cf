"""TLS connections made, used, upgraded, half-closed, reset and broken off in the handshake; every byte is compared."""

import asyncio
import gc
import os
import random
import socket
import ssl
import time
from functools import lru_cache, partial
from pathlib import Path

from ..run import PATIENCE, Run, Tally, told
from .echo import LINGER_ZERO

CERTIFICATES = Path(__file__).parents[2] / "tests" / "certificates"
Address = tuple[str, int]


@lru_cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the clients' context, made once."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    client = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    client.check_hostname = False
    return server, client


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes until the other side's end; broken connections are the clients' doing."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except (ConnectionError, ssl.SSLError, TimeoutError):
        writer.transport.abort()


async def _upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same, after one line in plain text."""
    try:
        if not await reader.readline():
            writer.close()
            return
        writer.write(b"go\n")
        await writer.start_tls(contexts()[0])
    except (ConnectionError, ssl.SSLError):
        writer.transport.abort()
        return
    await _echo(reader, writer)


def _break_off(address: Address, chance: random.Random) -> None:
    """A connection that never becomes TLS: nothing, part of a greeting or noise, then an end or a reset."""
    with socket.create_connection(address) as sock:
        outgoing = ssl.MemoryBIO()
        client = contexts()[1].wrap_bio(ssl.MemoryBIO(), outgoing)
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            hello = outgoing.read()
        data = chance.choice([b"", hello[: chance.randrange(len(hello))], hello, chance.randbytes(300)])
        sock.sendall(data)
        if chance.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)


async def _client(addresses: list[Address], chance: random.Random, tally: Tally) -> int:
    """One connection; the number of bytes that came back."""
    began = time.perf_counter()
    way = chance.choice(["orderly", "orderly", "upgrade", "abort", "reset", "half-close"])
    if way == "upgrade":
        reader, writer = await asyncio.open_connection(*addresses[1])
        writer.write(b"please\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(contexts()[1])
    else:
        reader, writer = await asyncio.open_connection(*addresses[0], ssl=contexts()[1])
    data = chance.randbytes(chance.choice([1, 100, 5000, 70_000]))
    part = len(data) if way in ("orderly", "upgrade") else chance.randrange(len(data) + 1)
    writer.write(data)
    received = await reader.readexactly(part)
    assert received == data[:part], "bytes came back changed"
    if way == "half-close":
        # An end below TLS, without close_notify: the server must end the connection, and neither side may hang.
        # By a descriptor of its own, since not every loop's transport gives a socket that has shutdown().
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)
        try:
            rest = await reader.read()
            assert data[part:].startswith(rest), "bytes came back changed"
        except (ConnectionError, ssl.SSLError):
            pass
        writer.transport.abort()
    elif way == "reset":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        writer.transport.abort()
    elif way == "abort":
        writer.transport.abort()
    else:
        writer.close()
    try:
        await writer.wait_closed()
    except (ConnectionError, ssl.SSLError):
        assert way not in ("orderly", "upgrade"), "an orderly end failed"
    tally.took(began)
    return len(received)


def scenario(run: Run) -> dict[str, int]:
    contexts()
    loops = [run.new_loop() for _ in range(2)]
    problems: list[str] = []
    counts = [[0, 0, 0] for _ in range(run.threads)]

    def work(me: int, addresses: list[Address]) -> None:
        chance, tally = run.random(me), run.tally()

        async def storm() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: problems.append(f"client: {told(context)}")
            )
            while not run.over():
                batch = [_client(addresses, random.Random(chance.random()), tally) for _ in range(6)]
                for size in await asyncio.gather(*batch):
                    counts[me][0] += 1
                    counts[me][1] += size
                for _ in range(3):
                    _break_off(chance.choice(addresses), chance)
                    counts[me][2] += 1

        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(asyncio.wait_for(storm(), run.settings.seconds + 2 * PATIENCE))

    async def listen(tls: bool) -> asyncio.Server:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: problems.append(f"server: {told(context)}")
        )
        if tls:
            return await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=contexts()[0])
        return await asyncio.start_server(_upgrade, "127.0.0.1", 0)

    async def close(server: asyncio.Server) -> None:
        server.close()
        async with asyncio.timeout(PATIENCE):
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
            await server.wait_closed()
        # Warnings about garbage come now.
        gc.collect()

    with run.serve(loops[0]) as first, run.serve(loops[1]) as second:
        servers = [first.wait(listen(True)), second.wait(listen(False))]
        addresses = [server.sockets[0].getsockname() for server in servers]
        run.in_threads(*(partial(work, n, addresses) for n in range(run.threads)))
        # Each served client has ended its connection, so all that is left ends now, without help.
        first.wait(close(servers[0]))
        second.wait(close(servers[1]))
    assert not problems, problems[:3]
    connections, size, broken = (sum(column) for column in zip(*counts, strict=True))
    return {"connections": connections, "bytes": size, "broken off": broken}
