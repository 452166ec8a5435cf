"""Echo servers in several threads under clients that half-close, reset, abort, pause and write in every way."""

import asyncio
import random
import socket
import struct
import time
from functools import partial
from typing import Any

from ..run import PATIENCE, Run, Tally, told

LINGER_ZERO = struct.pack("ii", 1, 0)


class Echo(asyncio.Protocol):
    """Sends back what it receives; keeps its side open after the peer's end until all is sent."""

    def __init__(self, ends: "Ends") -> None:
        self.ends = ends
        self.lost = 0
        ends.made += 1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1
        self.ends.lost += 1
        assert self.lost == 1, "connection_lost came twice"


class Ends:
    """How many connections of one server began and got connection_lost(); touched on its loop's thread only."""

    def __init__(self) -> None:
        self.made = self.lost = 0


class BufferedEcho(Echo, asyncio.BufferedProtocol):
    def __init__(self, ends: Ends) -> None:
        super().__init__(ends)
        self.buffer = bytearray(5000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(memoryview(self.buffer)[:nbytes])


async def client(address: tuple[str, int], chance: random.Random, tally: Tally) -> int:
    """One connection; the number of bytes that came back. Every byte is compared."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address, limit=chance.choice([64, 1 << 16]))
    data = chance.randbytes(chance.choice([1, 100, 5000, 70_000, 700_000]))
    way = chance.choice(["half-close", "half-close", "count", "reset", "abort", "leave"])

    async def send() -> None:
        view = memoryview(data)
        position = 0
        while position < len(data):
            size = chance.choice([1, 100, 10_000, 200_000])
            piece = view[position : position + size]
            if chance.random() < 0.3:
                # No empty pieces: asyncio's own loop spins on them.
                pieces: list[Any] = [piece[: len(piece) // 2], bytearray(piece[len(piece) // 2 :])]
                writer.writelines(it for it in pieces if it)
            else:
                writer.write(piece)
            position += size
            if chance.random() < 0.5:
                await writer.drain()
        if way == "half-close":
            writer.write_eof()

    sending = asyncio.ensure_future(send())
    received = bytearray()
    stop_at = len(data) if way in ("half-close", "count") else chance.randrange(len(data) + 1)
    try:
        while len(received) < stop_at:
            part = await reader.read(chance.choice([1, 1000, 1 << 20]) if len(data) < 10_000 else 1 << 18)
            if not part:
                break
            received += part
        if way == "half-close":
            received += await reader.read()
            assert len(received) == len(data), f"{len(received)} of {len(data)} bytes came back"
        await sending
    except ConnectionError as error:
        if way in ("half-close", "count"):
            raise AssertionError(
                f"an orderly connection ({way}) was broken after {len(received)} bytes of {len(data)}"
            ) from error
    finally:
        sending.cancel()
        if way == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            writer.transport.abort()
        elif way == "abort":
            writer.transport.abort()
        else:
            writer.close()
        await asyncio.gather(sending, writer.wait_closed(), return_exceptions=True)
    assert data.startswith(received), "bytes came back changed"
    tally.took(began)
    return len(received)


def scenario(run: Run) -> dict[str, int]:
    loops = [run.new_loop() for _ in range(2)]
    ends = [Ends(), Ends()]
    problems: list[str] = []

    async def listen(kind: type[Echo], ends: Ends) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(lambda: kind(ends), "127.0.0.1", 0)

    connections = [0] * run.threads
    echoed = [0] * run.threads

    def work(me: int, addresses: list[tuple[str, int]]) -> None:
        chance, tally = run.random(me), run.tally()
        loop = run.new_loop()
        loop.set_exception_handler(lambda loop, context: problems.append(told(context)))

        async def storm() -> None:
            while not run.over():
                batch = [
                    client(chance.choice(addresses), random.Random(chance.random()), tally) for _ in range(8)
                ]
                for size in await asyncio.gather(*batch):
                    connections[me] += 1
                    echoed[me] += size

        try:
            loop.run_until_complete(asyncio.wait_for(storm(), run.settings.seconds * 2 + PATIENCE))
        finally:
            loop.close()

    async def close(server: asyncio.Server) -> None:
        server.close()
        # All clients have left; what is still on its way to the server is cut short, where the loop's server can.
        if hasattr(server, "abort_clients"):
            server.abort_clients()
        await asyncio.wait_for(server.wait_closed(), 60)

    with run.serve(loops[0]) as plain, run.serve(loops[1]) as buffered:
        for loop in loops:
            loop.call_soon_threadsafe(
                loop.set_exception_handler, lambda loop, context: problems.append(told(context))
            )
        servers = [plain.wait(listen(Echo, ends[0])), buffered.wait(listen(BufferedEcho, ends[1]))]
        addresses = [server.sockets[0].getsockname() for server in servers]
        try:
            run.in_threads(*(partial(work, n, addresses) for n in range(run.threads)))
        finally:
            plain.wait(close(servers[0]))
            buffered.wait(close(servers[1]))
    assert not problems, problems[:3]
    assert all(it.made == it.lost for it in ends), "a connection never got connection_lost()"
    return {"connections": sum(connections), "bytes": sum(echoed)}
