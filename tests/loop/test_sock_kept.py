"""The registrations that sock_* keep between waits: how long they stay, and that nothing is left of them."""

import asyncio
import gc
import os
import socket
import weakref

import tokioloop

from .sock_support import exchange, registered, waiting
from .support import collected, receive_exactly, unix_pair


def test_a_registration_stays_and_grows(loop, run, pair):
    near, far = pair
    edge, readable, writable = 1 << 31, 1, 4

    async def main():
        await exchange(loop, near, far)
        first = registered()[near.fileno()]
        assert first & edge and first & readable and not first & writable
        await exchange(loop, near, far)
        assert registered()[near.fileno()] == first
        sending = await waiting(loop.sock_sendall(near, bytes(4 << 20)))
        assert registered()[near.fileno()] == first | writable
        await receive_exactly(far, 4 << 20)
        await sending
        await exchange(loop, near, far)

    run(main())


def test_an_unused_registration_is_dropped(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        assert near.fileno() in registered()
        sent = 0
        while near.fileno() in registered():
            far.send(b"x")
            sent += 1
            await asyncio.sleep(0)
        assert sent > 2
        assert await receive_exactly(near, sent) == b"x" * sent
        await exchange(loop, near, far)

    run(main())


def test_a_socket_read_without_waiting_stays_registered(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        for limit in (4, 100):
            for _ in range(100):
                far.send(b"data")
                await asyncio.sleep(0)
                assert await loop.sock_recv(near, limit) == b"data"
        assert near.fileno() in registered()

    run(main())


def test_a_socket_of_another_class(loop, run, pair):
    class Mine(socket.socket):
        pass

    near, far = pair

    async def main():
        mine = Mine(fileno=os.dup(near.fileno()))
        mine.setblocking(False)
        for _ in range(5):
            await exchange(loop, mine, far)
            await exchange(loop, near, far)
        mine.close()

    run(main())


def dead_references() -> int:
    return sum(type(it) is weakref.ref and it() is None for it in gc.get_objects())


def test_thousands_of_sockets_come_and_go(loop, run):
    """At once and one after the other; neither descriptors nor the loop's records of them pile up."""

    async def main():
        before = len(os.listdir("/proc/self/fd")), dead_references()
        for _ in range(3):
            pairs = [unix_pair() for _ in range(400)]
            tasks = [await waiting(loop.sock_recv(near, 10)) for near, _ in pairs]
            for _, far in pairs:
                far.send(b"x")
            assert await asyncio.gather(*tasks) == [b"x"] * len(pairs)
            for pair in pairs:
                for sock in pair:
                    sock.close()
        del pairs, pair, sock, far
        for n in range(1000):
            near, far = unix_pair()
            await exchange(loop, near, far)
            if n % 2:
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
                transport.abort()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            near.close()
            far.close()
        del near, far
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before[0] + 10
        assert dead_references() - before[1] < 200

    run(main())


def test_nothing_is_kept_alive(loop, run):
    references = []

    async def main():
        near, far = unix_pair()
        await exchange(loop, near, far)
        references.append(weakref.ref(near))
        near.close()
        far.close()

    run(main())
    assert collected(references[0])
    near, far = unix_pair()
    loop.run_until_complete(exchange(loop, near, far))
    reference = weakref.ref(loop)
    assert reference() is not None
    loop.close()
    other = tokioloop.TokioLoop()
    other.run_until_complete(exchange(other, near, far))
    reference = weakref.ref(other)
    other.close()
    del other
    assert collected(reference)
    near.close()
    far.close()


def test_a_call_dropped_while_it_waits(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        call = loop.sock_recv(near, 10)
        call.send(None)
        del call
        await exchange(loop, near, far)

    run(main())
