"""Unix stream connections and servers."""

import asyncio
import errno
import os
import pathlib
import socket
import tempfile

import pytest


@pytest.fixture
def path():
    # The path of a Unix socket is short: the test's own directory may be too long.
    with tempfile.TemporaryDirectory() as directory:
        yield os.path.join(directory, "s")


def test_echo(loop, run, path):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await asyncio.start_unix_server(echo, path) as server:
            assert server.sockets[0].getsockname() == path
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hi\n")
            assert await reader.readline() == b"hi\n"
            writer.close()
            await writer.wait_closed()

    run(main())
    assert not os.path.exists(path)


def test_pathlike_and_bytes_paths(loop, run, path, served):
    async def main():
        for form in (pathlib.Path(path), os.fsencode(path)):
            server = await loop.create_unix_server(served, form)
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, form)
            await (await served.next()).made
            transport.abort()
            server.close()
            server.abort_clients()
            await server.wait_closed()
            assert not os.path.exists(path)

    run(main())


def test_abstract_address(loop, run, served):
    async def main():
        name = f"\0tokioloop-test-{os.getpid()}"
        server = await loop.create_unix_server(served, name)
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, name)
        await (await served.next()).made
        transport.abort()
        server.close()
        server.abort_clients()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(asyncio.Protocol, name)

    run(main())


def test_stale_socket_file_is_replaced(loop, run, path, served):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)

    async def main():
        server = await loop.create_unix_server(served, path)
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
        await (await served.next()).made
        transport.abort()
        server.close()
        server.abort_clients()
        await server.wait_closed()

    run(main())


def test_other_files_are_left_alone(loop, run, path):
    pathlib.Path(path).write_text("precious")
    with pytest.raises(OSError, match="is already in use") as caught:
        run(loop.create_unix_server(asyncio.Protocol, path))
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.strerror == f"Address {path!r} is already in use"
    assert pathlib.Path(path).read_text() == "precious"


def test_cleanup_can_be_refused(loop, run, path):
    async def main():
        server = await loop.create_unix_server(asyncio.Protocol, path, cleanup_socket=False)
        server.close()
        await server.wait_closed()

    run(main())
    assert os.path.exists(path)


def test_cleanup_spares_a_successor(loop, run, path):
    async def main():
        first = await loop.create_unix_server(asyncio.Protocol, path)
        second = await loop.create_unix_server(asyncio.Protocol, path)
        first.close()
        assert os.path.exists(path)
        second.close()
        assert not os.path.exists(path)

    run(main())


def test_cleanup_of_a_file_that_is_gone(loop, run, path):
    async def main():
        server = await loop.create_unix_server(asyncio.Protocol, path)
        os.unlink(path)
        server.close()
        assert server.sockets == ()

    run(main())


def test_cleanup_for_a_given_socket(loop, run, path):
    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        server = await loop.create_unix_server(asyncio.Protocol, sock=sock)
        server.close()
        assert not os.path.exists(path)

    run(main())


def test_server_argument_errors(loop, run, path):
    async def main():
        with socket.socket() as inet, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
            for arguments, error, text in (
                ({}, ValueError, "^path was not specified, and no sock specified$"),
                ({"path": path, "sock": inet}, ValueError, "^path and sock can not be specified at the same"),
                ({"sock": inet}, ValueError, "^A UNIX Domain Stream Socket was expected, got <socket"),
                ({"sock": datagram}, ValueError, "^A UNIX Domain Stream Socket was expected, got <socket"),
                ({"path": path, "ssl": True}, TypeError, "^ssl argument must be an SSLContext or None$"),
                (
                    {"path": path, "ssl_handshake_timeout": 1},
                    ValueError,
                    "^ssl_handshake_timeout is only meaningful with ssl$",
                ),
                (
                    {"path": path, "ssl_shutdown_timeout": 1},
                    ValueError,
                    "^ssl_shutdown_timeout is only meaningful with ssl$",
                ),
            ):
                with pytest.raises(error, match=text):
                    await loop.create_unix_server(asyncio.Protocol, **arguments)
        assert not os.path.exists(path)

    run(main())


def test_connection_argument_errors(loop, run, path):
    async def main():
        with socket.socket() as inet:
            for arguments, text in (
                ({}, "^no path and sock were specified$"),
                ({"path": path, "sock": inet}, "^path and sock can not be specified at the same time$"),
                ({"sock": inet}, "^A UNIX Domain Stream Socket was expected, got <socket"),
                ({"path": path, "ssl": True}, "^you have to pass server_hostname when using ssl$"),
                ({"path": path, "server_hostname": "x"}, "^server_hostname is only meaningful with ssl$"),
                ({"path": path, "ssl_handshake_timeout": 1}, "^ssl_handshake_timeout is only meaningful"),
                ({"path": path, "ssl_shutdown_timeout": 1}, "^ssl_shutdown_timeout is only meaningful"),
            ):
                with pytest.raises(ValueError, match=text):
                    await loop.create_unix_connection(asyncio.Protocol, **arguments)

    run(main())


def test_connecting_without_a_listener(loop, run, path):
    with pytest.raises(FileNotFoundError):
        run(loop.create_unix_connection(asyncio.Protocol, path))


def test_connected_pair(loop, run, recorder):
    async def main():
        near, far = socket.socketpair()
        with far:
            transport, protocol = await loop.create_unix_connection(recorder, sock=near)
            far.sendall(b"x")
            far.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.data == b"x"
            assert transport.is_closing()

    run(main())
