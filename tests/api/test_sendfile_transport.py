"""sendfile through a transport: its writes, its reading and its end meanwhile."""

import asyncio
import io
import socket

import pytest

from .sendfile_support import (
    DATA,
    SIZE,
    connect,
    drain,
    receive_all,
    receive_exactly,
)


@pytest.mark.parametrize(
    "source", [lambda file: file, lambda file: io.BytesIO(DATA)], ids=["kernel", "fallback"]
)
def test_through_a_transport(loop, run, pair, file, source):
    near, far = pair
    source = source(file)

    async def main():
        transport, protocol = await connect(near)
        receiving = asyncio.create_task(receive_all(far))
        transport.write(b"before" * 10000)  # More than the kernel takes at once.
        assert await loop.sendfile(transport, source, 10) == SIZE - 10
        assert source.tell() == SIZE
        transport.write(b"after")
        assert await loop.sendfile(transport, source, 0, 3) == 3
        transport.close()
        assert await receiving == b"before" * 10000 + DATA[10:] + b"after" + DATA[:3]
        assert await protocol.lost is None
        assert protocol.log.count("pause") == protocol.log.count("resume")

    run(main())


def test_nothing_else_is_sent_or_read_meanwhile(loop, run, pair, file):
    near, far = pair

    async def main():
        transport, protocol = await connect(near)
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await receive_exactly(far, 1)
        far.send(b"question")
        for write in (lambda: transport.write(b"x"), lambda: transport.writelines([b"x"])):
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                write()
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            await loop.sendfile(transport, file)
        assert not transport.is_reading()
        await receive_exactly(far, SIZE - 1)
        await sending
        assert transport.is_reading()
        while protocol.data != b"question":
            await asyncio.sleep(0)
        transport.write(b"answer")
        assert await receive_exactly(far, 6) == b"answer"
        transport.close()
        await protocol.lost

    run(main())


def test_reading_stays_paused_if_it_was(loop, run, pair, file):
    near, _ = pair

    async def main():
        transport, protocol = await connect(near)
        transport.pause_reading()
        assert await loop.sendfile(transport, file, 0, 10) == 10
        assert not transport.is_reading()
        transport.close()
        await protocol.lost

    run(main())


def test_an_end_of_writing_comes_after_the_file(loop, run, pair, file):
    near, far = pair

    async def main():
        transport, protocol = await connect(near)
        sending = asyncio.create_task(loop.sendfile(transport, file))
        received = await receive_exactly(far, 1)
        transport.write_eof()
        assert received + await receive_all(far) == DATA
        assert await sending == SIZE
        with pytest.raises(RuntimeError, match=r"after write_eof\(\)"):
            await loop.sendfile(transport, file)
        transport.close()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_transport_that_ends_meanwhile(loop, run, pair, file, end):
    near, far = pair

    async def main():
        transport, protocol = await connect(near)
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await receive_exactly(far, 1000)
        getattr(transport, end)()
        with pytest.raises(ConnectionError, match="Connection is closed by peer"):
            await sending
        assert 1000 <= file.tell() < SIZE
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize(
    "source", [lambda file: file, lambda file: io.BytesIO(DATA)], ids=["kernel", "fallback"]
)
def test_a_connection_that_is_lost_meanwhile(loop, run, pair, file, source):
    near, far = pair
    source = source(file)

    async def main():
        transport, protocol = await connect(near)
        sending = asyncio.create_task(loop.sendfile(transport, source))
        await receive_exactly(far, 1000)
        far.close()
        with pytest.raises(ConnectionError):
            await sending
        await protocol.lost
        assert transport.is_closing()
        assert source.tell() < SIZE

    run(main())


def test_a_connection_lost_while_earlier_writes_wait(loop, run, pair, file):
    near, far = pair

    async def main():
        transport, protocol = await connect(near)
        transport.write(DATA)
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        far.close()
        with pytest.raises(ConnectionError):
            await sending
        assert isinstance(await protocol.lost, ConnectionError)
        assert file.tell() == 0

    run(main())


@pytest.mark.parametrize(
    "source", [lambda file: file, lambda file: io.BytesIO(DATA)], ids=["kernel", "fallback"]
)
@pytest.mark.parametrize("turns", range(8))
def test_cancelling_leaves_the_transport_in_order(loop, run, pair, file, source, turns):
    near, far = pair
    source = source(file)

    async def main():
        transport, protocol = await connect(near)
        transport.write(b"before" * 10000)
        sending = asyncio.create_task(loop.sendfile(transport, source))
        for _ in range(turns):
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.is_reading() and transport.get_protocol() is protocol
        receiving = asyncio.create_task(receive_all(far))
        transport.write(b"after")
        transport.write_eof()
        received = await receiving
        assert received.startswith(b"before" * 10000) and received.endswith(b"after")
        middle = received[60000:-5]
        assert middle == DATA[: len(middle)]
        assert [event for event in protocol.log if event == "pause"] == protocol.log[::2]
        assert protocol.log.count("pause") == protocol.log.count("resume")
        transport.close()
        await protocol.lost

    run(main())


def test_a_paused_protocol_is_resumed(loop, run, pair):
    near, far = pair

    async def main():
        transport, protocol = await connect(near)
        transport.write(DATA)
        assert protocol.log == ["pause"]
        sending = asyncio.create_task(loop.sendfile(transport, io.BytesIO(DATA)))
        assert await receive_exactly(far, 2 * SIZE) == DATA + DATA
        assert await sending == SIZE
        assert protocol.log == ["pause", "resume"]
        transport.close()
        await protocol.lost

    run(main())


def test_transports_without_sendfile(loop, run, pair, file):
    near, _ = pair

    class Foreign(asyncio.Transport):
        def is_closing(self):
            return False

    class Wrapped(Foreign):
        _sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK

    class Native(Foreign):
        _sendfile_compatible = asyncio.constants._SendfileMode.TRY_NATIVE

    async def main():
        transport, protocol = await connect(near)
        with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
            await loop.sendfile(Foreign(), file)
        with pytest.raises(RuntimeError, match="fallback is disabled and native sendfile is not supported"):
            await loop.sendfile(Wrapped(), file, fallback=False)
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sendfile(Native(), file, fallback=False)
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            await loop.sendfile(transport, io.BytesIO(DATA), fallback=False)
        transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, file)
        await protocol.lost

    run(main())


def test_argument_errors_of_a_transport(loop, run, pair, file, tmp_path):
    near, far = pair

    async def main():
        transport, protocol = await connect(near)
        with (tmp_path / "text").open("w") as text, pytest.raises(ValueError, match="binary mode"):
            await loop.sendfile(transport, text)
        with pytest.raises(ValueError, match="count must be a positive integer"):
            await loop.sendfile(transport, file, 0, 0)
        with pytest.raises(ValueError, match="offset must be a non-negative integer"):
            await loop.sendfile(transport, file, -1)
        transport.write(b"still in order")
        assert await receive_exactly(far, 14) == b"still in order"
        transport.close()
        await protocol.lost

    run(main())


def test_others_run_while_a_fast_peer_takes_a_large_file(loop, run, tmp_path):
    """One call does not send it all: the loop has turns in between."""
    size = 64 << 20
    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(size)
    near, far = socket.socketpair()

    async def main():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        received = asyncio.create_task(asyncio.to_thread(drain, far))
        with path.open("rb") as file:
            assert await loop.sock_sendfile(near, file) == size
        near.close()
        assert await received == size
        assert turns > size >> 20
        counting.cancel()

    with near, far:
        near.setblocking(False)
        run(main())
