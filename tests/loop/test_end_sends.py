"""What was written before a connection ends is sent, however it ends, though it was held until the turn's end."""

import asyncio
import contextlib
import os
import socket

import pytest

from .datagrams import LOOPBACK
from .datagrams import Recorder as DatagramRecorder
from .support import PATIENCE, Recorder, python, receive_all, receive_exactly

WRITTEN = b"one two three"


def write_pieces(transport):
    """More than one in a turn: only the first goes to the kernel at once."""
    for piece in (b"one ", b"two ", b"three"):
        transport.write(piece)


class Failing(Recorder):
    """Writes, and then fails in one of its callbacks."""

    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error

    def _fail(self, where):
        if where == self.where:
            write_pieces(self.transport)
            raise self.error

    def data_received(self, data):
        super().data_received(data)
        self._fail("data_received")

    def eof_received(self):
        self._fail("eof_received")
        return True


class FailingBuffer(asyncio.BufferedProtocol):
    def __init__(self, where, error):
        self.where, self.error = where, error
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def _fail(self, where):
        if where == self.where:
            write_pieces(self.transport)
            raise self.error

    def get_buffer(self, hint):
        self._fail("get_buffer")
        return bytearray(100)

    def buffer_updated(self, count):
        self._fail("buffer_updated")

    def connection_lost(self, error):
        self.ended.set_result(error)


@pytest.mark.parametrize("error", [ValueError("of the program"), OSError(5, "of the program")], ids=repr)
@pytest.mark.parametrize("where", ["data_received", "eof_received"])
def test_a_callback_fails(loop, run, link, contexts, where, error):
    async def main():
        protocol = Failing(where, error)
        _, far = await link(protocol)
        if where == "data_received":
            far.send(b"x")
        else:
            far.shutdown(socket.SHUT_WR)
        assert await receive_all(far) == WRITTEN
        assert await protocol.lost() is error

    run(main())
    # As asyncio: an error of the system is none of the program's.
    assert [context["exception"] for context in contexts] == [error] * (not isinstance(error, OSError))


@pytest.mark.parametrize("where", ["get_buffer", "buffer_updated"])
def test_a_callback_of_a_buffered_protocol_fails(loop, run, link, contexts, where):
    error = ValueError("of the program")

    async def main():
        protocol = FailingBuffer(where, error)
        _, far = await link(protocol)
        far.send(b"x")
        # Not to its end: unread data resets the connection.
        assert await receive_exactly(far, len(WRITTEN)) == WRITTEN
        assert await protocol.ended is error

    run(main())
    assert len(contexts) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_error_that_leaves_the_run(loop, run, link, error):
    protocol = Failing("data_received", error())
    transport, far = run(link(protocol))
    far.send(b"x")
    with pytest.raises(error):
        loop.run_forever()
    assert far.recv(100) == WRITTEN
    transport.close()
    assert run(receive_all(far)) == b""


@pytest.mark.parametrize("end", ["abort", "_force_close", "close", "write_eof"])
def test_ends_of_a_users_making(loop, run, link, end):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        await asyncio.sleep(0)
        write_pieces(transport)
        if end == "_force_close":
            transport._force_close(ValueError("of the program"))
        else:
            getattr(transport, end)()
        assert await receive_all(far) == WRITTEN
        transport.close()
        await protocol.lost()

    run(main())


def test_what_the_exception_handler_writes(loop, run, link):
    """The connection is still open when its error is told."""

    async def main():
        protocol = Failing("data_received", ValueError("of the program"))
        _, far = await link(protocol)
        loop.set_exception_handler(lambda loop, context: context["transport"].write(b" four"))
        far.send(b"x")
        assert await receive_all(far) == WRITTEN + b" four"
        await protocol.lost()

    run(main())


def test_another_transports_error_at_the_turns_end(loop, run, link):
    """One that leaves the run does not keep what others have written."""

    class Impatient(Recorder):
        def resume_writing(self):
            raise KeyboardInterrupt

    def fill():
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(64))

    def write():
        for transport in (first, second):
            write_pieces(transport)
        fill()
        # Over the limit, while the kernel takes nothing; at the turn's end it does again.
        first.write(bytes(100))
        assert first.get_write_buffer_size() > 100
        with contextlib.suppress(BlockingIOError):
            while other_end.recv(1 << 20):
                pass

    near, other_end = socket.socketpair()
    with other_end:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        near.setblocking(False)
        other_end.setblocking(False)
        first, _ = run(loop.create_connection(Impatient, sock=near))
        first.set_write_buffer_limits(high=100, low=10)
        second, far = run(link(Recorder()))
        loop.call_soon(write)
        loop.call_soon(loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert far.recv(100) == WRITTEN
        first.abort()
        run(asyncio.sleep(0))


@pytest.mark.parametrize("end", ["sys.exit(0)", "raise KeyboardInterrupt", "loop.stop()", "return"])
def test_the_process_ends_right_after(end):
    done = python(
        """
        import asyncio, os, socket, sys, threading, tokioloop

        near, far = socket.socketpair()
        pid = os.fork()
        if pid:
            near.close()
            got = b""
            while data := far.recv(100):
                got += data
            os.waitpid(pid, 0)
            assert got == b"one two three", got
            sys.exit(0)
        far.close()
        loop = tokioloop.TokioLoop()

        async def main():
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            await asyncio.sleep(0)
            for piece in (b"one ", b"two ", b"three"):
                transport.write(piece)
            END

        try:
            loop.run_until_complete(main())
        except BaseException:
            pass
        os._exit(0)
        """.replace("END", end)
    )
    assert done.returncode == 0


class Answering(DatagramRecorder):
    """Answers each datagram, and ends the transport at the third."""

    def __init__(self, end):
        super().__init__()
        self.end, self.count = end, 0

    def datagram_received(self, data, address):
        self.count += 1
        self.transport.sendto(b"answer %d" % self.count, address)
        if self.count == 3:
            self.end(self.transport)


def _interrupt(transport):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "end",
    [
        lambda transport: transport.abort(),
        lambda transport: transport.close(),
        lambda transport: transport._force_close(ValueError()),
        _interrupt,
    ],
    ids=["abort", "close", "force_close", "interrupt"],
)
def test_datagrams_sent_while_a_batch_is_delivered(loop, run, endpoint, end):
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(LOOPBACK)
    peer.settimeout(PATIENCE)
    with peer:

        async def main():
            transport, _ = await endpoint(Answering(end))
            for _ in range(5):
                peer.sendto(b"x", transport.get_extra_info("sockname"))
            await asyncio.sleep(0.05)

        try:
            run(main())
        except KeyboardInterrupt:
            assert end is _interrupt
        assert [peer.recv(100) for _ in range(3)] == [b"answer 1", b"answer 2", b"answer 3"]


def test_a_pipe_holds_nothing(loop, run):
    async def main():
        reading, writing = os.pipe()
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb", 0))
        write_pieces(transport)
        assert os.read(reading, 100) == WRITTEN
        transport.close()
        os.close(reading)

    run(main())
