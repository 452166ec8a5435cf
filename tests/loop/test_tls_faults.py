"""Bad input: malformed records, alerts, other protocols, crowds that vanish, and a wire that splits, cuts and flips bytes."""

import asyncio
import random
import socket
import ssl

import pytest

from .support import BufferedRecorder, Recorder, receive_all, reset
from .tls_support import TLS_1_2, TLS_1_3, Peer, against_peer, client_context, linked, serving

SIDES = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])

JUNK = {
    "random": random.Random(0).randbytes(1000),
    "zeros": bytes(1000),
    "plain http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "too long a record": b"\x16\x03\x01\xff\xff" + bytes(0xFFFF),
    "an unknown type": b"\x63\x03\x03\x00\x05hello",
    "an old version": b"\x16\x02\x00\x00\x05hello",
    "an empty handshake": b"\x16\x03\x01\x00\x00",
    "a fatal alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "half an alert": b"\x15\x03\x03\x00\x01\x02",
    "data before its time": b"\x17\x03\x03\x00\x05hello",
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@SIDES
def test_junk_instead_of_a_handshake(secure, junk, server_side):
    async def main():
        async with against_peer(server_side=server_side, handshake=False) as (protocol, peer):
            await peer.send(junk)
            peer.sock.shutdown(socket.SHUT_WR)
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await protocol.connecting
            assert protocol.log == []

    secure.run(main())
    assert secure.contexts == []


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@SIDES
def test_junk_after_the_handshake(secure, junk, server_side):
    async def main():
        async with against_peer(server_side=server_side) as (protocol, peer):
            # With TLS 1.3 the tickets are read first.
            await peer.send(peer.encrypted(b"good") + junk)
            peer.sock.shutdown(socket.SHUT_WR)
            error = await protocol.lost()
            assert error is None or isinstance(error, (ssl.SSLError, ConnectionError))
            assert protocol.data == b"good" if secure.is_ours else protocol.data in (b"good", b"")
            assert protocol.log.count("lost") == 1

    secure.run(main())
    assert secure.contexts == []


@SIDES
@VERSIONS
def test_a_fatal_alert_is_an_error_on_this_side_and_names_it(secure, server_side, version):
    """Not the end of the stream, which would pass for all of the data."""

    async def main():
        async with against_peer(server_side=server_side, version=version) as (protocol, peer):
            bad = bytearray(await encrypted_by(protocol, peer))
            bad[-1] ^= 0x55
            peer.incoming.write(bytes(bad))
            with pytest.raises(ssl.SSLError):
                peer.object.read(10)
            await peer.send(peer.pending())  # The alert that this made.
            error = await protocol.lost()
            assert isinstance(error, ssl.SSLError)
            assert error.reason in ("SSLV3_ALERT_BAD_RECORD_MAC", "SSL/TLS_ALERT_BAD_RECORD_MAC")
            assert protocol.log == ["made", "lost"]

    secure.run(main())
    assert secure.contexts == []


async def encrypted_by(protocol, peer):
    """A record of the transport; bytes before it are passed on."""
    loop = asyncio.get_running_loop()
    protocol.transport.write(b"x")
    data = await loop.sock_recv(peer.sock, 1 << 16)
    records = []
    while data:
        size = 5 + int.from_bytes(data[3:5])
        records.append(data[:size])
        data = data[size:]
    for record in records[:-1]:
        peer.incoming.write(record)
    return records[-1]


def test_renegotiation_is_refused(secure):
    """OpenSSL's client asks for it at an R; the connection goes on, or ends, but is not renegotiated."""

    async def main():
        server = Recorder()
        async with serving(lambda: server) as (host, port):
            client = await asyncio.create_subprocess_exec(
                "openssl",
                *("s_client", "-tls1_2", "-connect", f"{host}:{port}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                await server.event("made")
                client.stdin.write(b"R\n")
                await client.stdin.drain()
                _, errors = await client.communicate()
                assert b"no renegotiation" in errors
                await server.lost()
                assert server.data == b""
            finally:
                if client.returncode is None:
                    client.kill()
                    await client.wait()

    secure.run(main())


def test_a_crowd_that_vanishes(secure):
    """500 connections, given up at different points; then one is served."""

    async def main():
        loop = asyncio.get_running_loop()
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        context = client_context()
        async with serving(factory, backlog=600) as address:
            for batch in range(10):
                for n in range(50):
                    sock = socket.socket()
                    sock.setblocking(False)
                    await loop.sock_connect(sock, address)
                    peer = Peer(sock, context, server_hostname="localhost")
                    with pytest.raises(ssl.SSLWantReadError):
                        peer.object.do_handshake()
                    hello = peer.pending()
                    await peer.send(hello[: (batch * 50 + n) % (len(hello) + 1)])
                    if n % 2:
                        reset(sock)
                    else:
                        sock.close()
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=context, server_hostname="localhost"
            )
            transport.write(b"x")
            await made[-1].received(1)
            transport.abort()
            await protocol.lost()
            await made[-1].lost()
            assert all(protocol.log == [] for protocol in made[:-1])

    secure.run(main())
    assert secure.contexts == []


# ---- a wire that is not kind -------------------------------------------------------------------------------


class Wire:
    """Passes bytes between two sockets as the seed says: in pieces, late by some turns, cut off or changed."""

    def __init__(self, near, far, numbers, harm):
        self.near, self.far, self.numbers, self.harm = near, far, numbers, harm
        # Where in each direction the harm is done.
        self.at = {near: numbers.randrange(30_000), far: numbers.randrange(30_000)}
        if harm == "none":
            self.at = {}
        self.harmed = False

    async def run(self):
        ways = [self.carry(self.near, self.far), self.carry(self.far, self.near)]
        await asyncio.gather(*ways, return_exceptions=True)

    async def carry(self, source, target):
        loop, numbers = asyncio.get_running_loop(), self.numbers
        passed = 0
        while data := bytearray(await loop.sock_recv(source, numbers.choice([1, 5, 100, 5000, 100_000]))):
            at = self.at.get(source, -1) - passed
            if 0 <= at < len(data):
                self.harmed = True
                if self.harm == "flip":
                    data[at] ^= 1 << numbers.randrange(8)
                elif self.harm == "cut":
                    await loop.sock_sendall(target, data[:at])
                    break
                elif self.harm == "insert":
                    data[at:at] = numbers.randbytes(numbers.randrange(1, 100))
                elif self.harm == "lose":
                    del data[at : at + numbers.randrange(1, 100)]
            passed += len(data)
            while data:
                size = numbers.choice([1, 2, 50, 1000, 100_000])
                for _ in range(numbers.choice([0, 0, 0, 1, 3])):
                    await asyncio.sleep(0)
                await loop.sock_sendall(target, data[:size])
                del data[:size]
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("harm", ["none", "flip", "cut", "insert", "lose"])
@pytest.mark.parametrize("seed", range(8))
def test_a_wire_that_is_not_kind(secure_ours, seed, harm):
    """Both sides get the right bytes or a clean end; neither hangs, and neither gets bytes that were not sent."""
    numbers = random.Random(f"{seed} {harm}")
    version = numbers.choice([TLS_1_2, TLS_1_3])
    sizes = {"client": numbers.randrange(40_000), "server": numbers.randrange(40_000)}
    data = {side: random.Random(side).randbytes(size) for side, size in sizes.items()}

    async def main():
        loop = asyncio.get_running_loop()
        from .tls_support import server_context, tcp_pair

        (near, wire_near), (wire_far, far) = tcp_pair(), tcp_pair()
        wire = Wire(wire_near, wire_far, numbers, harm)
        carrying = asyncio.create_task(wire.run())
        protocols = {
            "client": numbers.choice([Recorder, BufferedRecorder])(),
            "server": numbers.choice([Recorder, BufferedRecorder])(),
        }
        # No timeout needs to end it: a connection that can't continue must fail. The shutdown may wait for a lost close_notify.
        options = {"ssl_shutdown_timeout": 0.1}
        # The handshake waits for a record that lost its end; only its timeout ends that.
        patience = {"ssl_handshake_timeout": 0.2 if harm in ("insert", "lose", "flip") else 20}
        ends = [
            loop.create_connection(
                lambda: protocols["client"],
                sock=near,
                ssl=client_context(version=version),
                server_hostname="localhost",
                **options,
                **patience,
            ),
            loop.connect_accepted_socket(
                lambda: protocols["server"],
                far,
                ssl=server_context(version=version),
                **options,
                **patience,
            ),
        ]

        async def talk(side, connecting):
            other = {"client": "server", "server": "client"}[side]
            protocol = protocols[side]
            try:
                transport, _ = await connecting
            except (ssl.SSLError, ConnectionError) as error:
                assert harm != "none", error  # noqa: PT017
                return
            transport.write(data[side])
            wanted = len(data[other])
            whole = protocol.until(lambda: len(protocol.data) >= wanted or "lost" in protocol.log)
            try:
                # As above: the rest may never come.
                await asyncio.wait_for(whole, None if harm in ("none", "cut") else 0.2)
            except TimeoutError:
                assert harm in ("insert", "lose", "flip")
            transport.close()
            await protocol.lost()

        try:
            await asyncio.gather(*(talk(side, end) for side, end in zip(protocols, ends, strict=True)))
        finally:
            carrying.cancel()
            await asyncio.wait([carrying])
            for sock in (near, far, wire_near, wire_far):
                sock.close()
        for side, other in (("client", "server"), ("server", "client")):
            got = bytes(protocols[side].data)
            assert data[other].startswith(got), "delivered what was not sent"
            if harm == "none":
                assert got == data[other]
                assert protocols[side].lost_with == [None]
            for error in protocols[side].lost_with:
                assert error is None or isinstance(error, (ssl.SSLError, ConnectionError, TimeoutError))

    secure_ours.run(main())
    assert secure_ours.contexts == []


def test_a_server_closes_what_speaks_no_tls(secure):
    async def main():
        loop = asyncio.get_running_loop()
        server = Recorder()
        async with serving(lambda: server) as address:
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                await loop.sock_sendall(sock, JUNK["plain http"])
                answer = await receive_all(sock)
            # An alert at the most, not an answer of the protocol.
            assert answer[:1] in (b"", b"\x15")
            assert server.log == []
        async with linked() as link:
            link.near.write(b"x")
            await link.server.received(1)

    secure.run(main())
    assert secure.contexts == []
