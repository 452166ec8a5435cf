"""Transports that are paused and have nothing to send are kept alive by their users only.

As with asyncio's selectors: the loop keeps a transport alive that reads or sends, and no other.
"""

import asyncio
import gc
import os
import socket
import sysconfig
import threading
import warnings
import weakref

import pytest

import tokioloop

from .support import PATIENCE, Recorder, collected, unix_pair

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(params=["tokioloop", "asyncio"])
def any_loop(request):
    loop = tokioloop.TokioLoop() if request.param == "tokioloop" else asyncio.SelectorEventLoop()
    yield loop
    loop.close()


async def paused(sock):
    """A paused transport on *sock*; the result is the only reference to it."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    transport.pause_reading()
    return transport


async def recording(sock):
    """A protocol with a transport on *sock*."""
    protocol = Recorder()
    await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
    return protocol


async def ended(far):
    """Wait until the other end of *far* is closed."""
    assert await asyncio.get_running_loop().sock_recv(far, 1) == b""


def test_a_paused_transport_is_collected_closed_and_warned_of(any_loop):
    async def main():
        near, far = unix_pair()
        said = []
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # Without the source, which would keep it alive.
            warnings.showwarning = lambda message, *args, **options: said.append(str(message))
            reference = weakref.ref(await paused(near))
            del near
            assert collected(reference)
        assert any("unclosed transport" in text for text in said)
        await ended(far)
        far.close()

    any_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))


def test_a_read_pipe_that_is_paused(any_loop):
    async def main():
        read, write = os.pipe()
        with open(write, "wb", 0):
            transport, _ = await any_loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb", 0))
            transport.pause_reading()
            reference = weakref.ref(transport)
            del transport
            assert collected(reference)
            with pytest.raises(BrokenPipeError):
                os.write(write, b"x")

    any_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))


def test_children_with_unread_output(any_loop):
    """Killed and waited for in the middle of their output, as after a timeout: none of their descriptors stays open."""

    async def child():
        process = await asyncio.create_subprocess_exec("/bin/cat", "/dev/zero", stdout=-1, limit=1024)
        await process.stdout.readexactly(1000)
        while process.stdout._transport.is_reading():
            await asyncio.sleep(0)
        process.kill()
        assert await process.wait() < 0

    async def main():
        await child()
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await child()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    any_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))


def test_a_transport_that_reads_or_sends_is_kept(any_loop):
    async def main():
        near, far = unix_pair()
        references = [weakref.ref(await recording(near))]
        references[0]().transport = None
        del near
        gc.collect()
        assert references[0]() is not None, "it reads"

        near, sink = unix_pair()
        transport = await paused(near)
        transport.write(bytes(1 << 22))
        assert transport.get_write_buffer_size() > 0
        references.append(weakref.ref(transport))
        del transport, near
        gc.collect()
        assert references[1]() is not None, "it sends"
        received = 0
        while received < 1 << 22:
            received += len(await any_loop.sock_recv(sink, 1 << 20))
        await asyncio.sleep(0)
        assert collected(references[1]), "it has sent all"
        await ended(sink)
        sink.close()

        far.close()
        while references[0]() is not None:
            await asyncio.sleep(0)
            gc.collect()

    any_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))


def test_a_transport_that_rested_goes_on(any_loop):
    async def main():
        near, far = unix_pair()
        protocol = await recording(near)
        transport = protocol.transport
        for number in range(3):
            transport.pause_reading()
            gc.collect()
            far.send(b"in")
            transport.write(b"out")
            assert await any_loop.sock_recv(far, 10) == b"out"
            assert len(protocol.data) == 2 * number
            transport.resume_reading()
            await protocol.received(2 * number + 2)
        reference = weakref.ref(protocol)
        transport.pause_reading()
        transport.resume_reading()
        del transport, protocol, near
        gc.collect()
        assert reference() is not None, "it reads again"
        reference().transport.close()
        await reference().lost()
        far.close()

    any_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))


def test_a_server_notices_that_its_last_connection_was_collected(any_loop):
    async def main():
        made = asyncio.Event()

        class Paused(asyncio.Protocol):
            def connection_made(self, transport):
                transport.pause_reading()
                made.set()

        server = await any_loop.create_server(Paused, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await made.wait()
            server.close()
            waiting = asyncio.create_task(server.wait_closed())
            while not waiting.done():
                await asyncio.sleep(0)
                gc.collect()
            await waiting

    any_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))


def test_the_number_of_a_collected_transport_is_free_for_others(loop, run):
    async def main():
        for _ in range(3):
            near, far = unix_pair()
            number = near.fileno()
            reference = weakref.ref(await paused(near))
            del near
            assert collected(reference)
            near, other = unix_pair()
            if near.fileno() != number:
                os.dup2(near.fileno(), number)
                near.close()
                near = socket.socket(fileno=number)
                near.setblocking(False)
            other.send(b"x")
            assert await loop.sock_recv(near, 1) == b"x"
            protocol = await recording(near)
            other.send(b"y")
            assert await protocol.received(1) == b"y"
            protocol.transport.abort()
            await protocol.lost()
            other.close()
            far.close()

    run(main())


def test_the_last_reference_goes_in_another_thread(elsewhere):
    """While the loop runs, and makes new transports of the numbers that become free."""
    rounds = 20

    async def make():
        near, far = unix_pair()
        return [await paused(near)], far

    async def busy(stop):
        while not stop.is_set():
            near, far = unix_pair()
            protocol = await recording(near)
            far.send(b"x")
            assert await protocol.received(1) == b"x"
            protocol.transport.abort()
            await protocol.lost()
            far.close()

    stop = threading.Event()
    working = asyncio.run_coroutine_threadsafe(busy(stop), elsewhere.loop)
    for _ in range(rounds):
        transports, far = elsewhere.wait(make())
        transports.clear()
        gc.collect()
        far.settimeout(PATIENCE)
        assert far.recv(1) == b""
        far.close()
    stop.set()
    working.result(PATIENCE)


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="there a transport is collected in the thread that made it, in whichever thread it is dropped",
)
def test_the_number_of_a_transport_that_is_being_collected_is_free(elsewhere):
    """The loop still finds the transport while its socket, in another thread, is closed already."""
    entered, closed, looked = threading.Event(), threading.Event(), threading.Event()

    class Watched(socket.socket):
        def close(self):
            super().close()
            closed.set()
            assert looked.wait(PATIENCE)

    async def make():
        near, far = unix_pair()
        sock = Watched(fileno=near.detach())
        sock.setblocking(False)
        return sock.fileno(), [await paused(sock)], far

    async def look(number):
        """In one turn, in which posts of other threads are not read."""
        entered.set()
        assert closed.wait(PATIENCE)
        made = []
        try:
            while number not in map(socket.socket.fileno, made):
                made += unix_pair()
            elsewhere.loop.add_reader(number, print)
            elsewhere.loop.remove_reader(number)
        finally:
            looked.set()
            for sock in made:
                sock.close()

    number, transports, far = elsewhere.wait(make())
    looking = asyncio.run_coroutine_threadsafe(look(number), elsewhere.loop)
    assert entered.wait(PATIENCE)
    transports.clear()
    gc.collect()
    looking.result(PATIENCE)
    far.close()
