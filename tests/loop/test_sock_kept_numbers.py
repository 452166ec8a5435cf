"""The registrations that sock_* keep, and numbers that are used again: each event is its own socket's."""

import asyncio
import os
import socket

import pytest

from .sock_support import PAIRS, exchange, waiting


async def move(sock, number):
    """*sock* under another number, which is unused."""
    if sock.fileno() != number:
        os.dup2(sock.fileno(), number)
        sock.close()
        sock = socket.socket(fileno=number)
        sock.setblocking(False)
    return sock


@PAIRS
def test_a_number_used_again_many_times(loop, run, make):
    async def main():
        old, far = make()
        number = old.fileno()
        objects = []
        for n in range(100):
            await exchange(loop, old, far, b"%d" % n)
            if n % 2:
                objects.append(old)  # Alive, but closed.
            old.close()
            far.close()
            old, far = make()
            old = await move(old, number)
        old.close()
        far.close()

    run(main())


@PAIRS
@pytest.mark.parametrize("end", ["close", "detach", "forget"])
def test_a_number_used_again_while_the_old_call_waits(loop, run, make, end):
    async def main():
        old, old_far = make()
        number = old.fileno()
        await exchange(loop, old, old_far)
        stale = await waiting(loop.sock_recv(old, 10))
        if end == "detach":
            os.close(old.detach())
        else:
            old.close()
        old_far.close()
        if end == "forget":
            del old
        near, far = make()
        near = await move(near, number)
        await exchange(loop, near, far)
        stale.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stale
        await exchange(loop, near, far)
        near.close()
        far.close()

    run(main())


@PAIRS
def test_the_old_readiness_is_not_the_new_sockets(loop, run, make):
    """An edge in transit when the socket is closed and its number reused causes no false wake-up, and hides nothing."""

    async def main():
        old, old_far = make()
        number = old.fileno()
        await exchange(loop, old, old_far)
        old_far.send(b"for the old one")
        old.close()
        near, far = make()
        near = await move(near, number)
        await exchange(loop, near, far)
        for sock in (old_far, near, far):
            sock.close()

    run(main())


@PAIRS
def test_a_duplicate_keeps_the_kernels_registration(loop, run, make):
    """The first number is closed, the file lives on: its events must not be taken for those of the number's next owner."""

    async def main():
        old, old_far = make()
        number = old.fileno()
        await exchange(loop, old, old_far)
        duplicate = old.dup()
        duplicate.setblocking(False)
        old.close()
        near, far = make()
        near = await move(near, number)
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 10))
        for _ in range(5):
            old_far.send(b"old")
            await asyncio.sleep(0)
            assert await loop.sock_recv(duplicate, 10) == b"old"
            assert not task.done()
        far.send(b"new")
        assert await task == b"new"
        await exchange(loop, duplicate, old_far)
        for sock in (duplicate, old_far, near, far):
            sock.close()

    run(main())


def test_another_object_of_the_same_number(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        second = socket.socket(fileno=os.dup(near.fileno()))
        second.setblocking(False)
        await exchange(loop, second, far)
        await exchange(loop, near, far)
        third = socket.socket(fileno=second.detach())
        third.setblocking(False)
        await exchange(loop, third, far)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await loop.sock_recv(second, 1)
        third.close()
        await exchange(loop, near, far)

    run(main())
