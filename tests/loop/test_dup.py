"""A descriptor is closed while its file lives on under another number: the loop sleeps, and everything else goes on.

The kernel reports such a file forever, under a registration that no descriptor names any more.
"""

import asyncio
import contextlib
import os
import socket

import pytest

from .support import Recorder, receive_exactly

# A loop that does not sleep makes tens of thousands of turns in the time that `rests` gives it.
FEW = 100


async def rests(loop, most=FEW):
    before = loop._metrics()
    await asyncio.sleep(0.1)
    after = loop._metrics()
    assert after["turns"] - before["turns"] < most, (before, after)
    assert after["polls"] - before["polls"] < most, (before, after)


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def others(loop):
    """What else the loop has, which goes on afterwards: ``await check()``."""
    stack = contextlib.ExitStack()
    with stack:

        async def make():
            near, far = socket.socketpair()
            watched, peer = socket.socketpair()
            kept, kept_peer = socket.socketpair()
            for sock in (near, far, watched, peer, kept, kept_peer):
                sock.setblocking(False)
                stack.callback(sock.close)
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda: protocol, sock=near)
            stack.callback(transport.abort)
            came = asyncio.Event()
            loop.add_reader(watched, lambda: (watched.recv(100), came.set()))
            kept_peer.send(b"x")
            await loop.sock_recv(kept, 1)
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)

            async def check():
                far.send(b"x" * 10)
                await protocol.until(lambda: len(protocol.data) == 10)
                transport.write(b"answer")
                assert await receive_exactly(far, 6) == b"answer"
                peer.send(b"x")
                await came.wait()
                waiting = asyncio.ensure_future(loop.sock_recv(kept, 1))
                await asyncio.sleep(0)
                kept_peer.send(b"y")
                assert await waiting == b"y"
                client, _ = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
                client.abort()
                assert await asyncio.to_thread(lambda: 5) == 5
                loop.remove_reader(watched)
                server.close()
                transport.abort()
                await protocol.lost()

            return check

        yield make


def by_file(loop, sock, number):
    loop.remove_reader(sock)


def by_number(loop, sock, number):
    loop.remove_reader(number)


@pytest.mark.parametrize("remove", [by_file, by_number])
@pytest.mark.parametrize("what", ["add_reader", "add_writer"])
def test_a_watch_that_is_removed_too_late(loop, run, others, what, remove):
    async def main():
        check = await others()
        near, far = socket.socketpair()
        with far:
            number = near.fileno()
            if what == "add_reader":
                loop.add_reader(near, lambda: None)
                far.send(b"x")
            else:
                loop.add_writer(near, lambda: None)
            other = os.dup(number)
            near.close()
            if what == "add_reader":
                remove(loop, near, number)
            else:
                loop.remove_writer(near if remove is by_file else number)
            await rests(loop)
            await check()
            os.close(other)

    run(main())


def test_a_watch_that_is_never_removed(loop, run, others):
    """Its callback is called for a while; on asyncio forever."""

    async def main():
        check = await others()
        near, far = socket.socketpair()
        with far:
            number = near.fileno()
            calls = []
            loop.add_reader(near, calls.append, 1)
            other = os.dup(number)
            near.close()
            far.send(b"x")
            while not calls:
                await asyncio.sleep(0)
            await rests(loop, most=5000)
            await rests(loop)
            await check()
            # It can still be removed.
            assert loop.remove_reader(near)
            os.close(other)

    run(main())


def test_a_number_that_is_watched_again_meanwhile(loop, run, others):
    async def main():
        check = await others()
        near, far = socket.socketpair()
        again, again_far = socket.socketpair()
        with far, again_far, again:
            calls = []
            number = near.fileno()
            loop.add_reader(number, calls.append, "first")
            far.send(b"x")
            other = os.dup(number)
            os.dup2(again.fileno(), number)
            loop.add_reader(number, calls.append, "second")
            await rests(loop)
            assert calls == []
            again_far.send(b"x")
            while not calls:
                await asyncio.sleep(0)
            assert set(calls) == {"second"}
            assert loop.remove_reader(number)
            await rests(loop)
            await check()
            os.close(other)
            near.close()

    run(main())


@pytest.mark.parametrize("end", ["cancelled", "waiting", "idle"])
def test_a_socket_of_sock_calls(loop, run, others, end):
    async def main():
        check = await others()
        near, far = socket.socketpair()
        near.setblocking(False)
        far.send(b"x")
        await loop.sock_recv(near, 1)
        waiting = asyncio.ensure_future(loop.sock_recv(near, 1))
        await turns(3)
        if end != "waiting":
            waiting.cancel()
            await asyncio.sleep(0)
        other = os.dup(near.fileno())
        if end == "idle":
            await turns(3)
        near.close()
        for _ in range(50):
            far.send(b"x")
            await asyncio.sleep(0)
        await rests(loop)
        await check()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await waiting
        os.close(other)
        far.close()

    run(main())


def test_a_transports_descriptor(loop, run, others, contexts):
    """Its descriptor was closed by other code: the transport ends when it next reads."""

    async def main():
        check = await others()
        near, far = socket.socketpair()
        near.setblocking(False)
        protocol = Recorder()
        await loop.create_connection(lambda: protocol, sock=near)
        await turns(3)
        other = os.dup(near.fileno())
        near.close()
        far.send(b"x")
        await protocol.lost()
        for _ in range(50):
            far.send(b"x")
            await asyncio.sleep(0)
        await rests(loop)
        await check()
        os.close(other)
        far.close()

    run(main())


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_listener(loop, run, others, contexts, exclusive):
    async def main():
        check = await others()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        address = listener.getsockname()
        loop._accept(listener, Recorder, None, exclusive=exclusive)
        await turns(3)
        other = os.dup(listener.fileno())
        listener.close()
        clients = [socket.create_connection(address) for _ in range(5)]
        await rests(loop)
        await check()
        for client in clients:
            client.close()
        os.close(other)

    run(main())
    assert len(contexts) == 1


def test_a_child_inherits_a_watched_descriptor(loop, run, others):
    async def main():
        check = await others()
        near, far = socket.socketpair()
        near.set_inheritable(True)
        child = await asyncio.create_subprocess_exec(
            "cat", pass_fds=[near.fileno()], stdin=asyncio.subprocess.PIPE
        )
        loop.add_reader(near, lambda: None)
        far.send(b"x")
        near.close()
        loop.remove_reader(near)
        await rests(loop)
        await check()
        child.stdin.close()
        await child.wait()
        far.close()

    run(main())
