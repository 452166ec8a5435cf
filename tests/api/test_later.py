"""What is not built says so, after the argument errors asyncio has."""

import asyncio
import io
import re
import socket

import pytest


@pytest.fixture
def stream():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near


def refuses(run, coro, what):
    with pytest.raises(NotImplementedError, match=f"^{re.escape(what)} is not supported by this version of"):
        run(coro)


def test_what_is_not_built_says_so(loop, run, stream):
    ssl = pytest.importorskip("ssl")
    context = ssl.create_default_context()
    tls = "TLS (the ssl argument)"
    refuses(run, loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, ssl=context), tls)
    refuses(run, loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, ssl=True), tls)
    refuses(run, loop.create_connection(asyncio.Protocol, sock=stream, ssl=True, server_hostname="x"), tls)
    refuses(run, loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context), tls)
    refuses(run, loop.create_unix_server(asyncio.Protocol, "/none", ssl=context), tls)
    refuses(run, loop.create_unix_connection(asyncio.Protocol, "/none", ssl=True, server_hostname="x"), tls)
    refuses(run, loop.connect_accepted_socket(asyncio.Protocol, stream, ssl=context), tls)
    refuses(run, loop.start_tls(None, None, context), "TLS (start_tls)")
    refuses(
        run,
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0)),
        "UDP (create_datagram_endpoint)",
    )
    refuses(run, loop.sock_sendfile(stream, io.BytesIO()), "sock_sendfile")
    refuses(run, loop.sock_recvfrom(stream, 1), "sock_recvfrom")
    refuses(run, loop.sock_recvfrom_into(stream, bytearray(1)), "sock_recvfrom_into")
    refuses(run, loop.sock_sendto(stream, b"", ("127.0.0.1", 1)), "sock_sendto")


def test_false_means_no_tls(loop, run, listener):
    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname(), ssl=False)
        assert transport.get_extra_info("sslcontext") is None
        transport.abort()

    run(main())


def test_sendfile_argument_errors(loop, run, stream, tmp_path):
    text = (tmp_path / "f").open("w")
    with text, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        file = io.BytesIO()
        for coro, error, message in (
            (loop.sock_sendfile(stream, text), ValueError, "file should be opened in binary mode"),
            (loop.sock_sendfile(datagram, file), ValueError, "only SOCK_STREAM type sockets are supported"),
            (
                loop.sock_sendfile(stream, file, 0, "x"),
                TypeError,
                "count must be a positive integer (got 'x')",
            ),
            (
                loop.sock_sendfile(stream, file, 0, -1),
                ValueError,
                "count must be a positive integer (got -1)",
            ),
            (
                loop.sock_sendfile(stream, file, "x"),
                TypeError,
                "offset must be a non-negative integer (got 'x')",
            ),
            (
                loop.sock_sendfile(stream, file, -1),
                ValueError,
                "offset must be a non-negative integer (got -1)",
            ),
        ):
            with pytest.raises(error, match=f"^{re.escape(message)}$"):
                run(coro)


def test_start_tls_wants_a_context(loop, run):
    with pytest.raises(
        TypeError, match="^sslcontext is expected to be an instance of ssl.SSLContext, got 1$"
    ):
        run(loop.start_tls(None, None, 1))
