"""A peer of TLS 1.3 that begins a message after the handshake and does not end it: the error that it leaves with OpenSSL harms no other connection."""

import asyncio
import contextlib
import ssl

import pytest

from .support import tcp_pair
from .tls_records import APPLICATION_DATA, HALF_A_KEY_UPDATE, noting_secrets, record, secret
from .tls_support import TLS_1_3, Peer, against_peer, client_context, engine_of, linked, server_context

# Longer than any test may take: nothing waits for it.
LONG = {"ssl_shutdown_timeout": 3600}
SIDES = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


@contextlib.asynccontextmanager
async def amid_a_message(path, server_side, protocol=None):
    """A transport whose peer has sent some data and half a message."""
    side = "CLIENT" if server_side else "SERVER"
    context = server_context(version=TLS_1_3) if server_side else client_context(version=TLS_1_3)
    async with against_peer(
        protocol, server_side=server_side, version=TLS_1_3, ssl=noting_secrets(context, path), **LONG
    ) as (protocol, peer):
        # A server has sent two tickets.
        sequence = 0 if server_side else 2
        # In one piece, so that half a message came in when the data did.
        await peer.send(
            record(secret(path, side), sequence, b"data", APPLICATION_DATA)
            + record(secret(path, side), sequence + 1, HALF_A_KEY_UPDATE)
        )
        await protocol.received(4)
        yield protocol, peer


@SIDES
def test_closing_does_not_wait(secure, server_side, tmp_path):
    async def main():
        async with amid_a_message(tmp_path / "secrets", server_side) as (protocol, _):
            protocol.transport.close()
            error = await protocol.lost()
            assert error is None or error.reason == "SHUTDOWN_WHILE_IN_INIT"
            assert protocol.log == ["made", ("data", 4), "lost"]

    secure.run(main())
    assert secure.contexts == []


@SIDES
def test_the_rest_of_the_message_may_still_come(secure, server_side, tmp_path):
    async def main():
        path = tmp_path / "secrets"
        async with amid_a_message(path, server_side) as (protocol, peer):
            protocol.transport.write(b"held until the message is whole")
            side = "CLIENT" if server_side else "SERVER"
            # update_not_requested.
            await peer.send(record(secret(path, side), 2 if server_side else 4, b"\0"))
            assert await peer.read_exactly(31) == b"held until the message is whole"

    secure.run(main())
    assert secure.contexts == []


async def until_done(call, *args):
    """The result of a call of a non-blocking `ssl.SSLSocket`."""
    while True:
        try:
            return call(*args)
        except ssl.SSLWantReadError:
            await asyncio.sleep(0)


async def a_socket(secure):
    """A non-blocking `ssl.SSLSocket` that has nothing to read."""
    near, far = tcp_pair()
    peer = Peer(far, server_context(), server_side=True)
    sock = client_context().wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False)
    shaken = asyncio.create_task(peer.handshake())
    await until_done(sock.do_handshake)
    await shaken
    # Behind the tickets: OpenSSL empties its queue of errors when it reads one.
    await peer.write(b"x")
    assert await until_done(sock.recv, 1) == b"x"

    def use():
        with pytest.raises(ssl.SSLWantReadError):
            sock.recv(100)

    yield use
    sock.close()
    peer.close()


async def a_connection(secure):
    async with linked() as link:

        async def use():
            link.near.write(b"x" * 10)
            await link.server.received(10)
            link.far.write(b"y" * 10)
            await link.client.received(10)
            link.near.close()
            assert await link.server.lost() is None

        yield use


async def a_connection_with_a_class(secure):
    class Object(ssl.SSLObject):
        pass

    contexts = client_context(), server_context()
    for context in contexts:
        context.sslobject_class = Object
    async with linked(client_options={"ssl": contexts[0]}, server_options={"ssl": contexts[1]}) as link:
        async for use in _use_of(link):
            yield use


async def _use_of(link):
    async def use():
        link.near.write(b"x" * 10)
        await link.server.received(10)
        link.near.close()
        assert await link.server.lost() is None

    yield use


async def a_connection_with_memory_bios(secure):
    with engine_of("memory-bio" if secure.is_ours else "asyncio"):
        async with linked() as link:
            async for use in _use_of(link):
                yield use


async def a_handshake(secure):
    async def use():
        async with linked() as link:
            link.near.write(b"x")
            await link.server.received(1)

    yield use


USERS = [a_socket, a_connection, a_connection_with_a_class, a_connection_with_memory_bios, a_handshake]


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.__name__)
@pytest.mark.parametrize("end", ["close", "write and close", "abort"])
@SIDES
def test_other_users_of_the_thread_notice_nothing(secure, user, end, server_side, tmp_path):
    async def main():
        async for use in user(secure):
            async with amid_a_message(tmp_path / "secrets", server_side) as (protocol, _):
                if "write" in end:
                    protocol.transport.write(b"x" * 10)
                (protocol.transport.abort if end == "abort" else protocol.transport.close)()
                # At once, before anything else has called OpenSSL.
                done = use()
                if done is not None:
                    await done

    secure.run(main())
    assert secure.contexts == []
