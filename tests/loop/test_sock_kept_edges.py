"""sock_* and edges: no data, end or error is missed, whatever was read before and by which code."""

import asyncio
import contextlib
import socket

import pytest

import tokioloop

from .sock_support import PAIRS, exchange, waiting
from .support import reset, tcp_pair


@pytest.mark.parametrize("short", [True, False])
def test_a_peer_that_writes_between_a_short_read_and_the_next_wait(loop, run, pair, short):
    near, far = pair

    async def main():
        buffer = bytearray(100)
        for n in range(200):
            task = await waiting(loop.sock_recv(near, 100 if short else 4))
            far.send(b"%04d" % n)
            assert await task == b"%04d" % n
            far.send(b"next")
            if n % 2:
                await asyncio.sleep(0)
            assert await loop.sock_recv_into(near, buffer) == 4
            # Nothing is left: waits, and gets what comes in the same turn.
            task = asyncio.ensure_future(loop.sock_recv(near, 100))
            loop.call_soon(far.send, b"last")
            assert await task == b"last"

    run(main())


@PAIRS
@pytest.mark.parametrize("turns", range(3))
@pytest.mark.parametrize("way", ["half-close", "close"])
def test_the_end_after_a_short_read(loop, run, make, turns, way):
    """It is the last edge: a caller that reads a little, and again, must see it."""

    async def main():
        near, far = make()
        with near, far:
            await exchange(loop, near, far)
            task = await waiting(loop.sock_recv(near, 100))
            far.send(b"last")
            if turns == 0:
                far.shutdown(socket.SHUT_WR)
            assert await task == b"last"
            if turns == 1:
                far.shutdown(socket.SHUT_WR)
            if turns == 2:
                task = await waiting(loop.sock_recv(near, 100))
                far.shutdown(socket.SHUT_WR) if way == "half-close" else far.close()
                assert await task == b""
            for _ in range(3):
                assert await loop.sock_recv(near, 100) == b""
            if way == "half-close":
                await loop.sock_sendall(near, b"still open")
                assert await loop.sock_recv(far, 100) == b"still open"

    run(main())


def test_shut_down_here_while_it_waits(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 100))
        near.shutdown(socket.SHUT_RDWR)
        assert await task == b""
        assert await loop.sock_recv(near, 100) == b""

    run(main())


@pytest.mark.parametrize("early", [True, False])
def test_a_reset_after_a_short_read(loop, run, early):
    async def main():
        near, far = tcp_pair()
        with near:
            await exchange(loop, near, far)
            if early:
                reset(far)
                await asyncio.sleep(0)
            task = await waiting(loop.sock_recv(near, 100))
            if not early:
                reset(far)
            with pytest.raises(ConnectionResetError):
                await task

    run(main())


def test_a_reset_wakes_reader_and_writer(loop, run):
    async def main():
        near, far = tcp_pair()
        with near:
            await exchange(loop, near, far)
            reading = await waiting(loop.sock_recv(near, 100))
            writing = await waiting(loop.sock_sendall(near, bytes(8 << 20)))
            reset(far)
            # One takes the error off the socket, the other sees the end.
            ends = await asyncio.gather(reading, writing, return_exceptions=True)
            assert ends[0] == b"" or isinstance(ends[0], ConnectionError)
            assert isinstance(ends[1], ConnectionError)

    run(main())


@pytest.mark.parametrize("inline", [True, False])
def test_urgent_data_ends_a_read_early(loop, run, inline):
    async def main():
        near, far = tcp_pair()
        with near, far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
            await exchange(loop, near, far)
            task = await waiting(loop.sock_recv(near, 100))
            far.send(b"before")
            far.send(b"!", socket.MSG_OOB)
            far.send(b"after")
            got = await task
            wanted = b"before!after" if inline else b"beforeafter"
            while len(got) < len(wanted):
                got += await loop.sock_recv(near, 100)
            assert got == wanted

    run(main())


def test_a_low_water_mark(loop, run):
    """The kernel reports nothing below the mark, but a call takes the bytes that have come."""

    async def main():
        near, far = tcp_pair()
        with near, far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
            await exchange(loop, near, far, b"0123456789")
            for _ in range(3):
                far.send(b"01")
                assert await loop.sock_recv(near, 100) == b"01"

    run(main())


def test_other_code_reads_the_socket(loop, run, pair):
    """Directly, by another object and by another loop: the rest is received, and no call waits forever."""
    near, far = pair
    other = tokioloop.TokioLoop()

    async def main():
        await exchange(loop, near, far)
        for n in range(50):
            far.send(b"%02d" % n)
            await asyncio.sleep(0)
            assert near.recv(1) == b"%d" % (n // 10)
            assert await loop.sock_recv(near, 10) == b"%d" % (n % 10)
        for _ in range(50):
            far.send(b"x")
            await asyncio.sleep(0)
            assert near.recv(10) == b"x"
        await exchange(loop, near, far)

    async def elsewhere():
        for _ in range(50):
            await exchange(other, near, far)

    run(main())
    other.run_until_complete(elsewhere())
    run(main())
    other.close()


def test_a_datagram_socket_waits_for_room_at_its_receiver(loop, run, tmp_path):
    """It has no edge for that: the loop polls again and again, as asyncio does."""

    async def main():
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there,
        ):
            here.setblocking(False)
            there.setblocking(False)
            there.bind(str(tmp_path / "there"))
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    here.sendto(b"x", str(tmp_path / "there"))
                    sent += 1
            task = await waiting(loop.sock_sendto(here, b"last", str(tmp_path / "there")))
            for _ in range(sent):
                assert await loop.sock_recv(there, 10) == b"x"
            assert await task == 4
            assert await loop.sock_recv(there, 10) == b"last"

    run(main())
