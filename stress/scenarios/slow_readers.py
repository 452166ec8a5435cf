"""Writers far faster than their readers: writing pauses and resumes by the water marks, memory stays bounded, no byte is lost."""

import asyncio
import random
import socket
import struct
import time
from functools import partial
from typing import Any

from ..run import PATIENCE, Run, Tally, told

# The stream repeats this; of prime length, so that no displaced piece fits by chance.
PATTERN = random.Random(65521).randbytes(65521)
HIGH, LOW = 50_000, 10_000
CHUNK = 16_384


def expected(start: int, size: int) -> bytes:
    """The bytes at *start* of every stream."""
    first = start % len(PATTERN)
    return (PATTERN[first:] + PATTERN * (size // len(PATTERN) + 1))[:size]


class Fast(asyncio.Protocol):
    """Sends as many bytes as it is asked to, whenever it may write."""

    def __init__(self, book: "Book") -> None:
        self.book = book
        self.paused = False
        self.asked = b""
        self.sent = self.wanted = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(HIGH, LOW)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)

    def data_received(self, data: bytes) -> None:
        self.asked += data
        if len(self.asked) == 8:
            (self.wanted,) = struct.unpack("!q", self.asked)
            self.go_on()

    def go_on(self) -> None:
        while not self.paused and self.sent < self.wanted and not self.transport.is_closing():
            size = min(CHUNK, self.wanted - self.sent)
            self.transport.write(expected(self.sent, size))
            self.sent += size
            self.book.most = max(self.book.most, self.transport.get_write_buffer_size())
        if self.sent == self.wanted:
            self.transport.close()

    def pause_writing(self) -> None:
        assert not self.paused, "paused twice"
        assert self.transport.get_write_buffer_size() > HIGH, "paused below the high mark"
        self.paused = True
        self.book.pauses += 1

    def resume_writing(self) -> None:
        assert self.paused, "resumed twice"
        assert self.transport.get_write_buffer_size() <= LOW, "resumed above the low mark"
        self.paused = False
        self.book.resumes += 1
        self.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.book.ended += 1
        if self.sent < self.wanted:
            self.book.cut += 1


class Book:
    """What the server's side saw; its loop's thread writes it."""

    def __init__(self) -> None:
        self.pauses = self.resumes = self.ended = self.cut = self.most = 0


async def _reader(address: tuple[str, int], chance: random.Random, tally: Tally, leave: bool) -> int:
    """Read a stream slowly, by a small window; *leave* it in the middle. Returns the bytes compared."""
    loop = asyncio.get_running_loop()
    size = chance.choice([1000, 300_000, 2_000_000])
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=chance.choice([1024, 16_384]))
        began = time.perf_counter()
        writer.write(struct.pack("!q", size))
        got, until = 0, size // 2 if leave else size
        while got < until:
            data = await reader.read(chance.choice([100, 5000, 50_000]))
            assert data, f"the stream ended after {got} of {size} bytes"
            assert data == expected(got, len(data)), f"wrong bytes at {got}"
            got += len(data)
            if chance.random() < 0.1:
                await asyncio.sleep(chance.random() / 200)
        if leave:
            writer.transport.abort()
        else:
            assert await reader.read() == b"", "more came than was asked for"
            writer.close()
        await writer.wait_closed()
    tally.took(began)
    return got


def scenario(run: Run) -> dict[str, int]:
    book = Book()
    counts = [[0, 0, 0] for _ in range(run.threads)]
    problems: list[str] = []

    def work(me: int, address: tuple[str, int]) -> None:
        chance, tally = run.random(me), run.tally()

        async def storm() -> None:
            while not run.over():
                leave = [chance.random() < 0.2 for _ in range(8)]
                sizes = await asyncio.gather(
                    *(_reader(address, random.Random(chance.random()), tally, it) for it in leave)
                )
                counts[me][0] += len(sizes)
                counts[me][1] += sum(sizes)
                counts[me][2] += sum(leave)

        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(asyncio.wait_for(storm(), run.settings.seconds + 2 * PATIENCE))

    async def listen() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: problems.append(told(context)))
        return await loop.create_server(lambda: Fast(book), "127.0.0.1", 0)

    async def close(server: asyncio.Server) -> None:
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)

    with run.serve(run.new_loop()) as running:
        server = running.wait(listen())
        run.in_threads(*(partial(work, n, server.sockets[0].getsockname()) for n in range(run.threads)))
        running.wait(close(server))
    connections, size, left = (sum(column) for column in zip(*counts, strict=True))
    assert not problems, problems[:3]
    assert book.ended == connections, f"{connections} connections, {book.ended} ended"
    assert book.cut <= left, f"{book.cut} streams were cut, {left} readers left"
    # Some streams are so short that they fit into the kernel's buffers.
    assert book.pauses or connections < 50, "no writer was ever paused"
    # A connection that is lost stays paused, so these need not be equal.
    assert 0 <= book.pauses - book.resumes <= left
    assert book.most <= HIGH + CHUNK, f"{book.most} bytes waited, the high mark is {HIGH}"
    return {"connections": connections, "bytes": size, "pauses": book.pauses, "left": left, "most": book.most}
