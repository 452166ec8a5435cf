"""Native streams as Python objects: derived classes, what they are instances of, attributes, arguments."""

import asyncio
import socket

import pytest

import tokioloop

from .streams_support import at_once


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


def test_overrides_of_a_derived_reader_are_called(loop, run):
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


def test_a_method_of_another_base_class_is_called(loop):
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


def test_overrides_of_a_derived_protocol_are_called(loop, run):
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


def test_a_protocols_reader_is_a_weak_reference(loop, reader):
    protocol = tokioloop.StreamReaderProtocol(reader, loop=loop)
    with pytest.raises(TypeError):
        protocol._stream_reader_wr = lambda: reader
    protocol.data_received(b"abc")
    assert at_once(reader.read(10)) == b"abc"
    protocol._stream_reader_wr = None
    protocol.data_received(b"unread data")


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
