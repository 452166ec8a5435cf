"""sock_sendfile and sendfile: through the kernel, by the fallback, and the state afterwards."""

import asyncio
import io
import os
import re
import socket
import struct

import pytest

SIZE = 2 << 20
DATA = bytes(range(256)) * (SIZE // 256)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        yield file


def small_tcp():
    """A TCP connection with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def small_unix():
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


@pytest.fixture(params=[small_tcp, small_unix], ids=["tcp", "unix"])
def pair(request):
    near, far = request.param()
    with near, far:
        yield near, far


async def receive_all(sock):
    parts = []
    while part := await asyncio.get_running_loop().sock_recv(sock, 1 << 18):
        parts.append(part)
    return b"".join(parts)


async def receive_exactly(sock, size):
    data = bytearray()
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert part, "the peer sent less"
        data += part
    return bytes(data)


class Recorder(asyncio.Protocol):
    """Records the transport's calls."""

    def __init__(self):
        self.log = []
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.log.append("pause")

    def resume_writing(self):
        self.log.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def connect(sock):
    """A transport on *sock*, whose protocol is a Recorder."""
    return await asyncio.get_running_loop().create_connection(Recorder, sock=sock)


# ---- sock_sendfile ----------------------------------------------------------------------------------


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


# ---- sendfile through a transport -----------------------------------------------------------------


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


def drain(sock):
    """Reads a blocking socket to its end."""
    buffer, size = bytearray(1 << 20), 0
    while got := sock.recv_into(buffer):
        size += got
    return size
