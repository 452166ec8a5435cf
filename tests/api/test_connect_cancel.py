"""A connect that is cancelled, at any point, leaves no socket open; of several that connect at once, one stays."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import sys

import pytest

import tokioloop


class Several(tokioloop.TokioLoop):
    """Resolves each name to several addresses."""

    addresses = ()

    def __init__(self):
        super().__init__()
        self.made = []

    async def sock_connect(self, sock, address):
        self.made.append(sock)
        await super().sock_connect(sock, address)

    async def getaddrinfo(self, host, port, **options):
        await asyncio.sleep(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in self.addresses]


@pytest.fixture
def loop():
    loop = Several()
    yield loop
    loop.close()


@pytest.fixture
def addresses():
    """Addresses by name: several that answer at once, one that refuses, and one that never answers."""
    with contextlib.ExitStack() as stack:

        def listener(host, backlog=1000):
            sock = socket.create_server((host, 0), backlog=backlog)
            return stack.enter_context(sock).getsockname()

        with socket.create_server(("127.0.0.4", 0)) as gone:
            refusing = gone.getsockname()
        # A listener with a full queue never answers.
        silent = listener("127.0.0.3", backlog=0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent)
        yield {
            "one": listener("127.0.0.1"),
            "two": listener("127.0.0.2"),
            "refuses": refusing,
            "silent": silent,
        }


def descriptors():
    # Garbage of earlier tests does not count.
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def settle():
    """A few turns, in which everything that can end does."""
    await turns(5)


WAYS = [
    ("one",),
    ("one", "two"),
    ("one", "two", "one", "two"),
    ("refuses", "one", "two"),
    ("silent", "one", "two"),
    ("silent", "silent", "one", "one"),
    ("one", "silent"),
    ("refuses", "refuses"),
]


# Without a delay no attempt overtakes another.
@pytest.mark.parametrize(
    ("way", "delay"),
    [
        (way, delay)
        for delay in (None, 0, 0.0001, 0.01)
        for way in WAYS
        if delay is not None or "silent" not in way
    ],
)
@pytest.mark.parametrize("local", [None, ("127.0.0.1", 0)])
def test_cancelled_after_each_number_of_turns(loop, run, addresses, way, delay, local):
    async def main():
        loop.addresses = [addresses[name] for name in way]
        options = {"happy_eyeballs_delay": delay, "local_addr": local}
        ended = 0
        await attempt(options, 3)
        before = descriptors()
        for count in range(200):
            ended += await attempt(options, count)
            # Counted exactly: sockets that the collector would close count as open.
            assert len(os.listdir("/proc/self/fd")) == before, f"cancelled after {count} turns"
            if ended > 3:
                return

    async def attempt(options, count):
        """True if it was over by then."""
        task = asyncio.create_task(loop.create_connection(asyncio.Protocol, "name", 80, **options))
        await turns(count)
        over = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            transport, _ = await task
            transport.abort()
        await settle()
        return over

    run(main())


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("cancelled", [False, True])
def test_several_connect_in_one_turn(loop, run, addresses, count, cancelled):
    """Each starts as soon as it can."""

    async def main():
        loop.addresses = [addresses["one"], addresses["two"]] * count
        before = descriptors()
        task = asyncio.create_task(
            loop.create_connection(asyncio.Protocol, "name", 80, happy_eyeballs_delay=0)
        )
        while not task.done():
            await asyncio.sleep(0)
            if cancelled and sum(sock.fileno() >= 0 for sock in loop.made) > 1:
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            assert descriptors() == before + 1
            transport.abort()
        await settle()
        assert descriptors() == before

    run(main())


def test_cancelled_while_the_losers_end(loop, run, addresses):
    """The race is won, but not over."""

    class Stubborn(Several):
        async def sock_connect(self, sock, address):
            if address == addresses["silent"]:
                losing.set()
                try:
                    await asyncio.sleep(3600)
                finally:
                    # It takes its time.
                    ending.set()
                    await may_end.wait()
            await losing.wait()
            await super().sock_connect(sock, address)

    losing, ending, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def main():
        before = descriptors()
        task = asyncio.create_task(
            stubborn.create_connection(asyncio.Protocol, "name", 80, happy_eyeballs_delay=0.0001)
        )
        await ending.wait()
        task.cancel()
        await turns(3)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settle()
        assert descriptors() == before

    stubborn = Stubborn()
    stubborn.addresses = [addresses["silent"], addresses["one"]]
    try:
        stubborn.run_until_complete(main())
    finally:
        stubborn.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_factory_that_fails(loop, run, addresses, error):
    def factory():
        raise error

    loop.addresses = [addresses["one"], addresses["two"]]
    before = None

    async def main():
        nonlocal before
        before = descriptors()
        await loop.create_connection(factory, "name", 80, happy_eyeballs_delay=0.01)

    with pytest.raises(error):
        loop.run_until_complete(main())
    run(settle())
    assert descriptors() == before


def test_a_context_that_cannot_be_made(loop, run, addresses, monkeypatch):
    """The default one reads files; its failure must not leave the connection open."""

    def fail(*args, **options):
        raise OSError(errno.EIO, "no certificates")

    loop.addresses = [addresses["one"]]
    monkeypatch.setattr("ssl.create_default_context", fail)

    async def main():
        before = descriptors()
        with pytest.raises(OSError, match="no certificates"):
            await loop.create_connection(asyncio.Protocol, "name", 80, ssl=True)
        await settle()
        assert descriptors() == before

    run(main())


def test_the_loop_ends_in_the_middle(addresses):
    loop = Several()
    loop.addresses = [addresses["silent"], addresses["one"]]
    before = None

    async def main():
        nonlocal before
        before = descriptors()
        tasks.append(
            asyncio.create_task(
                loop.create_connection(asyncio.Protocol, "name", 80, happy_eyeballs_delay=3600)
            )
        )
        await turns(10)

    tasks = []
    loop.run_until_complete(main())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
    assert tasks[0].cancelled()
    assert descriptors() <= before, sys.version
