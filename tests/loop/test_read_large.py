"""Streams with much data at a time: bytes are received into the object that the protocol gets."""

import asyncio
import contextlib
import random
import socket

import pytest

import tokioloop

from .support import BufferedRecorder, Recorder, unix_pair

#: A read of at least this many bytes is followed by large ones (src/driver/mod.rs, LARGE).
LARGE = 16 * 1024
COUNT = 16


def pattern(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def grow_large(protocol: Recorder, far: socket.socket) -> None:
    """One large read, after which the size is asked for before the next."""
    far.send(bytes(LARGE))
    await protocol.received(LARGE)
    protocol.data.clear()
    protocol.log.clear()


@pytest.mark.parametrize("seed", range(5))
def test_sizes_of_all_kinds_arrive_in_order(loop, run, link, seed):
    async def main():
        rng = random.Random(seed)
        protocol = Recorder()
        _, far = await link(protocol)
        sent = bytearray()
        for _ in range(60):
            part = rng.randbytes(rng.choice([1, 100, LARGE - 1, LARGE, LARGE + 1, 70_000, 300_000]))
            sent += part
            await loop.sock_sendall(far, part)
            if rng.random() < 0.5:
                await protocol.received(len(sent))
        assert await protocol.received(len(sent)) == sent

    run(main())


def test_received_data_is_exact_bytes_of_the_received_size(loop, run, link):
    async def main():
        seen = []
        protocol = Recorder()
        _, far = await link(protocol)
        await grow_large(protocol, far)
        received = protocol.data_received
        protocol.data_received = lambda data: (seen.append(data), received(data))
        data = pattern(50_000)
        await loop.sock_sendall(far, data)
        assert await protocol.received(len(data)) == data
        assert all(type(part) is bytes for part in seen)
        assert b"".join(seen) == data

    run(main())


def test_the_end_and_what_came_before_it(loop, run, link):
    async def main():
        protocol = Recorder()
        _, far = await link(protocol)
        await grow_large(protocol, far)
        data = pattern(100_000)
        await loop.sock_sendall(far, data)
        far.shutdown(socket.SHUT_WR)
        assert await protocol.lost() is None
        assert protocol.data == data
        assert protocol.log.count("eof") == 1

    run(main())


def test_paused_in_data_received(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        await grow_large(protocol, far)
        received = protocol.data_received

        def pause(data):
            received(data)
            transport.pause_reading()
            loop.call_soon(transport.resume_reading)

        protocol.data_received = pause
        data = pattern(2_000_000)
        sending = asyncio.create_task(loop.sock_sendall(far, data))
        assert await protocol.received(len(data)) == data
        await sending

    run(main())


def test_paused_before_a_large_read(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        await grow_large(protocol, far)
        transport.pause_reading()
        data = pattern(40_000)
        await loop.sock_sendall(far, data)
        transport.resume_reading()
        assert await protocol.received(len(data)) == data

    run(main())


def test_another_protocol_in_the_middle(loop, run, link):
    async def main():
        first, second = Recorder(), BufferedRecorder(5000)
        transport, far = await link(first)
        await grow_large(first, far)
        received = first.data_received

        def switch(data):
            received(data)
            transport.set_protocol(second)

        first.data_received = switch
        data = pattern(1_000_000)
        sending = asyncio.create_task(loop.sock_sendall(far, data))
        await first.until(lambda: first.data)
        rest = len(data) - len(first.data)
        assert first.data + await second.received(rest) == data
        await sending

    run(main())


def test_passed_descriptors_end_a_large_read_but_not_the_stream(loop, run):
    async def main():
        near, far = unix_pair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        await grow_large(protocol, far)
        transport.pause_reading()
        parts = [pattern(20_000, 1), pattern(20_000, 2), pattern(20_000, 3)]
        far.send(parts[0])
        socket.send_fds(far, [parts[1]], [far.fileno()])
        far.send(parts[2])
        transport.resume_reading()
        assert await protocol.received(60_000) == b"".join(parts)
        transport.abort()
        far.close()

    run(main())


def test_data_received_that_fails_closes(loop, run, link, contexts):
    async def main():
        protocol = Recorder()
        _, far = await link(protocol)
        await grow_large(protocol, far)

        def fail(data):
            raise ZeroDivisionError

        protocol.data_received = fail
        far.send(pattern(20_000))
        assert isinstance(await protocol.lost(), ZeroDivisionError)
        assert contexts[0]["message"] == "Fatal error: protocol.data_received() call failed."

    run(main())


@pytest.mark.parametrize("way", ["read", "readexactly", "readuntil"])
def test_native_streams_get_it_whole(loop, run, way):
    size, rounds = 100_000, 20

    async def serve(reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def take(reader):
        if way == "readexactly":
            return await reader.readexactly(size)
        if way == "readuntil":
            return await reader.readuntil(b"\n")
        data = bytearray()
        while len(data) < size:
            data += await reader.read(size - len(data))
        return bytes(data)

    async def main():
        server = await tokioloop.start_server(serve, "127.0.0.1", 0)
        reader, writer = await tokioloop.open_connection(*server.sockets[0].getsockname(), limit=1 << 20)
        for seed in range(rounds):
            data = pattern(size, seed).replace(b"\n", b" ")[:-1] + b"\n"
            writer.write(data)
            assert await take(reader) == data
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


@contextlib.asynccontextmanager
async def full(loop, received):
    """Sixteen paused streams, each with a large read before it, that resume together."""
    transports, fars = [], []
    for _ in range(COUNT):
        near, far = unix_pair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda protocol=protocol: protocol, sock=near)
        await grow_large(protocol, far)
        protocol.data_received = received
        transport.pause_reading()
        await loop.sock_sendall(far, pattern(100_000))
        transports.append(transport)
        fars.append(far)
    for transport in transports:
        transport.resume_reading()
    yield
    for transport, far in zip(transports, fars, strict=True):
        transport.abort()
        far.close()


def test_readers_do_not_wait_until_all_streams_are_read(loop, run):
    """A turn receives a bounded amount, then runs the callbacks that became ready."""

    async def main():
        log = []
        all_ran = loop.create_future()

        def ran():
            log.append("ran")
            if log.count("ran") == COUNT:
                all_ran.set_result(None)

        def received(data):
            log.append("received")
            loop.call_soon(ran)

        async with full(loop, received):
            await all_ran
        assert "ran" in log[: COUNT - 1]

    run(main())


def test_callbacks_that_are_ready_do_not_cut_the_reading_short(loop, run):
    """Otherwise, with callbacks in every turn, all streams together would get only that much a turn."""

    async def main():
        log = []
        async with full(loop, lambda data: log.append("received")):
            while log.count("received") < COUNT:
                # The callback scheduled here is ready when the next turn reads.
                log.append("turn")
                await asyncio.sleep(0)
        first = log.index("received")
        assert log[first : first + COUNT] == ["received"] * COUNT

    run(main())


def test_keyboard_interrupt_in_get_buffer_loses_nothing(loop, run, link):
    class Interrupted(BufferedRecorder):
        asked = 0

        def get_buffer(self, sizehint):
            self.asked += 1
            if self.asked == 1:
                raise KeyboardInterrupt
            return self.buffer

    protocol = Interrupted()

    async def main():
        _, far = await link(protocol)
        far.send(b"data")
        with contextlib.suppress(asyncio.CancelledError):
            return await protocol.received(4)

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert run(protocol.received(4)) == b"data"
