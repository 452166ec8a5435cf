"""From the kernel to the protocol: pausing, changing the protocol, ends, failing protocols."""

import asyncio
import socket

import pytest

from .support import BufferedRecorder, Recorder, reset, tcp_pair

KINDS = [Recorder, BufferedRecorder]
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_megabytes_arrive_whole(loop, run, link, kind):
    async def main():
        protocol = kind()
        _, far = await link(protocol)
        data = bytes(range(256)) * (1 << 12)
        await loop.sock_sendall(far, data)
        assert await protocol.received(len(data)) == data

    run(main())


@kinds
def test_paused_in_connection_made(loop, run, link, kind):
    async def main():
        protocol = kind()
        made = protocol.connection_made

        def pause(transport):
            transport.pause_reading()
            made(transport)

        protocol.connection_made = pause
        transport, far = await link(protocol)
        assert not transport.is_reading()
        far.send(b"data")
        # A round trip through the driver: an unpaused transport would have read by then.
        await loop.sock_recv(*await ready_pair())
        assert protocol.data == b""
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.received(4) == b"data"

    async def ready_pair():
        near, far = socket.socketpair()
        near.setblocking(False)
        far.send(b"x")
        sockets.extend([near, far])
        return near, 1

    sockets = []
    run(main())
    for sock in sockets:
        sock.close()


@kinds
def test_paused_in_data_received(loop, run, link, kind):
    async def main():
        protocol = kind(*([2] if kind is BufferedRecorder else []))
        transport, far = await link(protocol)
        received = protocol.data_received

        def pause(data):
            received(data)
            transport.pause_reading()

        protocol.data_received = pause
        for n in range(1, 20):
            far.send(b"ab")
            await protocol.received(2 * n)
            assert not transport.is_reading()
            transport.resume_reading()
        assert protocol.data == b"ab" * 19

    run(main())


def test_pausing_twice_and_after_the_end(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        for _ in range(2):
            transport.pause_reading()
        for _ in range(2):
            transport.resume_reading()
        far.send(b"x")
        await protocol.received(1)
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()
        await protocol.lost()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()

    run(main())


def test_data_that_waited_in_the_kernel_comes_before_the_end(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.pause_reading()
        far.send(b"last words")
        far.close()
        transport.resume_reading()
        assert await protocol.lost() is None
        assert protocol.data == b"last words"
        assert protocol.log.index(("data", 10)) < protocol.log.index("eof") < protocol.log.index("lost")

    run(main())


@pytest.mark.parametrize("keep_open", [False, True])
@kinds
def test_the_end_of_the_stream(loop, run, link, kind, keep_open):
    async def main():
        protocol = kind()
        protocol.keep_open = keep_open
        transport, far = await link(protocol)
        far.shutdown(socket.SHUT_WR)
        await protocol.event("eof")
        assert transport.is_closing() is not keep_open
        if keep_open:
            transport.write(b"still here")
            assert await loop.sock_recv(far, 100) == b"still here"
            transport.close()
        assert await protocol.lost() is None
        assert protocol.log.count("eof") == protocol.log.count("lost") == 1
        assert await loop.sock_recv(far, 100) == b""

    run(main())


@pytest.mark.parametrize("then", ["set_protocol", "pause and resume"])
def test_a_kept_open_stream_ends_once(loop, run, link, then):
    """After the end was reported, nothing makes the transport read again."""

    async def main():
        protocol, second = Recorder(), Recorder()
        protocol.keep_open = second.keep_open = True
        transport, far = await link(protocol)
        far.shutdown(socket.SHUT_WR)
        await protocol.event("eof")
        if then == "set_protocol":
            transport.set_protocol(second)
        else:
            transport.pause_reading()
            transport.resume_reading()
        transport.write_eof()
        while await loop.sock_recv(far, 100):
            pass
        transport.abort()
        await (second if then == "set_protocol" else protocol).lost()
        assert protocol.log.count("eof") + second.log.count("eof") == 1

    run(main())


@kinds
def test_a_reset_by_the_peer(loop, run, kind):
    async def main():
        near, far = tcp_pair()
        protocol = kind()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        reset(far)
        assert isinstance(await protocol.lost(), ConnectionResetError)
        assert protocol.log == ["made", "lost"]
        assert transport.is_closing() and near.fileno() == -1

    run(main())


def test_a_reset_with_unread_data_and_reading_paused(loop, run):
    async def main():
        near, far = tcp_pair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        transport.pause_reading()
        far.send(b"unread")
        reset(far)
        transport.resume_reading()
        assert isinstance(await protocol.lost(), (ConnectionResetError, type(None)))
        assert protocol.log.count("lost") == 1

    run(main())


def test_urgent_data_does_not_stall_what_follows(loop, run):
    """A read ends short at the urgent mark; that was mistaken for an empty socket."""

    async def main():
        near, far = tcp_pair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        transport.pause_reading()
        far.send(b"abc")
        far.send(b"!", socket.MSG_OOB)
        far.send(b"def")
        transport.resume_reading()
        assert await protocol.received(6) == b"abcdef"
        transport.abort()
        await protocol.lost()
        far.close()

    run(main())


MESSAGES = {
    "data_received": "Fatal error: protocol.data_received() call failed.",
    "eof_received": "Fatal error: protocol.eof_received() call failed.",
    "get_buffer": "Fatal error: protocol.get_buffer() call failed.",
    "buffer_updated": "Fatal error: protocol.buffer_updated() call failed.",
}


@pytest.mark.parametrize("method", MESSAGES)
def test_a_failing_protocol_loses_its_connection(loop, run, link, contexts, method):
    async def main():
        protocol = (BufferedRecorder if "buffer" in method else Recorder)()
        error = LookupError(method)

        def fail(*args):
            raise error

        setattr(protocol, method, fail)
        transport, far = await link(protocol)
        far.send(b"data")
        far.shutdown(1)
        assert await protocol.lost() is error
        (context,) = contexts
        assert context["message"] == MESSAGES[method]
        assert context["exception"] is error
        assert context["transport"] is transport and context["protocol"] is protocol
        assert protocol.log.count("lost") == 1

    run(main())


@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
def test_a_failing_beginning_or_end_is_reported(loop, run, link, contexts, method):
    async def main():
        protocol = Recorder()
        original = getattr(protocol, method)

        def fail(argument):
            original(argument)
            raise LookupError(method)

        setattr(protocol, method, fail)
        transport, far = await link(protocol)
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        transport.close()
        await protocol.lost()
        await asyncio.sleep(0)
        (context,) = contexts
        assert isinstance(context["exception"], LookupError)
        assert protocol.log.count("lost") == 1
        assert await loop.sock_recv(far, 10) == b""

    run(main())


def test_switching_protocols_mid_stream(loop, run, link):
    """Protocol and BufferedProtocol in turn, each change made in the middle of a delivery: no byte is lost or doubled."""

    async def main():
        total = bytearray()
        size = 300_000
        done = loop.create_future()

        def count(data):
            total.extend(data)
            if len(total) >= size and not done.done():
                done.set_result(None)

        class Plain(asyncio.Protocol):
            def data_received(self, data):
                count(data)
                transport.set_protocol(Buffered())

        class Buffered(asyncio.BufferedProtocol):
            def __init__(self):
                self.buffer = bytearray(777)

            def get_buffer(self, hint):
                return self.buffer

            def buffer_updated(self, n):
                count(self.buffer[:n])
                transport.set_protocol(Plain())

        transport, far = await link(Plain())
        data = bytes(range(250)) * (size // 250)
        sending = asyncio.create_task(loop.sock_sendall(far, data))
        await done
        await sending
        assert total == data

    run(main())


@pytest.mark.parametrize("size", [1, 3, 100])
def test_tiny_buffers(loop, run, link, size):
    async def main():
        protocol = BufferedRecorder(size)
        _, far = await link(protocol)
        far.send(bytes(range(256)))
        assert await protocol.received(256) == bytes(range(256))
        assert all(event[1] <= size for event in protocol.log if event[0] == "data")

    run(main())


@pytest.mark.parametrize(
    "bad", [bytearray(), b"read-only", 5, None], ids=["empty", "read-only", "int", "None"]
)
def test_bad_buffers(loop, run, link, contexts, bad):
    async def main():
        protocol = BufferedRecorder()
        protocol.buffer = bad
        _, far = await link(protocol)
        far.send(b"data")
        assert isinstance(await protocol.lost(), (RuntimeError, BufferError, TypeError))
        assert contexts[0]["message"] == MESSAGES["get_buffer"]

    run(main())


@pytest.mark.parametrize("action", ["close", "abort", "pause_reading"])
def test_get_buffer_that_ends_the_reading(loop, run, link, action):
    async def main():
        protocol = BufferedRecorder()

        def get_buffer(hint):
            protocol.note("asked")
            getattr(transport, action)()
            return bytearray(10)

        protocol.get_buffer = get_buffer
        transport, far = await link(protocol)
        far.send(b"data")
        await protocol.event("asked")
        transport.abort()
        await protocol.lost()
        assert protocol.data == b""

    run(main())


def test_buffers_of_any_writable_kind(loop, run, link):
    async def main():
        protocol = BufferedRecorder()
        base = bytearray(64)
        protocol.buffer = memoryview(base)[16:32]
        _, far = await link(protocol)
        far.send(b"0123456789abcdefXYZ")
        assert await protocol.received(19) == b"0123456789abcdefXYZ"
        assert base[:16] == bytes(16) and base[32:] == bytes(32)

    run(main())


def test_passed_descriptors_end_a_read_but_not_the_stream(loop, run):
    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        transport.pause_reading()
        far.send(b"before ")
        socket.send_fds(far, [b"with "], [far.fileno()])
        far.send(b"after")
        transport.resume_reading()
        assert await protocol.received(17) == b"before with after"
        transport.close()
        await protocol.lost()
        far.close()

    run(main())


def test_one_busy_connection_does_not_starve_others(loop, run):
    async def main():
        pairs = [tcp_pair() for _ in range(2)]
        busy, quiet = BufferedRecorder(1), Recorder()
        first, _ = await loop.create_connection(lambda: busy, sock=pairs[0][0])
        second, _ = await loop.create_connection(lambda: quiet, sock=pairs[1][0])
        pairs[0][1].send(bytes(10_000))
        await busy.until(lambda: len(busy.data) > 0)
        pairs[1][1].send(b"x")
        await quiet.received(1)
        assert len(busy.data) < 10_000
        for transport, protocol in ((first, busy), (second, quiet)):
            transport.abort()
            await protocol.lost()
        for _, far in pairs:
            far.close()

    run(main())


@kinds
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_end_whose_callback_left_the_run_is_reported_again(loop, run, link, kind, error):
    class Leaving(kind):
        asked = 0

        def eof_received(self):
            self.asked += 1
            if self.asked == 1:
                raise error
            return super().eof_received()

    protocol = Leaving()

    async def main():
        _, far = await link(protocol)
        far.send(b"last")
        far.shutdown(socket.SHUT_WR)
        await protocol.lost()

    with pytest.raises(error):
        run(main())
    assert run(protocol.lost()) is None
    assert protocol.data == b"last" and protocol.asked == 2
