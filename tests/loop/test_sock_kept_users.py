"""One socket, several users: cancelled calls and the next ones, calls beside each other, callbacks, transports."""

import asyncio
import contextlib
import os
import socket

import pytest

from .sock_support import exchange, waiting
from .support import Recorder


@pytest.mark.parametrize("moment", range(4))
def test_cancelled_and_called_again(loop, run, pair, moment):
    near, far = pair

    async def main():
        got = bytearray()
        for n in range(100):
            task = await waiting(loop.sock_recv(near, 100))
            if n % 3 == 0:
                far.send(b"%03d" % n)
            for _ in range(moment):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += await task
        far.send(b"end")
        while not got.endswith(b"end"):
            got += await loop.sock_recv(near, 1000)
        assert got == b"".join(b"%03d" % n for n in range(0, 100, 3)) + b"end"

    run(main())


def test_cancelled_while_sending_and_called_again(loop, run, pair):
    near, far = pair

    async def main():
        task = await waiting(loop.sock_sendall(near, bytes(4 << 20)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await waiting(loop.sock_sendall(near, b"end"))
        got = bytearray()
        while not got.endswith(b"end"):
            got += await loop.sock_recv(far, 1 << 18)
        await again

    run(main())


def test_the_next_of_two_calls_replaces_the_first(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        first = await waiting(loop.sock_recv(near, 10))
        second = await waiting(loop.sock_recv(near, 10))
        far.send(b"data")
        assert await second == b"data"
        assert not first.done()
        first.cancel()
        await exchange(loop, near, far)

    run(main())


def test_mixed_with_callbacks(loop, run, pair):
    near, far = pair

    async def main():
        for n in range(20):
            await exchange(loop, near, far)
            called = loop.create_future()
            loop.add_reader(near, lambda called=called: called.done() or called.set_result(near.recv(10)))
            far.send(b"callback")
            assert await called == b"callback"
            if n % 2:
                await loop.sock_sendall(near, b"x")
                assert await loop.sock_recv(far, 10) == b"x"
            assert loop.remove_reader(near) is True
            assert loop.remove_reader(near) is False
            await exchange(loop, near, far)
            loop.add_writer(near, lambda: loop.remove_writer(near))
            await exchange(loop, near, far)
            assert loop.remove_writer(near) is False
            task = await waiting(loop.sock_recv(near, 10))
            loop.add_writer(near.fileno(), lambda: loop.remove_writer(near.fileno()))
            far.send(b"both")
            assert await task == b"both"

    run(main())


def test_a_callback_replaces_a_waiting_call(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 10))
        called = loop.create_future()
        loop.add_reader(near, lambda: called.done() or called.set_result(near.recv(10)))
        far.send(b"data")
        assert await called == b"data"
        assert not task.done()
        task.cancel()
        assert loop.remove_reader(near) is True

    run(main())


def test_given_to_a_transport(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        await exchange(loop, near, far)
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        with pytest.raises(RuntimeError, match="used by transport"):
            await loop.sock_recv(near, 1)
        transport.write(b"answer")
        assert await loop.sock_recv(far, 10) == b"answer"
        transport.close()
        await protocol.lost()

    run(main())


def test_given_to_a_transport_while_a_call_waits(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 10))
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        transport.close()
        await protocol.lost()

    run(main())


def test_given_to_a_transport_and_back(loop, run, pair):
    near, far = pair

    async def main():
        for n in range(30):
            kept = socket.socket(fileno=os.dup(near.fileno()))
            kept.setblocking(False)
            await exchange(loop, kept, far)
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda protocol=protocol: protocol, sock=kept)
            far.send(b"data")
            assert await protocol.received(4) == b"data"
            transport.abort()
            await protocol.lost()
            if n % 3 == 0:
                await exchange(loop, near, far)

    run(main())
