"""start_tls: what came in plain text, which anybody on the way may have written, is never taken for what came by TLS."""

import asyncio
import contextlib
import ssl
from functools import partial

import pytest

import tokioloop

from .support import receive_all, tcp_pair
from .tls_support import Peer, client_context, server_context

INJECTED = b"* OK from an attacker\r\n"
STREAMS = pytest.mark.parametrize("streams", [asyncio, tokioloop], ids=["asyncio's streams", "ours"])


@contextlib.asynccontextmanager
async def streams_and_peer(streams, *, answer):
    """A client's reader and writer, and the socket of a server that has sent *answer* in one piece."""
    near, far = tcp_pair()
    reader, writer = await streams.open_connection(sock=near)
    await asyncio.get_running_loop().sock_sendall(far, answer)
    try:
        yield reader, writer, far
    finally:
        far.close()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def shake_hands(sock, first=b""):
    peer = Peer(sock, server_context(), server_side=True)
    await peer.handshake()
    return peer


@STREAMS
@pytest.mark.parametrize("by", ["writer", "loop"])
def test_a_client_with_plain_text_unread_is_refused(secure_ours, streams, by):
    async def main():
        async with streams_and_peer(streams, answer=b"220 go ahead\r\n" + INJECTED) as (reader, writer, far):
            assert await reader.readline() == b"220 go ahead\r\n"
            below, protocol = writer.transport, writer.transport.get_protocol()
            if by == "writer":
                start = writer.start_tls
            else:
                start = partial(asyncio.get_running_loop().start_tls, below, protocol)
            with pytest.raises(ssl.SSLError, match=f"{len(INJECTED)} bytes of plain text"):
                await start(client_context(), server_hostname="localhost")
            # Nothing has begun, and the connection is the caller's as before.
            assert writer.transport is below and below.get_protocol() is protocol
            assert below.is_reading() and not below.is_closing()
            assert await reader.readline() == INJECTED
            writer.write(b"bye")
            writer.close()
            assert await receive_all(far) == b"bye"

    secure_ours.run(main())
    assert secure_ours.contexts == []


@STREAMS
def test_a_client_that_has_read_the_rest_may_go_on(secure_ours, streams):
    async def main():
        async with streams_and_peer(streams, answer=b"220 go ahead\r\n" + INJECTED) as (reader, writer, far):
            await reader.readline()
            with pytest.raises(ssl.SSLError):
                await writer.start_tls(client_context(), server_hostname="localhost")
            await reader.readline()
            shaken = asyncio.create_task(shake_hands(far))
            await writer.start_tls(client_context(), server_hostname="localhost")
            await (await shaken).write(b"by TLS\n")
            assert await reader.readline() == b"by TLS\n"

    secure_ours.run(main())
    assert secure_ours.contexts == []


@STREAMS
def test_plain_text_not_yet_received_is_not_a_handshake(secure, streams):
    async def main():
        async with streams_and_peer(streams, answer=b"220 go ahead\r\n") as (reader, writer, far):
            await reader.readline()
            await asyncio.get_running_loop().sock_sendall(far, INJECTED)
            with pytest.raises(ssl.SSLError):
                await writer.start_tls(client_context(), server_hostname="localhost")
            assert not reader._buffer

    secure.run(main())
    assert secure.contexts == []


@STREAMS
def test_over_tls_too(secure_ours, streams):
    """What came by the outer connection did not come by the inner one."""

    async def main():
        near, far = tcp_pair()
        shaken = asyncio.create_task(shake_hands(far))
        reader, writer = await streams.open_connection(
            sock=near, ssl=client_context(), server_hostname="localhost"
        )
        peer = await shaken
        await peer.write(b"200 established\r\n" + INJECTED)
        await reader.readline()
        with pytest.raises(ssl.SSLError, match="plain text"):
            await writer.start_tls(client_context(), server_hostname="localhost")
        assert await reader.readline() == INJECTED
        writer.transport.abort()
        far.close()

    secure_ours.run(main())
    assert secure_ours.contexts == []


@STREAMS
@pytest.mark.parametrize("early", ["a hello", "junk"])
def test_what_a_server_has_taken_in_belongs_to_tls(secure, streams, early):
    """A client may send its hello with the command; anything else is not a handshake, and is not read as data either."""

    async def main():
        got = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            try:
                assert await reader.readline() == b"STARTTLS\r\n"
                assert reader._buffer
                await writer.start_tls(server_context())
                got.set_result(await reader.readline())
            except Exception as error:
                got.set_result(error)
            writer.close()

        server = await streams.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        sock = writer.get_extra_info("socket").dup()
        sock.setblocking(False)
        peer = Peer(sock, client_context(), server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            peer.object.do_handshake()
        writer.transport.pause_reading()
        await peer.send(b"STARTTLS\r\n" + (peer.pending() if early == "a hello" else b"QUIT\r\n"))
        if early == "a hello":
            await peer.handshake()
            await peer.write(b"by TLS\n")
            assert await got == b"by TLS\n"
        else:
            assert isinstance(await got, ssl.SSLError)
        peer.close()
        writer.transport.abort()
        server.close()

    secure.run(main())
    assert secure.contexts == []
