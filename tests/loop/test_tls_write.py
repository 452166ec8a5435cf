"""From the protocol to a TLS connection: back-pressure, what may be written and when."""

import asyncio
import random

import pytest

from .support import Recorder
from .tls_support import against_peer, linked

HIGH = 512 * 1024


def pattern(size, seed=0):
    return random.Random(seed).randbytes(size)


def test_megabytes_through_a_slow_reader(secure_ours):
    """pause_writing and resume_writing take turns, and ciphertext is made as it can be sent."""
    total, step = 50 << 20, 1 << 20

    class Writer(Recorder):
        full = False

        def pause_writing(self):
            super().pause_writing()
            self.full = True

        def resume_writing(self):
            super().resume_writing()
            self.full = False

    async def main():
        writer = Writer()
        block = pattern(step)
        async with against_peer(writer) as (_, peer):
            written = received = highest = 0
            while received < total:
                while written < total and not writer.full:
                    writer.transport.write(block)
                    written += step
                    highest = max(highest, writer.transport.get_write_buffer_size())
                data = await peer.read_exactly(step // 4)
                start = received % step
                assert data == block[start : start + len(data)]
                received += len(data)
            await writer.until(lambda: not writer.full)
            assert writer.transport.get_write_buffer_size() == 0
            assert highest <= HIGH + step
            turns = [event for event in writer.log if event in ("pause", "resume")]
            assert turns == ["pause", "resume"] * (len(turns) // 2)
            assert len(turns) > 4

    secure_ours.run(main())


def test_limits(secure):
    async def main():
        async with linked() as link:
            transport = link.near
            assert transport.get_write_buffer_limits() == (HIGH // 4, HIGH)
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_limits() == (250, 1000)
            transport.set_write_buffer_limits(low=1000)
            assert transport.get_write_buffer_limits() == (1000, 4000)
            transport.set_write_buffer_limits(high=10, low=10)
            assert transport.get_write_buffer_limits() == (10, 10)
            transport.set_write_buffer_limits()
            assert transport.get_write_buffer_limits() == (HIGH // 4, HIGH)
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
                transport.set_write_buffer_limits(1, 2)
            assert not transport.can_write_eof()
            with pytest.raises(NotImplementedError):
                transport.write_eof()

    secure.run(main())


def test_new_limits_apply_to_what_waits(secure_ours):
    async def main():
        async with against_peer() as (protocol, peer):
            transport = protocol.transport
            transport.set_write_buffer_limits(high=64 << 20)
            transport.write(bytes(16 << 20))
            waiting = transport.get_write_buffer_size()
            assert 0 < waiting < 16 << 20
            assert "pause" not in protocol.log
            transport.set_write_buffer_limits(high=1000)
            assert protocol.log == ["made", "pause"]
            await peer.read_exactly(16 << 20)
            await protocol.event("resume")
            assert protocol.log == ["made", "pause", "resume"]

    secure_ours.run(main())


@pytest.mark.parametrize("size", [10, 4 << 20])
@pytest.mark.parametrize(
    "kind", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "view"]
)
def test_what_is_written_may_change_afterwards(secure_ours, kind, size):
    async def main():
        async with against_peer() as (protocol, peer):
            data = kind(pattern(size))
            protocol.transport.write(data)
            data[:] = bytes(size)
            if isinstance(data, bytearray):
                data.clear()  # BufferError while a view of it exists.
            assert await peer.read_exactly(size) == pattern(size)

    secure_ours.run(main())


def test_what_may_be_written(secure_ours):
    async def main():
        async with against_peer() as (protocol, peer):
            transport = protocol.transport
            for wrong in ("text", 5, None, [b"x"]):
                with pytest.raises(TypeError):
                    transport.write(wrong)
            with pytest.raises(TypeError):
                transport.writelines([b"x", "text"])
            transport.write(b"")
            transport.write(memoryview(b"a-b-c-")[::2])
            transport.write(memoryview(b"d" * 4).cast("I"))
            transport.writelines([b"e", bytearray(b"f"), memoryview(b"g"), b""])
            transport.writelines(iter([]))
            transport.writelines(bytes([byte]) for byte in b"hij")
            assert await peer.read_exactly(13) == b"abcddddefghij"

    secure_ours.run(main())


def test_writes_in_every_callback(secure):
    class Chatty(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"made.")

        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"received.")

        def eof_received(self):
            super().eof_received()
            self.transport.write(b"eof.")

        def connection_lost(self, error):
            self.transport.write(b"lost.")
            super().connection_lost(error)

    async def main():
        async with against_peer(Chatty()) as (protocol, peer):
            await peer.send(peer.encrypted(b"x"))
            await protocol.received(1)
            assert await peer.read_exactly(14) == b"made.received."
            await peer.send(peer.goodbye())
            assert await peer.read_all() == b"eof."
            assert await protocol.lost() is None

    secure.run(main())
    assert secure.contexts == []


@pytest.mark.parametrize("way", ["close", "abort"])
def test_writes_after_the_end_are_lost_and_logged_from_the_sixth_on(secure, caplog, way):
    async def main():
        async with against_peer() as (protocol, _peer):
            getattr(protocol.transport, way)()
            for _ in range(5):
                protocol.transport.write(b"x")
            assert caplog.records == []
            protocol.transport.write(b"x")
            protocol.transport.writelines([b"x"])
            assert [record.getMessage() for record in caplog.records] == ["SSL connection is closed"] * 2

    secure.run(main())


def test_close_sends_what_waits(secure):
    async def main():
        async with against_peer() as (protocol, peer):
            data = pattern(8 << 20)
            protocol.transport.write(data)
            protocol.transport.close()
            assert await peer.read_all() == data
            await peer.send(peer.goodbye())
            assert await protocol.lost() is None

    secure.run(main())


def test_both_sides_write_much_at_once(secure):
    async def main():
        size = 8 << 20
        async with linked() as link:
            link.near.write(pattern(size, 1))
            link.far.write(pattern(size, 2))
            assert await link.server.received(size) == pattern(size, 1)
            assert await link.client.received(size) == pattern(size, 2)
            link.near.close()
            await link.server.lost()
            assert await link.client.lost() is None

    secure.run(main())


def test_streams_drain(secure):
    async def main():
        async with against_peer() as (protocol, peer):
            reader = asyncio.StreamReader()
            below = asyncio.StreamReaderProtocol(reader)
            transport = protocol.transport
            transport.set_protocol(below)
            below.connection_made(transport)
            writer = asyncio.StreamWriter(transport, below, reader, asyncio.get_running_loop())
            receiving = asyncio.create_task(peer.read_exactly(20 << 20))
            for _ in range(20):
                writer.write(bytes(1 << 20))
                await writer.drain()
            assert await receiving == bytes(20 << 20)
            writer.close()
            await peer.read_all()
            await peer.send(peer.goodbye())
            await writer.wait_closed()
            protocol.connection_lost(None)

    secure.run(main())
