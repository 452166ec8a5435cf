"""Native methods take their arguments and report errors of the system as asyncio's own do."""

import asyncio
import errno
import socket
import struct

import pytest


def reset(sock):
    """Close *sock* so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture
def pair(listener):
    """A TCP connection: a non-blocking end for the loop, and its peer."""
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    near.setblocking(False)
    with near, far:
        yield near, far


def test_callbacks_may_be_named(loop):
    got = []
    loop.call_soon(callback=lambda: got.append("soon"))
    loop.call_soon_threadsafe(callback=lambda: got.append("threadsafe"))
    loop.call_later(delay=0, callback=lambda: got.append("later"))
    loop.call_at(when=loop.time(), callback=lambda: got.append("at"))
    loop.call_later(0.001, callback=loop.stop)
    loop.run_forever()
    assert sorted(got) == ["at", "later", "soon", "threadsafe"]


def test_coroutine_may_be_named(loop):
    assert loop.run_until_complete(loop.create_task(coro=asyncio.sleep(0, 5))) == 5


def test_descriptors_may_be_named(loop, pair):
    near, far = pair
    loop.add_reader(fd=near, callback=loop.stop)
    far.sendall(b"x")
    loop.run_forever()
    assert loop.remove_reader(fd=near) is True
    loop.add_writer(near, callback=loop.stop)
    loop.run_forever()
    assert loop.remove_writer(fd=near) is True


def test_watching_a_closed_descriptor(loop):
    with socket.socket() as sock:
        number = sock.fileno()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        loop.add_reader(number, print)
    assert caught.value.args == (errno.EBADF, "Bad file descriptor")


def test_sock_errors_carry_their_number(loop, run, pair):
    near, far = pair

    async def main():
        reset(far)
        with pytest.raises(ConnectionResetError) as caught:
            await loop.sock_recv(near, 10)
        assert caught.value.args == (errno.ECONNRESET, "Connection reset by peer")
        with pytest.raises(BrokenPipeError) as caught:
            await loop.sock_sendall(near, b"x")
        assert caught.value.args == (errno.EPIPE, "Broken pipe")
        with socket.socket() as fresh:
            fresh.setblocking(False)
            with pytest.raises(OSError, match="not connected") as caught:
                await loop.sock_recv_into(fresh, bytearray(1))
            assert caught.value.errno == errno.ENOTCONN
            with pytest.raises(OSError, match="Invalid argument") as caught:
                await loop.sock_accept(fresh)
            assert caught.value.errno == errno.EINVAL

    run(main())


def test_lost_connection_carries_its_number(loop, run, pair, recorder):
    near, far = pair

    async def main():
        _, protocol = await loop.create_connection(recorder, sock=near)
        reset(far)
        error = await protocol.lost
        assert isinstance(error, ConnectionResetError)
        assert error.errno == errno.ECONNRESET

    run(main())


def test_failed_unix_connect_carries_its_number(loop, run, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        run(loop.create_unix_connection(asyncio.Protocol, str(tmp_path / "s")))
    assert caught.value.errno == errno.ENOENT


def test_closed_sockets_are_refused(loop, run):
    sock = socket.socket()
    sock.close()

    async def main():
        for call in (
            loop.sock_recv(sock, 1),
            loop.sock_recv_into(sock, bytearray(1)),
            loop.sock_sendall(sock, b"x"),
            loop.sock_accept(sock),
            loop.sock_connect(sock, ("127.0.0.1", 1)),
        ):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                await call
            assert caught.value.errno == errno.EBADF

    run(main())
