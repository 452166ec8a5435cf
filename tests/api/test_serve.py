"""TCP servers and the life of Server."""

import asyncio
import errno
import socket
import struct

import pytest


async def client(address):
    return await asyncio.open_connection(*address[:2])


def reset_on_close(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_echo(loop, run):
    async def echo(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await client(server.sockets[0].getsockname())
            writer.write(b"there")
            assert await reader.readexactly(5) == b"there"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert server.sockets == ()

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "Neither host/port nor sock were specified"),
        ({"port": 0, "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"port": 0, "ssl": False}, TypeError, "ssl argument must be an SSLContext or None"),
        (
            {"port": 0, "ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        (
            {"port": 0, "ssl_shutdown_timeout": 1},
            ValueError,
            "ssl_shutdown_timeout is only meaningful with ssl",
        ),
    ],
)
def test_argument_errors(loop, run, arguments, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        run(loop.create_server(asyncio.Protocol, **arguments))


def test_errors_about_the_sock_argument(loop, run):
    async def main():
        with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            with pytest.raises(
                ValueError, match="^host/port and sock can not be specified at the same time$"
            ):
                await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, sock=sock)
            with pytest.raises(ValueError, match="^A Stream Socket was expected, got <socket.socket"):
                await loop.create_server(asyncio.Protocol, sock=datagram)

    run(main())


def test_socket_options(loop, run):
    async def main():
        server = await loop.create_server(
            asyncio.Protocol, "127.0.0.1", 0, keep_alive=True, reuse_port=True, reuse_address=False
        )
        [sock] = server.sockets
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert sock.gettimeout() == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) != 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        twin = await loop.create_server(
            asyncio.Protocol, *sock.getsockname(), reuse_port=True, reuse_address=True
        )
        assert twin.sockets[0].getsockname() == sock.getsockname()
        assert twin.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        assert twin.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        server.close()
        twin.close()

    run(main())


def test_reuse_address_is_the_default(loop, run):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        server.close()

    run(main())


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_both_families_on_one_port(loop, run):
    async def main():
        first = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = first.sockets[0].getsockname()[1]
        second = await loop.create_server(asyncio.Protocol, "::1", port)
        assert second.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        first.close()
        second.close()

    run(main())


def test_several_hosts_and_one_that_repeats(loop, run):
    async def main():
        server = await loop.create_server(asyncio.Protocol, ["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0)
        assert sorted(sock.getsockname()[0] for sock in server.sockets) == ["127.0.0.1", "127.0.0.2"]
        server.close()

    run(main())


@pytest.mark.parametrize("host", [None, ""])
def test_all_interfaces(loop, run, host):
    async def main():
        server = await loop.create_server(asyncio.Protocol, host, 0)
        assert {sock.getsockname()[0] for sock in server.sockets} <= {"0.0.0.0", "::"}
        assert server.sockets
        server.close()

    run(main())


def test_address_in_use(loop, run, listener):
    address = listener.getsockname()
    with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
        run(loop.create_server(asyncio.Protocol, *address))
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.strerror == (
        f"error while attempting to bind on address {address!r}: [errno {errno.EADDRINUSE}] "
        "address already in use"
    )


def test_address_of_another_machine(loop, run):
    with pytest.raises(OSError, match=r"could not bind on any address out of \[\('192\.0\.2\.1', 0\)\]"):
        run(loop.create_server(asyncio.Protocol, "192.0.2.1", 0))


def test_start_serving_later(loop, run, served):
    async def main():
        server = await loop.create_server(served, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await client(address)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        _, writer = await client(address)
        protocol = await served.next()
        writer.close()
        await writer.wait_closed()
        assert await protocol.lost is None
        server.close()
        assert not server.is_serving()
        await server.wait_closed()

    run(main())


def test_serve_forever_until_cancelled(loop, run, served):
    async def main():
        server = await loop.create_server(served, "127.0.0.1", 0, start_serving=False)
        forever = loop.create_task(server.serve_forever())
        while not server.is_serving():
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"server <Server sockets=.*> is already being awaited on"):
            await server.serve_forever()
        reader, writer = await client(server.sockets[0].getsockname())
        protocol = await served.next()
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever
        assert await protocol.lost is None
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match=r"server <Server sockets=\(\)> is closed"):
            await server.serve_forever()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    run(main())


def test_close_ends_serve_forever(loop, run):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        loop.call_soon(server.close)
        with pytest.raises(asyncio.CancelledError):
            await server.serve_forever()
        assert server.sockets == ()

    run(main())


def test_context_manager_closes(loop, run):
    async def main():
        async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
            assert server.is_serving()
            assert server.get_loop() is loop
        assert not server.is_serving()
        server.close()

    run(main())


def test_wait_closed_waits_for_close_and_for_the_last_connection(loop, run, served):
    async def main():
        server = await loop.create_server(served, "127.0.0.1", 0)
        _, writer = await client(server.sockets[0].getsockname())
        protocol = await served.next()
        waiting = loop.create_task(server.wait_closed())
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0)
        assert not waiting.done()
        writer.close()
        await waiting
        await server.wait_closed()
        assert protocol.lost.done()
        await writer.wait_closed()

    run(main())


def test_wait_closed_before_close(loop, run):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        waiting = loop.create_task(server.wait_closed())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        server.close()
        await waiting

    run(main())


def test_close_clients_flushes_and_abort_clients_does_not(loop, run, served):
    async def main():
        server = await loop.create_server(served, "127.0.0.1", 0)
        big = b"x" * (16 << 20)

        reader, writer = await client(server.sockets[0].getsockname())
        protocol = await served.next()
        (await protocol.made).write(big)
        server.close_clients()
        assert await reader.read() == big
        assert await protocol.lost is None
        writer.close()
        await writer.wait_closed()

        reader, writer = await client(server.sockets[0].getsockname())
        protocol = await served.next()
        (await protocol.made).write(big)
        server.close()
        server.abort_clients()
        assert await protocol.lost is None
        assert len(await reader.read()) < len(big)
        await server.wait_closed()
        writer.close()
        await writer.wait_closed()

    run(main())


def test_connections_are_forgotten_when_lost(loop, run, served):
    async def main():
        server = await loop.create_server(served, "127.0.0.1", 0)
        errors = []
        for number in range(20):
            _, writer = await client(server.sockets[0].getsockname())
            protocol = await served.next()
            await protocol.made
            if number % 2:
                reset_on_close(writer.get_extra_info("socket"))
            writer.close()
            await writer.wait_closed()
            errors.append(type(await protocol.lost))
        assert errors == [type(None), ConnectionResetError] * 10
        server.close()
        await server.wait_closed()

    run(main())


def test_socket_given_by_the_caller(loop, run, served):
    async def main():
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = await loop.create_server(served, sock=sock)
        assert sock.gettimeout() == 0
        _, writer = await client(sock.getsockname())
        await (await served.next()).made
        server.close()
        assert sock.fileno() == -1
        server.abort_clients()
        await server.wait_closed()
        writer.close()
        await writer.wait_closed()

    run(main())


def test_failing_factory_is_reported_and_the_next_connection_served(loop, run, contexts, served):
    loop.set_debug(True)
    error = ZeroDivisionError()

    def factory():
        if not contexts:
            raise error
        return served()

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        _, first = await client(server.sockets[0].getsockname())
        while not contexts:
            await asyncio.sleep(0)
        _, second = await client(server.sockets[0].getsockname())
        await (await served.next()).made
        for writer in (first, second):
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())
    [context] = contexts
    assert context["exception"] is error
    assert context["message"] == "Error on transport creation for incoming connection"


def test_cancelled_create_server_leaves_nothing_listening(loop, run):
    async def main():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            address = sock.getsockname()
        creating = loop.create_task(loop.create_server(asyncio.Protocol, *address))
        await asyncio.sleep(0)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        with pytest.raises(ConnectionRefusedError):
            await client(address)

    run(main())


def test_server_may_be_closed_after_its_loop(loop, run):
    server = run(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    loop.close()
    server.close()
    assert server.sockets == ()
