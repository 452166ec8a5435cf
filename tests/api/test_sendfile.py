"""sock_sendfile: through the kernel, by the fallback, and the state afterwards."""

import asyncio
import io
import os
import re
import socket
import struct

import pytest

from .sendfile_support import (
    DATA,
    SIZE,
    connect,
    receive_all,
    receive_exactly,
)


@pytest.mark.parametrize("buffered", [False, True], ids=["kernel", "fallback"])
@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, None),
        (1000, None),
        (0, SIZE),
        (5, 100),
        (0, 1),
        (SIZE - 1, None),
        (SIZE - 1, 1),
        (SIZE, None),
        (SIZE + 10, None),
        (SIZE - 10, 100),
        (0, 1 << 40),
        (7, 1 << 70),
    ],
)
def test_any_part_of_a_file(loop, run, pair, file, offset, count, buffered):
    near, far = pair
    source = io.BytesIO(DATA) if buffered else file
    expected = DATA[offset:] if count is None else DATA[offset : offset + count]

    async def main():
        receiving = asyncio.create_task(receive_all(far))
        assert await loop.sock_sendfile(near, source, offset, count) == len(expected)
        near.close()
        assert await receiving == expected
        assert source.tell() == (offset + len(expected))

    run(main())


def test_an_empty_file(loop, run, pair, tmp_path):
    near, _ = pair
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as empty:
        assert run(loop.sock_sendfile(near, empty)) == 0
        assert run(loop.sock_sendfile(near, empty, 0, 10)) == 0
    assert run(loop.sock_sendfile(near, io.BytesIO())) == 0


def test_a_file_that_grows_meanwhile(loop, run, pair, file):
    near, far = pair

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, file))
        await receive_exactly(far, 1)
        with open(file.name, "ab") as more:
            more.write(DATA)
        assert await receive_exactly(far, 2 * SIZE - 1) == (DATA + DATA)[1:]
        assert await sending == 2 * SIZE == file.tell()

    run(main())


def test_a_file_that_shrinks_meanwhile(loop, run, pair, file):
    near, far = pair

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, file))
        await receive_exactly(far, 1)
        os.truncate(file.name, SIZE // 2)
        assert await receive_exactly(far, SIZE // 2 - 1) == DATA[1 : SIZE // 2]
        assert await sending == SIZE // 2 == file.tell()

    run(main())


def test_sends_before_and_after(loop, run, pair, file):
    near, far = pair

    async def main():
        receiving = asyncio.create_task(receive_all(far))
        await loop.sock_sendall(near, b"before")
        await loop.sock_sendfile(near, file)
        await loop.sock_sendall(near, b"after")
        near.close()
        assert await receiving == b"before" + DATA + b"after"

    run(main())


def test_the_position_does_not_matter_and_is_set_in_the_end(loop, run, pair, file):
    near, far = pair
    file.seek(1234)

    async def main():
        assert await loop.sock_sendfile(near, file, 10, 20) == 20
        assert file.tell() == 30
        assert await receive_exactly(far, 20) == DATA[10:30]

    run(main())


def test_cancelling_shows_the_progress(loop, run, pair, file):
    near, far = pair

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, file, 100))
        received = await receive_exactly(far, 1000)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        progress = file.tell()
        near.close()
        received += await receive_all(far)
        assert 1000 <= len(received) < SIZE - 100
        assert received == DATA[100:progress]

    run(main())


@pytest.mark.parametrize("turns", range(6))
def test_cancelling_at_any_moment(loop, run, pair, file, turns):
    """The bytes that arrived match the file's position, whenever the end came; the socket stays usable."""
    near, far = pair

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, file))
        for _ in range(turns):
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        progress = file.tell()
        receiving = asyncio.create_task(receive_all(far))
        await loop.sock_sendall(near, b"on")
        near.close()
        assert await receiving == DATA[:progress] + b"on"

    run(main())


def test_a_peer_that_goes_away(loop, run, pair, file):
    near, far = pair

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, file))
        await receive_exactly(far, 1000)
        far.close()
        with pytest.raises(ConnectionError):
            await sending
        assert 1000 <= file.tell() < SIZE

    run(main())


def test_a_peer_that_is_gone(loop, run, pair, file):
    """With nothing sent the kernel's error counts as "not supported"; the fallback then raises the real one."""
    near, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()

    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError, match=r"os\.sendfile call failed") as caught:
            await loop.sock_sendfile(near, file, fallback=False)
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert file.tell() == 0
        with pytest.raises(ConnectionError):
            await loop.sock_sendfile(near, file)

    run(main())


def test_a_socket_closed_meanwhile(loop, run, pair, file):
    near, far = pair

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, file))
        await receive_exactly(far, 1000)
        sending.cancel()
        near.close()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert file.tell() >= 1000

    run(main())


@pytest.mark.parametrize("fallback", [False, True])
def test_a_pipe_has_no_part_to_send(loop, run, pair, fallback):
    near, _ = pair
    read, write = os.pipe()
    with open(read, "rb") as source, open(write, "wb") as sink:
        sink.write(b"data")
        sink.flush()
        error = io.UnsupportedOperation if fallback else asyncio.SendfileNotAvailableError
        with pytest.raises(error):
            run(loop.sock_sendfile(near, source, 0, 4, fallback=fallback))


class Bare:
    """Has only the methods that the fallback needs."""

    def __init__(self, data):
        self._parts = io.BytesIO(data)

    def readinto(self, buffer):
        return self._parts.readinto(buffer)


class NoFile(io.BytesIO):
    def fileno(self):
        return -1


@pytest.mark.parametrize("make", [Bare, io.BytesIO, NoFile])
def test_files_that_are_not_regular(loop, run, pair, make):
    near, far = pair

    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            await loop.sock_sendfile(near, make(DATA), fallback=False)
        receiving = asyncio.create_task(receive_all(far))
        assert await loop.sock_sendfile(near, make(DATA), 0, SIZE - 1) == SIZE - 1
        near.close()
        assert await receiving == DATA[:-1]

    run(main())


def test_the_fallback_shows_the_progress_too(loop, run, pair):
    near, far = pair
    source = io.BytesIO(DATA)

    async def main():
        sending = asyncio.create_task(loop.sock_sendfile(near, source))
        await receive_exactly(far, SIZE - SIZE // 8)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert SIZE // 2 < source.tell() <= SIZE

    run(main())


def test_argument_errors(loop, run, pair, tmp_path):
    near, _ = pair
    blob = io.BytesIO()
    with (tmp_path / "text").open("w") as text, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for coro, error, message in (
            (loop.sock_sendfile(near, text), ValueError, "file should be opened in binary mode"),
            (loop.sock_sendfile(datagram, blob), ValueError, "only SOCK_STREAM type sockets are supported"),
            (
                loop.sock_sendfile(near, blob, 0, "x"),
                TypeError,
                "count must be a positive integer (got 'x')",
            ),
            (loop.sock_sendfile(near, blob, 0, -1), ValueError, "count must be a positive integer (got -1)"),
            (loop.sock_sendfile(near, blob, 0, 0), ValueError, "count must be a positive integer (got 0)"),
            (
                loop.sock_sendfile(near, blob, "x"),
                TypeError,
                "offset must be a non-negative integer (got 'x')",
            ),
            (
                loop.sock_sendfile(near, blob, -1),
                ValueError,
                "offset must be a non-negative integer (got -1)",
            ),
        ):
            with pytest.raises(error, match=f"^{re.escape(message)}$"):
                run(coro)


def test_an_offset_beyond_what_the_kernel_takes(loop, run, pair, file):
    near, _ = pair
    with pytest.raises(OverflowError):
        run(loop.sock_sendfile(near, file, 1 << 64))


def test_debug_mode_wants_non_blocking_sockets(loop, run, pair, file):
    near, _ = pair
    near.setblocking(True)
    loop.set_debug(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(loop.sock_sendfile(near, file))


def test_a_socket_that_a_transport_uses(loop, run, pair, file):
    near, _ = pair

    async def main():
        transport, protocol = await connect(near)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_sendfile(near, file)
        assert file.tell() == 0
        transport.abort()
        await protocol.lost

    run(main())
