"""Every call into the program names its context: the caller's, or the transport's where there is no caller. None is the thread's own."""

import asyncio
import contextvars
import errno
import socket

import pytest

from .support import PATIENCE, reset, tcp_pair

var = contextvars.ContextVar("var", default="nobody's")


def fill(sock):
    sent = 0
    try:
        while True:
            sent += sock.send(b"f" * 64)
    except BlockingIOError:
        return sent


def drain(sock):
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


class Noting(asyncio.Protocol, asyncio.DatagramProtocol):
    """Records the context of each call, and raises from the methods that the test chooses."""

    def __init__(self, raises=()):
        self.seen, self.raises = [], raises
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, name):
        self.seen.append((name, var.get()))
        if name in self.raises:
            raise LookupError(name)

    def connection_made(self, transport):
        self.note("made")

    def data_received(self, data):
        self.note("data")

    def eof_received(self):
        self.note("eof")

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def datagram_received(self, data, address):
        self.note("datagram")

    def error_received(self, error):
        self.note("error")

    def connection_lost(self, error):
        self.lost.set_result(None)
        self.note("lost")


class NotingBuffered(asyncio.BufferedProtocol):
    def __init__(self, raises=()):
        self.noting = Noting(raises)
        self.seen, self.lost = self.noting.seen, self.noting.lost
        self.eof_received, self.connection_lost = self.noting.eof_received, self.noting.connection_lost
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint):
        self.noting.note("buffer")
        return self.buffer

    def buffer_updated(self, nbytes):
        self.noting.note("data")


@pytest.fixture
def reports(loop):
    """The arguments and the context of the exception handler's calls."""
    found = []
    loop.set_exception_handler(lambda loop, context: found.append((type(context["exception"]), var.get())))
    return found


def test_resume_writing_at_a_turns_end(run):
    async def main():
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        ours.setblocking(False)
        theirs.setblocking(False)
        var.set("the transport's")
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_accepted_socket(lambda: Noting(["resume"]), ours)
        transport.set_write_buffer_limits(high=100, low=10)
        var.set("the writer's")
        await asyncio.sleep(0)
        fill(ours)
        theirs.recv(1 << 20)
        theirs.recv(fill(ours) // 2)
        transport.write(b"1")
        for _ in range(3):
            transport.write(b"y" * 50)
        fill(ours)
        transport.write(b"z" * 60)
        drain(theirs)
        await asyncio.sleep(0)
        while ("resume", "the transport's") not in protocol.seen:
            drain(theirs)
            await asyncio.sleep(0)
        assert protocol.seen == [
            ("made", "the transport's"),
            ("pause", "the writer's"),
            ("resume", "the transport's"),
        ]
        transport.abort()
        await protocol.lost
        theirs.close()

    run(main())


@pytest.mark.parametrize("raises", [(), ["data"], ["eof"], ["buffer"], ["data", "lost"]], ids="-".join)
@pytest.mark.parametrize("kind", [Noting, NotingBuffered])
def test_callbacks_and_errors_of_a_stream(loop, run, reports, kind, raises):
    async def main():
        ours, theirs = tcp_pair()
        var.set("the transport's")
        transport, protocol = await loop.connect_accepted_socket(lambda: kind(raises), ours)
        var.set("the test's")
        theirs.sendall(b"some")
        theirs.shutdown(socket.SHUT_WR)
        await protocol.lost
        await asyncio.sleep(0)
        theirs.close()
        transport.close()
        return protocol.seen

    seen = run(main())
    assert {context for _, context in seen + reports} == {"the transport's"}
    if raises and (kind is NotingBuffered or raises != ["buffer"]):
        assert reports


@pytest.mark.parametrize("raises", [(), ["lost"]], ids=["", "lost"])
def test_a_stream_that_is_reset(loop, run, reports, raises):
    async def main():
        ours, theirs = tcp_pair()
        var.set("the transport's")
        _, protocol = await loop.connect_accepted_socket(lambda: Noting(raises), ours)
        var.set("the test's")
        reset(theirs)
        await protocol.lost
        await asyncio.sleep(0)
        return protocol.seen

    assert {context for _, context in run(main()) + reports} == {"the transport's"}


@pytest.mark.parametrize("raises", [[], ["datagram"], ["error"]], ids="-".join)
def test_a_datagram_transport(loop, run, reports, raises):
    async def main():
        var.set("the transport's")
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Noting(raises), local_addr=("127.0.0.1", 0)
        )
        gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        gone.bind(("127.0.0.1", 0))
        transport_to_nobody, refused = await loop.create_datagram_endpoint(
            lambda: Noting(raises), remote_addr=gone.getsockname()
        )
        gone.close()
        var.set("the test's")
        transport_to_nobody.sendto(b"1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"2", transport.get_extra_info("sockname"))
        async with asyncio.timeout(PATIENCE):
            while len(protocol.seen) < 2 or len(refused.seen) < 2:
                await asyncio.sleep(0)
        transport.close()
        transport_to_nobody.close()
        await asyncio.gather(protocol.lost, refused.lost)
        await asyncio.sleep(0)
        return protocol.seen + refused.seen

    seen = run(main())
    assert {context for _, context in seen + reports} == {"the transport's"}
    assert bool(reports) == bool(raises)


def test_a_protocol_factory_that_fails(loop, run, reports):
    def fail():
        raise LookupError

    async def main():
        var.set("the server's")
        server = await loop.create_server(fail, "127.0.0.1", 0)
        var.set("the test's")
        client = socket.create_connection(server.sockets[0].getsockname())
        async with asyncio.timeout(PATIENCE):
            while not reports:
                await asyncio.sleep(0)
        client.close()
        server.close()

    run(main())
    assert reports == [(LookupError, "the server's")]


def test_the_exception_handler_for_a_callback(loop, turn, reports):
    def fail():
        raise LookupError

    context = contextvars.copy_context()
    context.run(var.set, "the callback's")
    loop.call_soon(fail, context=context)
    loop.call_later(0, fail, context=context)
    context.run(loop.call_soon_threadsafe, fail)
    turn()
    turn()
    assert reports == [(LookupError, "the callback's")] * 3


def test_a_callback_that_cannot_be_shown(loop, turn, contexts):
    class Shy:
        def __repr__(self):
            raise OSError(errno.EIO, "not seen")

        def __call__(self):
            raise LookupError

    loop.call_soon(Shy())
    turn()
    (context,) = contexts
    assert type(context["exception"]) is LookupError
    assert context["message"] == "Exception in callback <callback that cannot be shown>"
