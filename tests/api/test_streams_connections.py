"""Native streams on connections: servers and clients, flow control both ways, ends."""

import asyncio
import gc
import socket
import weakref

import pytest

import tokioloop

from ..loop.support import PATIENCE
from .streams_support import LIMIT, at_once, echo


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


def test_a_connection_without_references_is_closed_with_a_warning(loop, run):
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


def test_the_error_of_a_connection_need_not_be_retrieved(loop, run, contexts):
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
