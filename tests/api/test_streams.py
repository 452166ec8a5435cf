"""Native streams: what of them is not in CPython's own tests."""

import asyncio
import gc
import inspect
import socket
import threading
import warnings
import weakref
from contextlib import suppress
from typing import Any

import pytest

import tokioloop

from ..loop.support import PATIENCE

LIMIT = 2**16


@pytest.fixture
def reader(loop):
    return tokioloop.StreamReader(LIMIT, loop)


def at_once(awaitable: Any) -> Any:
    """The result of what does not have to wait."""
    with pytest.raises(StopIteration) as stop:
        awaitable.send(None)
    return stop.value.value


# A read on its own.


def test_a_read_that_finds_its_bytes_awaits_nothing(reader):
    reader.feed_data(b"one\ntwo\nand so on")
    assert at_once(reader.readline()) == b"one\n"
    assert at_once(reader.readuntil(b"\n")) == b"two\n"
    assert at_once(reader.readexactly(3)) == b"and"
    assert at_once(reader.read(100)) == b" so on"
    assert reader._waiter is None


def test_a_piece_that_is_read_as_a_whole_is_not_copied(reader):
    piece = b"a piece of some length"
    for read in (reader.read, reader.readexactly):
        reader.feed_data(piece)
        assert at_once(read(len(piece))) is piece
    reader.feed_data(b"line\n")
    line = b"another line\n"
    assert at_once(reader.readline()) == b"line\n"
    reader.feed_data(line)
    assert at_once(reader.readline()) is line


def test_nothing_happens_before_it_is_awaited(reader):
    read = reader.read(2)
    reader.feed_data(b"abc")
    assert reader._buffer == b"abc"
    assert at_once(read) == b"ab"


@pytest.mark.parametrize("name", ["read", "readline", "readuntil", "__anext__"])
def test_what_is_never_awaited_says_so(reader, name):
    with pytest.warns(RuntimeWarning, match=rf"coroutine 'StreamReader.{name}' was never awaited"):
        getattr(reader, name)()


def test_its_names(reader):
    read = reader.readexactly(1)
    assert (read.__name__, read.__qualname__) == ("readexactly", "StreamReader.readexactly")
    assert repr(read).startswith("<coroutine object StreamReader.readexactly at 0x")
    assert asyncio.iscoroutine(read)
    read.close()


def test_once_only(reader):
    reader.feed_data(b"a")
    read = reader.read(1)
    at_once(read)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.throw(KeyError)
    read.close()
    closed = reader.read(1)
    closed.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        closed.send(None)


def test_in_a_task(loop, run, reader):
    async def main():
        tasks = [loop.create_task(reader.readexactly(3)), loop.create_task(reader.read(1))]
        await asyncio.sleep(0)
        assert "StreamReader.readexactly" in repr(tasks[0])
        with pytest.raises(RuntimeError, match=r"read\(\) called while another coroutine is already waiting"):
            await tasks[1]
        reader.feed_data(b"abc")
        assert await tasks[0] == b"abc"
        reader.feed_data(b"d")
        assert await asyncio.wait_for(reader.read(10), PATIENCE) == b"d"
        reader.feed_eof()
        assert await asyncio.gather(reader.read(1), reader.read()) == [b"", b""]

    run(main())


def test_a_read_that_is_cancelled_takes_nothing(loop, run, reader):
    async def main():
        for already_woken in (False, True):
            reading = loop.create_task(reader.readexactly(2))
            await asyncio.sleep(0)
            waiter = reader._waiter
            assert waiter is not None
            if already_woken:
                reader.feed_data(b"ab")
                assert waiter.done()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert reader._waiter is None
            if not already_woken:
                reader.feed_data(b"xy")
            assert at_once(reader.read(2)) == (b"ab" if already_woken else b"xy")

    run(main())


def test_a_read_that_is_dropped_waits_no_more(reader):
    read = reader.read(1)
    read.send(None)
    assert reader._waiter is not None
    del read
    gc.collect()
    assert reader._waiter is None


def test_one_thread_steps_it(loop, reader):
    """While it is being stepped, other threads are refused; nothing breaks."""

    class Transport:
        def pause_reading(self):
            pass

        def resume_reading(self):
            inside.set()
            assert go_on.wait(PATIENCE)

    inside, go_on = threading.Event(), threading.Event()
    reader.set_transport(Transport())
    reader.feed_data(bytes(3 * LIMIT))
    read = reader.read(2 * LIMIT)
    results = []
    thread = threading.Thread(target=lambda: results.append(at_once(read)))
    thread.start()
    assert inside.wait(PATIENCE)
    for step in (lambda: read.send(None), lambda: read.throw(KeyError), read.close):
        with pytest.raises(ValueError, match="already executing"):
            step()
    assert read.cr_running
    go_on.set()
    thread.join()
    assert results == [bytes(2 * LIMIT)]


def test_fed_and_read_by_many_threads(loop):
    """A reader belongs to one thread; used by several it may mix up what it is asked, but not its memory."""
    reader = tokioloop.StreamReader(1000, loop)
    failures: list[BaseException] = []
    end = threading.Event()

    def work(n: int) -> None:
        try:
            for count in range(3000):
                if end.is_set():
                    return
                if n % 2:
                    reader.feed_data(b"line %d\n" % count)
                else:
                    read = [reader.readline, lambda: reader.read(7), lambda: reader.readexactly(3)][
                        count % 3
                    ]()
                    with suppress(StopIteration, RuntimeError, ValueError, asyncio.LimitOverrunError):
                        read.send(None)
                    read.close()
                    repr(reader)
        except BaseException as error:
            failures.append(error)
            end.set()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# The buffer, as asyncio has it.


def test_the_buffer_is_live(reader):
    reader.feed_data(b"abc")
    buffer = reader._buffer
    assert isinstance(buffer, bytearray) and buffer == b"abc"
    buffer += b"def"
    reader.feed_data(b"ghi")
    assert at_once(reader.read(4)) == b"abcd"
    assert reader._buffer is buffer and buffer == b"efghi"
    buffer.clear()
    reader.feed_data(b"x")
    assert buffer == b"x"
    reader._buffer = bytearray(b"other")
    assert at_once(reader.read(10)) == b"other"
    with pytest.raises(TypeError):
        reader._buffer = b"bytes"


def test_a_buffer_that_is_held_refuses_to_grow(reader):
    reader.feed_data(b"abc")
    with memoryview(reader._buffer) as view:
        with pytest.raises(BufferError):
            reader.feed_data(b"d")
        assert view == b"abc"
    reader.feed_data(b"d")
    assert at_once(reader.read(10)) == b"abcd"


# Derived classes.


def test_what_a_derived_reader_overrides_is_called(loop, run):
    class Reader(tokioloop.StreamReader):
        def __init__(self, loop):
            super().__init__(loop=loop)
            self.calls = []

        async def readuntil(self, separator=b"\n"):
            self.calls.append(("readuntil", separator))
            return await super().readuntil(separator)

        def feed_data(self, data):
            self.calls.append(("feed_data", data))
            super().feed_data(data)

    async def main():
        reader = Reader(loop)
        protocol = tokioloop.StreamReaderProtocol(reader, loop=loop)
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            theirs.sendall(b"line\n")
            assert await reader.readline() == b"line\n"
            theirs.sendall(b"another\n")
            assert [line async for line in take(reader, 1)] == [b"another\n"]
            transport.close()
        return reader.calls

    async def take(reader, count):
        async for line in reader:
            yield line
            count -= 1
            if not count:
                break

    newline = ("readuntil", b"\n")
    calls = run(main())
    assert sorted(calls, key=repr) == sorted(
        [newline, newline, ("feed_data", b"line\n"), ("feed_data", b"another\n")], key=repr
    )


def test_what_a_derived_protocol_overrides_is_called(loop, run):
    class Protocol(tokioloop.StreamReaderProtocol):
        def data_received(self, data):
            super().data_received(data.upper())

    async def main():
        reader = tokioloop.StreamReader(loop=loop)
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(lambda: Protocol(reader, loop=loop), sock=ours)
            theirs.sendall(b"abc")
            assert await reader.readexactly(3) == b"ABC"
            transport.close()

    run(main())


def test_they_are_asyncios(loop, reader):
    assert isinstance(reader, asyncio.StreamReader)
    protocol = tokioloop.StreamReaderProtocol(reader, loop=loop)
    assert isinstance(protocol, asyncio.StreamReaderProtocol)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
        transport.close()
        assert isinstance(tokioloop.StreamWriter(transport, protocol, reader, loop), asyncio.StreamWriter)
        with pytest.raises(AssertionError):
            tokioloop.StreamWriter(transport, protocol, object(), loop)
        loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_above_zero(loop, limit):
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        tokioloop.StreamReader(limit, loop)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda reader: reader.read(1, 2), "read"),
        (lambda reader: reader.read(m=1), "unexpected keyword"),
        (lambda reader: reader.read("1"), "integer"),
        (lambda reader: reader.readexactly(), "missing"),
        (lambda reader: reader.readuntil(b"a", b"b"), "readuntil"),
        (lambda reader: tokioloop.StreamReader(1, None, 2), "positional"),
        (lambda reader: tokioloop.StreamReader(bound=1), "unexpected keyword"),
        (lambda reader: at_once(reader.readuntil(1)), "bytes-like"),
    ],
)
def test_wrong_arguments(reader, call, text):
    with pytest.raises(TypeError, match=text):
        call(reader)


# Connections.


async def echo(reader, writer):
    while data := await reader.read(LIMIT):
        writer.write(data)
        await writer.drain()
    writer.close()


def other_loop():
    return asyncio.SelectorEventLoop()


@pytest.mark.parametrize("make", [tokioloop.TokioLoop, other_loop], ids=["tokioloop", "asyncio"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_server_and_its_client_on_any_loop(make, unix, tmp_path):
    async def main():
        if unix:
            path = str(tmp_path / "socket")
            server = await tokioloop.start_unix_server(echo, path)
            reader, writer = await tokioloop.open_unix_connection(path)
        else:
            server = await tokioloop.start_server(echo, "127.0.0.1", 0)
            reader, writer = await tokioloop.open_connection(*server.sockets[0].getsockname())
        async with server:
            sent = bytes(range(256)) * 5000
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent
            writer.writelines([b"last", b" ", b"line\n"])
            assert await reader.readline() == b"last line\n"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE))


def test_drain_waits_while_the_protocol_is_paused(loop, run):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            _reader, writer = await tokioloop.open_connection(sock=ours)
            writer.transport.set_write_buffer_limits(high=0)
            at_once(writer.drain())
            data = bytes(4 << 20)
            writer.write(data)
            draining = loop.create_task(writer.drain())
            await asyncio.sleep(0)
            assert not draining.done()
            got = 0
            while got < len(data):
                got += len(await loop.sock_recv(theirs, LIMIT))
            await draining
            writer.write(data)
            draining = loop.create_task(writer.drain())
            await asyncio.sleep(0)
            draining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await draining
            assert not writer._protocol._drain_waiters
            draining = loop.create_task(writer.drain())
            await asyncio.sleep(0)
            writer.transport.abort()
            await draining
            with pytest.raises(ConnectionResetError, match="Connection lost"):
                await writer.drain()

    run(main())


def test_drain_raises_what_the_reader_has(loop, run):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await tokioloop.open_connection(sock=ours)
            reader.set_exception(LookupError("of the reader"))
            with pytest.raises(LookupError, match="of the reader"):
                await writer.drain()
            writer.close()

    run(main())


def test_a_fast_sender_is_paused_and_resumed(loop, run):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            reader, writer = await tokioloop.open_connection(sock=ours, limit=1000)
            sending = loop.create_task(loop.sock_sendall(theirs, bytes(1 << 20)))
            while writer.transport.is_reading():
                await asyncio.sleep(0)
            assert not sending.done()
            assert await reader.readexactly(1 << 20) == bytes(1 << 20)
            await sending
            assert writer.transport.is_reading()
            writer.close()

    run(main())


def test_a_connection_that_nobody_holds_is_closed_with_a_warning(loop, run):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.settimeout(PATIENCE)
            reader, writer = await tokioloop.open_connection(sock=ours)
            gone = weakref.ref(reader), weakref.ref(writer)
            with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
                del reader, writer
                gc.collect()
            assert [ref() for ref in gone] == [None, None]
            await asyncio.sleep(0)
            assert await loop.run_in_executor(None, theirs.recv, 1) == b""

    run(main())


def test_what_ended_a_connection_need_not_be_asked_for(loop, run, contexts):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await tokioloop.open_connection(sock=ours)
            protocol = writer._protocol
            protocol.cycle = protocol
            writer.transport._force_close(ConnectionResetError("reset"))
            with pytest.raises(ConnectionResetError):
                await reader.read()
        del reader, writer, protocol

    run(main())
    gc.collect()
    run(asyncio.sleep(0))
    assert contexts == []


def test_errors_of_a_servers_callback_are_reported_and_close_the_connection(loop, run, contexts):
    async def fails(reader, writer):
        raise LookupError("callback")

    async def main():
        server = await tokioloop.start_server(fails, "127.0.0.1", 0)
        reader, writer = await tokioloop.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        server.close()
        [context] = contexts
        assert context["message"] == "Unhandled exception in client_connected_cb"
        assert isinstance(context["exception"], LookupError) and context["transport"].is_closing()

    run(main())


# install()


def test_install_makes_asyncios_functions_native_on_our_loops():
    async def kinds():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.streams.open_connection(*server.sockets[0].getsockname())
        writer.close()
        server.close()
        return type(reader), type(writer)

    originals = asyncio.open_connection, asyncio.start_server
    tokioloop.install()
    try:
        assert asyncio.open_connection.__name__ == "open_connection"
        assert inspect.iscoroutinefunction(asyncio.open_connection)
        assert tokioloop.run(kinds()) == (tokioloop.StreamReader, tokioloop.StreamWriter)
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            assert runner.run(kinds()) == (asyncio.StreamReader, asyncio.StreamWriter)
    finally:
        tokioloop.uninstall()
    assert (asyncio.open_connection, asyncio.start_server) == originals


@pytest.fixture(autouse=True)
def no_warnings_of_others():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield


# What a review found.


def test_a_method_that_is_inherited_from_beside_is_called(loop):
    calls = []

    class Beside:
        async def readuntil(self, separator=b"\n"):
            calls.append("readuntil")
            return await super().readuntil(separator)

        def _wakeup_waiter(self):
            calls.append("_wakeup_waiter")
            super()._wakeup_waiter()

    class Reader(Beside, tokioloop.StreamReader):
        pass

    reader = Reader(loop=loop)
    reader.feed_data(b"a\n")
    reader.feed_eof()
    assert at_once(reader.readline()) == b"a\n"
    assert calls == ["_wakeup_waiter", "_wakeup_waiter", "readuntil"]


def test_who_looks_at_a_read_does_not_keep_it_from_being_stepped(loop, run, reader):
    under_way, end = [], threading.Event()

    def look():
        while not end.is_set():
            for read in under_way[-1:]:
                read.cr_await  # noqa: B018 - that it is looked up is the test
                read.cr_running  # noqa: B018

    async def main():
        for n in range(5000):
            read = reader.readexactly(1)
            under_way.append(read)
            task = loop.create_task(read)
            await asyncio.sleep(0)
            reader.feed_data(b"%d" % (n % 10))
            assert await task == b"%d" % (n % 10)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        run(main())
    finally:
        end.set()
        thread.join()


def test_a_protocols_reader_is_a_weak_reference(loop, reader):
    protocol = tokioloop.StreamReaderProtocol(reader, loop=loop)
    with pytest.raises(TypeError):
        protocol._stream_reader_wr = lambda: reader
    protocol.data_received(b"abc")
    assert at_once(reader.read(10)) == b"abc"
    protocol._stream_reader_wr = None
    protocol.data_received(b"nobody reads it")


def test_arguments_by_name(loop, run, reader):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            _reader, writer = await tokioloop.open_connection(sock=ours)
            writer.write(data=b"by name")
            assert theirs.recv(100) == b"by name"
            with pytest.raises(TypeError, match="missing required argument 'data'"):
                writer.write()
            writer.close()

    run(main())
    reader.feed_data(data=b"abc")
    assert at_once(reader.read(n=10)) == b"abc"


def test_sizes_beyond_any_stream(loop):
    reader = tokioloop.StreamReader(2**80, loop)
    reader.feed_data(b"abc")
    assert at_once(reader.read(2**70)) == b"abc"
    reader.feed_data(b"line\n")
    assert at_once(reader.readline()) == b"line\n"
    reader.feed_data(b"all")
    reader.feed_eof()
    assert at_once(reader.read(-(2**70))) == b"all"
    with pytest.raises(asyncio.IncompleteReadError):
        reader.readexactly(2**70).send(None)


def test_a_set_stop_iteration_is_no_result(reader):
    reader.set_exception(StopIteration("no result"))
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        reader.read(1).send(None)
