"""The end of a transport: once, in a turn of its own, whatever the way; and what is known of it afterwards."""

import asyncio
import socket

import pytest

from .support import Recorder, receive_all, tcp_pair


@pytest.mark.parametrize(
    "ways", [("close",), ("abort",), ("close", "abort"), ("abort", "close"), ("close",) * 3]
)
def test_connection_lost_comes_once_and_later(loop, run, link, ways):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        for way in ways:
            getattr(transport, way)()
        assert "lost" not in protocol.log, "called inside the call"
        assert transport.is_closing()
        assert await protocol.lost() is None
        await asyncio.sleep(0)
        assert protocol.log == ["made", "lost"]
        assert await receive_all(far) == b""

    run(main())


@pytest.mark.parametrize("way", ["close", "abort", "write", "pause_reading", "resume_reading", "write_eof"])
def test_calls_inside_connection_lost(loop, run, link, way):
    async def main():
        protocol = Recorder()
        transport, _far = await link(protocol)
        protocol.connection_lost = lambda error: (
            getattr(transport, way)(*([b"x"] if way == "write" else [])),
            protocol.note("lost"),
        )
        transport.abort()
        await protocol.event("lost")
        await asyncio.sleep(0)
        assert protocol.log.count("lost") == 1

    run(main())


def test_aborted_before_it_began(loop, run, pair):
    near, _far = pair

    async def main():
        protocol = Recorder()
        transport = loop._make_socket_transport(near, protocol)
        transport.abort()
        await protocol.event("lost")
        assert protocol.log == ["made", "lost"]

    run(main())
    assert near.fileno() == -1


def test_closing_in_connection_made(loop, run, pair):
    near, far = pair

    async def main():
        protocol = Recorder()
        protocol.connection_made = lambda transport: transport.close()
        await loop.create_connection(lambda: protocol, sock=near)
        await protocol.event("lost")
        return await receive_all(far)

    assert run(main()) == b""


def test_extra_info(loop, run):
    async def main():
        near, far = tcp_pair()
        here, there = near.getsockname(), near.getpeername()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        info = transport.get_extra_info
        assert info("sockname") == here and info("peername") == there
        assert info("socket").fileno() == near.fileno()
        assert info("nothing") is None and info("nothing", 5) == 5 and info("nothing", default=6) == 6
        assert info(name="sockname") == here
        seen = []
        lost = protocol.connection_lost
        protocol.connection_lost = lambda error: (seen.append(info("peername")), lost(error))
        transport.close()
        await protocol.lost()
        assert seen == [there]
        assert info("sockname") == here and info("peername") == there
        assert info("socket").fileno() == -1
        assert "closed" in repr(transport)
        far.close()

    run(main())


def test_extra_info_takes_asyncios_arguments_only(loop, run, link):
    async def main():
        transport, _ = await link(Recorder())
        for args, options in (((), {}), (("a", 1, 2), {}), (("a",), {"unknown": 1}), (("a",), {"name": "b"})):
            with pytest.raises(TypeError):
                transport.get_extra_info(*args, **options)

    run(main())


def test_an_accepted_connection_makes_its_socket_when_asked(loop, run):
    async def main():
        protocol = Recorder()
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as far:
            await protocol.event("made")
            transport = protocol.transport
            sock = transport.get_extra_info("socket")
            assert sock.getpeername() == far.getsockname() == transport.get_extra_info("peername")
            assert sock.family == socket.AF_INET and sock.gettimeout() == 0
            del sock
            transport.write(b"x")
            assert far.recv(1) == b"x"
            transport.abort()
            await protocol.lost()
            assert far.recv(1) == b""
        server.close()
        await server.wait_closed()

    run(main())


def test_the_socket_of_a_transport_is_not_for_the_loop(loop, run, link):
    async def main():
        transport, _ = await link(Recorder())
        sock = transport.get_extra_info("socket")
        for call in (
            lambda: loop.add_reader(sock.fileno(), print),
            lambda: loop.add_writer(sock.fileno(), print),
            lambda: loop.remove_reader(sock.fileno()),
            lambda: loop.remove_writer(sock.fileno()),
        ):
            with pytest.raises(RuntimeError, match="is used by transport <StreamTransport"):
                call()

    run(main())


@pytest.mark.parametrize("way", ["close", "abort"])
def test_ending_a_transport_of_a_closed_loop(loop, run, pair, way):
    near, _far = pair
    transport, _ = run(loop.create_connection(asyncio.Protocol, sock=near))
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(transport, way)()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport
    assert near.fileno() == -1


def test_no_descriptor_is_left_behind(loop, run):
    import os

    async def once(server):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        await writer.drain()
        assert await reader.read() == b"x"
        writer.close()
        await writer.wait_closed()

    async def serve(reader, writer):
        writer.write(await reader.read(1))
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        await once(server)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            await once(server)
        after = len(os.listdir("/proc/self/fd"))
        server.close()
        await server.wait_closed()
        return before, after

    before, after = run(main())
    assert after <= before + 1
