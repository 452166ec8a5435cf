"""Data written over TLS before a connection ends is sent, however it ends; and only the protocol gets errors of
the network."""

import asyncio
import contextlib
import errno
import ssl

import pytest

from .faults import name_of, python_with
from .support import Recorder
from .tls_support import CERTIFICATES, TLS_1_2, TLS_1_3, against_peer, client_context, linked, server_context

WRITTEN = b"one two three"
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


def write_pieces(transport):
    """More than one in a turn: only the first goes to the kernel at once."""
    for piece in (b"one ", b"two ", b"three"):
        transport.write(piece)


class Failing(Recorder):
    """Writes, and then fails in one of its callbacks."""

    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error
        self.armed = False

    def _fail(self, where):
        if self.armed and where == self.where:
            write_pieces(self.transport)
            raise self.error

    def data_received(self, data):
        super().data_received(data)
        self._fail("data_received")


class FailingBuffer(Failing, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self._fail("get_buffer")
        self.buffer = bytearray(100)
        return self.buffer

    def buffer_updated(self, count):
        self.data += self.buffer[:count]
        self.note("data", count)
        self._fail("buffer_updated")


async def read_to_the_end(peer):
    """What the peer gets: an aborted connection says no goodbye."""
    data = b""
    with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
        while part := await peer.drive(peer.object.read, 100):
            data += part
    return data


@pytest.mark.parametrize("error", [ValueError("of the program"), OSError(5, "of the program")], ids=repr)
@pytest.mark.parametrize("where", ["data_received", "get_buffer", "buffer_updated"])
@VERSIONS
def test_a_callback_fails(secure, where, error, version):
    async def main():
        protocol = (Failing if where == "data_received" else FailingBuffer)(where, error)
        async with against_peer(protocol, version=version) as (_, peer):
            # Behind the tickets.
            await peer.write(b"first")
            await protocol.received(5)
            protocol.armed = True
            await peer.write(b"x")
            assert await read_to_the_end(peer) == WRITTEN
            assert await protocol.lost() is error

    secure.run(main())
    # As asyncio: an error of the system is none of the program's.
    assert [context["exception"] for context in secure.contexts] == [error] * (not isinstance(error, OSError))


@pytest.mark.parametrize(
    "error", [ValueError("of the program"), OSError(5, "of the program"), asyncio.CancelledError()], ids=repr
)
def test_the_callback_for_the_peers_end_fails(secure, error):
    class Protocol(Recorder):
        def eof_received(self):
            write_pieces(self.transport)
            raise error

    async def main():
        protocol = Protocol()
        async with against_peer(protocol) as (_, peer):
            await peer.send(peer.goodbye())
            assert await protocol.lost() is error

    secure.run(main())
    expected = [error] if isinstance(error, ValueError) else []
    assert [context["exception"] for context in secure.contexts] == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_error_that_leaves_the_run(secure_ours, error):
    async def main():
        async with linked(Recorder(), Failing("data_received", error())) as link:
            link.server.armed = True
            link.near.write(b"x")
            await link.client.received(len(WRITTEN))
            assert link.client.data == WRITTEN

    loop = secure_ours.loop
    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    secure_ours.run(asyncio.wait_for(task, None))


@pytest.mark.parametrize("end", ["abort", "_force_close", "close"])
@VERSIONS
def test_ends_of_a_users_making(secure, end, version):
    async def main():
        async with against_peer(version=version) as (protocol, peer):
            await asyncio.sleep(0)
            write_pieces(protocol.transport)
            if end == "_force_close":
                protocol.transport._force_close(ValueError("of the program"))
            else:
                getattr(protocol.transport, end)()
            data = b""
            while len(data) < len(WRITTEN):
                data += await peer.drive(peer.object.read, 100)
            assert data == WRITTEN
            if end == "close":
                await peer.send(peer.goodbye())
            await protocol.lost()

    secure.run(main())
    assert secure.contexts == []


def test_tls_over_tls_that_is_aborted(secure_ours):
    """What the inner one has written goes through the outer one."""

    async def main():
        loop = asyncio.get_running_loop()
        async with linked() as link:
            inner = Recorder(), Recorder()
            near, far = await asyncio.gather(
                loop.start_tls(link.near, inner[0], client_context(), server_hostname="localhost"),
                loop.start_tls(link.far, inner[1], server_context(), server_side=True),
            )
            write_pieces(near)
            near.abort()
            assert await inner[1].received(len(WRITTEN)) == WRITTEN
            far.abort()
            await inner[0].lost()
            await inner[1].lost()
            for protocol in (link.client, link.server):
                protocol.connection_lost(None)

    secure_ours.run(main())
    assert secure_ours.contexts == []


@VERSIONS
def test_the_alert_for_bad_data_leaves_after_what_was_written(secure_ours, version):
    async def main():
        async with against_peer(version=version) as (protocol, peer):
            await asyncio.sleep(0)
            bad = bytearray(peer.encrypted(b"x"))
            bad[-1] ^= 1

            def write_and_take():
                write_pieces(protocol.transport)
                protocol.transport.data_received(bytes(bad))

            asyncio.get_running_loop().call_soon(write_and_take)
            data = b""
            while len(data) < len(WRITTEN):
                data += await peer.drive(peer.object.read, 100)
            assert data == WRITTEN
            with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac"):
                await peer.drive(peer.object.read, 100)
            assert isinstance(await protocol.lost(), ssl.SSLError)

    secure_ours.run(main())
    assert secure_ours.contexts == []


PROGRAM = """
import asyncio, ssl, sys, tokioloop

certificates, kind = sys.argv[1:]
if kind != "rustls":
    tokioloop._tokioloop._tls_engine(kind)
contexts = []

class Noting(asyncio.Protocol):
    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
    def connection_lost(self, error):
        self.ended.set_result(error)

def contexts_of_tls():
    if kind == "rustls":
        server = tokioloop.tls.ServerConfig(f"{certificates}/server.pem", f"{certificates}/server.key")
        return server, tokioloop.tls.ClientConfig(roots=f"{certificates}/ca.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{certificates}/server.pem", f"{certificates}/server.key")
    return server, ssl.create_default_context(cafile=f"{certificates}/ca.pem")

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    server, client = contexts_of_tls()
    made = asyncio.Queue()
    def accepted():
        made.put_nowait(Noting())
        return made._queue[-1]
    listening = await loop.create_server(accepted, "127.0.0.1", 0, ssl=server)
    address = listening.sockets[0].getsockname()
    protocols = []
    for _ in range(30):
        try:
            transport, protocol = await loop.create_connection(Noting, *address, ssl=client, server_hostname="localhost")
        except OSError as error:
            print(type(error).__name__, error.errno)
            break
        protocols += [protocol, await made.get()]
        for _ in range(3):
            transport.write(b"x")
        lost = [protocol.ended for protocol in protocols]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if ended := [future for future in lost if future.done() and future.result() is not None]:
            error = ended[0].result()
            print(type(error).__name__, error.errno)
            break
    print(contexts)
    # The connections go with the process.
    sys.stdout.flush()
    import os
    os._exit(0)

tokioloop.run(main())
"""

BAD = [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ECONNRESET, errno.EIO]
# Which call, after how many that pass, and with which number.
FAULTS = [("recv", 0, number) for number in BAD] + [
    (call, passed, errno.ETIMEDOUT) for call in ("recv", "send", "sendmsg") for passed in (1, 4)
]


@pytest.mark.parametrize(
    ("call", "passed", "number"), FAULTS, ids=[f"{call}-{n}-{name_of(number)}" for call, n, number in FAULTS]
)
@pytest.mark.parametrize("kind", ["direct", "memory-bio", "rustls"])
def test_errors_of_the_network(kind, call, passed, number):
    """In the handshake or after it, in whichever of the two ends."""
    done = python_with(PROGRAM, str(CERTIFICATES), kind, **{call: (passed, 1, number)})
    error, contexts = done.stdout.splitlines()
    assert contexts == "[]"
    # One end's may be the other's reset.
    assert error.split()[0] in (type(OSError(number, "")).__name__, "ConnectionResetError", "BrokenPipeError")
