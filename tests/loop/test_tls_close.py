"""The end of a TLS connection: close_notify both ways, half-close, timeouts, and peers that vanish."""

import asyncio
import fcntl
import gc
import os
import socket
import ssl
import sys
import termios
import weakref

import pytest

from .support import Recorder, collected, receive_all, reset, tcp_pair
from .tls_support import (
    TLS_1_2,
    TLS_1_3,
    Peer,
    against_peer,
    client_context,
    linked,
    server_context,
    serving,
)

VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
SIDES = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


async def some_turns():
    for _ in range(10):
        await asyncio.sleep(0)


@VERSIONS
@SIDES
def test_close_says_goodbye_and_waits_for_the_answer(secure, version, server_side):
    async def main():
        async with against_peer(server_side=server_side, version=version) as (protocol, peer):
            protocol.transport.write(b"last")
            protocol.transport.close()
            assert protocol.transport.is_closing()
            assert await peer.read_all() == b"last"
            await some_turns()
            assert "lost" not in protocol.log, "did not wait for the peer's goodbye"
            await peer.send(peer.goodbye())
            assert await protocol.lost() is None
            assert await receive_all(peer.sock) == b""

    secure.run(main())
    assert secure.contexts == []


@VERSIONS
def test_the_peers_goodbye_is_answered(secure, version):
    async def main():
        async with against_peer(version=version) as (protocol, peer):
            await peer.send(peer.encrypted(b"bye") + peer.goodbye())
            assert await peer.read_all() == b""
            assert await protocol.lost() is None
            assert protocol.log == ["made", ("data", 3), "eof", "lost"]

    secure.run(main())


def test_true_from_eof_received_has_no_effect_but_a_warning(secure, caplog):
    async def main():
        protocol = Recorder()
        protocol.keep_open = True
        async with against_peer(protocol) as (_, peer):
            await peer.send(peer.goodbye())
            assert await peer.read_all() == b""
            await protocol.lost()

    secure.run(main())
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == [
        "returning true from eof_received() has no effect when using ssl"
    ]


@pytest.mark.parametrize("size", [10, 300_000])
def test_what_eof_received_writes_is_sent(secure, size):
    class Answering(Recorder):
        def eof_received(self):
            super().eof_received()
            self.transport.write(bytes(size))

    async def main():
        async with against_peer(Answering()) as (protocol, peer):
            await peer.send(peer.encrypted(b"question") + peer.goodbye())
            assert await peer.read_exactly(size) == bytes(size)
            assert await peer.read_all() == b""
            assert await protocol.lost() is None

    secure.run(main())


def test_an_end_without_goodbye_is_an_end(secure):
    async def main():
        async with against_peer() as (protocol, peer):
            await peer.send(peer.encrypted(b"x"))
            peer.sock.shutdown(1)
            assert await protocol.lost() is None
            assert protocol.log == ["made", ("data", 1), "eof", "lost"]

    secure.run(main())


def test_an_end_in_the_middle_of_a_record(secure):
    async def main():
        async with against_peer() as (protocol, peer):
            await peer.send(peer.encrypted(b"whole") + peer.encrypted(b"in part")[:-1])
            peer.sock.shutdown(1)
            assert await protocol.lost() is None
            assert protocol.log == ["made", ("data", 5), "eof", "lost"]

    secure.run(main())


def test_nothing_is_delivered_after_close(secure):
    """A peer that goes on sending is neither listened to nor kept up with for longer than the shutdown may take."""

    async def main():
        async with against_peer(ssl_shutdown_timeout=0.2) as (protocol, peer):
            protocol.transport.close()

            async def send_on():
                while True:
                    await peer.send(peer.encrypted(bytes(10_000)))

            with pytest.raises(ConnectionError):
                await send_on()
            error = await protocol.lost()
            assert protocol.log == ["made", "lost"]
            # asyncio is not patient with such a peer.
            assert isinstance(error, TimeoutError if secure.is_ours else ssl.SSLError)

    secure.run(main())


def test_data_on_its_way_does_not_disturb_a_close(secure_ours):
    async def main():
        async with against_peer() as (protocol, peer):
            late = peer.encrypted(b"late")
            protocol.transport.close()
            await peer.send(late)
            assert await peer.read_all() == b""
            await peer.send(peer.goodbye())
            assert await protocol.lost() is None
            assert protocol.log == ["made", "lost"]

    secure_ours.run(main())


@pytest.mark.parametrize("size", [100, 100_000])
def test_closed_while_paused_the_goodbye_behind_what_waits_is_found(secure_ours, size):
    async def main():
        async with against_peer() as (protocol, peer):
            protocol.transport.pause_reading()
            await peer.send(peer.encrypted(bytes(size)) + peer.goodbye())
            await some_turns()
            protocol.transport.close()
            assert await protocol.lost() is None
            assert protocol.log == ["made", "lost"]

    secure_ours.run(main())


def test_paused_in_data_received_and_closed_later_the_goodbye_is_found(secure_ours):
    """With the rest in the engine, not in the transport."""

    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        async with against_peer(Pausing()) as (protocol, peer):
            await peer.send(peer.encrypted(b"x"))
            await protocol.received(1)
            await peer.send(peer.encrypted(b"y") + peer.goodbye())
            await some_turns()
            protocol.transport.close()
            assert await protocol.lost() is None
            assert protocol.data == b"x"

    secure_ours.run(main())


def test_junk_behind_the_peers_goodbye_is_thrown_away(secure_ours):
    """Though this side has much to send still, and the peer sends on, nothing piles up."""

    class Answering(Recorder):
        def eof_received(self):
            super().eof_received()
            self.transport.write(bytes(8 << 20))

    async def main():
        async with against_peer(Answering()) as (protocol, peer):
            await peer.send(peer.goodbye())
            await protocol.event("eof")
            before = memory()
            for _ in range(64):
                # Received and dropped, or this would not end.
                await peer.send(bytes(1 << 20))
            # All of it, before the last of the answer goes: closing over unread bytes would be a reset.
            await taken(peer.sock, protocol.transport.get_extra_info("socket"))
            assert memory() - before < 16 << 20
            assert await peer.read_exactly(8 << 20) == bytes(8 << 20)
            assert await peer.read_all() == b""
            assert await protocol.lost() is None

    secure_ours.run(main())


async def taken(sender, receiver):
    """Until *receiver*'s side has read what was sent."""

    def waiting(sock, what):
        return int.from_bytes(fcntl.ioctl(sock.fileno(), what, bytes(4)), sys.byteorder)

    # Not acknowledged yet, then: not read yet.
    while waiting(sender, termios.TIOCOUTQ) or waiting(receiver, termios.FIONREAD):
        await asyncio.sleep(0)


def memory():
    """What of this process is in memory now. (Not the most there ever was, which earlier tests may have raised.)"""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


@SIDES
def test_the_shutdown_timeout(secure, server_side):
    async def main():
        async with against_peer(server_side=server_side, ssl_shutdown_timeout=0.01) as (protocol, _peer):
            protocol.transport.close()
            error = await protocol.lost()
            assert isinstance(error, TimeoutError)
            assert str(error) == "SSL shutdown timed out"

    secure.run(main())
    assert secure.contexts == []


def test_the_shutdown_timeout_while_the_peer_takes_nothing(secure):
    async def main():
        async with against_peer(ssl_shutdown_timeout=0.01) as (protocol, _peer):
            protocol.transport.write(bytes(32 << 20))
            protocol.transport.close()
            assert isinstance(await protocol.lost(), TimeoutError)
            assert protocol.transport.get_write_buffer_size() == 0

    secure.run(main())


@pytest.mark.parametrize("ways", [("close", "abort"), ("abort", "close"), ("abort", "abort"), ("close",) * 3])
def test_connection_lost_comes_once(secure, ways):
    async def main():
        async with linked() as link:
            for way in ways:
                if secure.is_ours or way != "close" or ways[0] == "close":
                    getattr(link.near, way)()
            assert "lost" not in link.client.log
            assert await link.client.lost() is None
            await link.server.lost()
            await some_turns()
            assert link.client.log == ["made", "lost"]
            assert link.server.log.count("lost") == 1

    if secure.is_ours or ways not in [("close", "abort"), ("close",) * 3]:
        # asyncio releases the connection at the second close().
        secure.run(main())
    assert secure.contexts == []


@pytest.mark.parametrize(
    "stage", ["at once", "after its hello", "after the handshake", "in a record", "in the end"]
)
@pytest.mark.parametrize("way", ["reset", "end"])
@SIDES
def test_a_peer_that_vanishes(secure, stage, way, server_side):
    async def main():
        async with against_peer(server_side=server_side, handshake=False) as (protocol, peer):
            shaken = stage not in ("at once", "after its hello")
            if stage == "after its hello":
                if not server_side:
                    await peer.feed()
                try:
                    peer.object.do_handshake()
                except ssl.SSLWantReadError:
                    hello = peer.pending()
                    await peer.send(hello if server_side else hello[:-10])
                if server_side:
                    # The answer is there: a reset does not overtake it.
                    await asyncio.get_running_loop().sock_recv(peer.sock, 1)
            if shaken:
                await peer.handshake()
                await protocol.connecting
            if stage == "in a record":
                await peer.send(peer.encrypted(b"in part")[:-3])
            if stage == "in the end":
                protocol.transport.close()
                assert await peer.read_all() == b""
            if way == "reset":
                reset(peer.sock)
            else:
                peer.sock.shutdown(socket.SHUT_WR)
            if not shaken:
                with pytest.raises(ConnectionResetError):
                    await protocol.connecting
                assert protocol.log == []
            else:
                error = await protocol.lost()
                assert error is None or isinstance(error, ConnectionError)
                assert way == "reset" or error is None
                assert protocol.log[0] == "made"
                assert protocol.log[-1] == "lost"
                assert len(protocol.log) <= 3

    secure.run(main())
    assert secure.contexts == []


def test_a_server_loses_nothing_but_the_connection(secure):
    """Resets in every state, and the next client is served."""

    async def main():
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        async with serving(factory) as address:
            for keep in (0, 1, 5, 100, 1000):
                sock = await connected(address)
                peer = Peer(sock, client_context(), server_hostname="localhost")
                with pytest.raises(ssl.SSLWantReadError):
                    peer.object.do_handshake()
                await peer.send(peer.pending()[:keep])
                reset(sock)
            peer = Peer(await connected(address), client_context(), server_hostname="localhost")
            await peer.handshake()
            await peer.write(b"x")
            await made[-1].received(1)
            await peer.send(peer.goodbye())
            await made[-1].lost()
            peer.close()
            assert [protocol.log for protocol in made[:-1]] == [[]] * 5

    secure.run(main())
    assert secure.contexts == []


async def connected(address):
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


def test_cancelling_the_connect_closes_the_socket(secure):
    async def main():
        near, far = tcp_pair()
        loop = asyncio.get_running_loop()
        connecting = asyncio.create_task(
            loop.create_connection(Recorder, sock=near, ssl=client_context(), server_hostname="localhost")
        )
        hello = await loop.sock_recv(far, 1 << 16)
        assert hello[0] == 22
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        with far:
            assert await receive_all(far) == b""
        await some_turns()
        assert near.fileno() == -1

    secure.run(main())
    assert secure.contexts == []


@pytest.mark.parametrize("way", ["close", "abort", "vanish"])
def test_closed_objects_are_released(secure, way):
    async def main():
        watched = []
        server = Recorder()
        context = server_context()
        async with serving(lambda: server, context) as address:
            loop = asyncio.get_running_loop()
            trusting = client_context()
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=trusting, server_hostname="localhost"
            )
            transport.write(b"x")
            await server.received(1)
            watched = [
                weakref.ref(thing)
                for thing in (transport, protocol, trusting, transport.get_extra_info("ssl_object"))
            ]
            if way == "vanish":
                server.transport.abort()
            else:
                getattr(transport, way)()
            await protocol.lost()
            await server.lost()
            server.transport = None
        await some_turns()
        del transport, trusting, protocol
        return watched

    gc.collect()
    gc.disable()
    try:
        watched = secure.run(main())
        if secure.is_ours:
            assert [thing() for thing in watched] == [None] * 4
    finally:
        gc.enable()
    assert all(collected(thing) for thing in watched)


def test_no_descriptor_is_leaked(secure):
    async def main():
        async def once(n):
            try:
                async with against_peer(handshake=n % 3 == 0, server_side=n % 2 == 0) as (_, peer):
                    if n % 5 == 0:
                        reset(peer.sock)
            except ConnectionError:
                pass

        await once(1)
        before = len(os.listdir("/proc/self/fd"))
        for n in range(40):
            await once(n)
        await some_turns()
        assert len(os.listdir("/proc/self/fd")) == before

    # What earlier tests left to the collector is not to go in between, and what these leave to it is a leak.
    gc.collect()
    gc.disable()
    try:
        secure.run(main())
    finally:
        gc.enable()


def test_extra_info_before_during_and_after(secure):
    names = (
        "ssl_object",
        "peercert",
        "cipher",
        "compression",
        "sslcontext",
        "socket",
        "peername",
        "sockname",
    )

    async def main():
        seen = {}
        context = client_context()

        class Looking(Recorder):
            def connection_made(self, transport):
                seen["made"] = {name: transport.get_extra_info(name) for name in names}
                super().connection_made(transport)

            def connection_lost(self, error):
                seen["lost"] = {name: self.transport.get_extra_info(name) for name in names}
                super().connection_lost(error)

        async with linked(Looking(), ssl=context, server_options={"ssl": server_context()}) as link:
            info = link.near.get_extra_info
            seen["open"] = {name: info(name) for name in names}
            assert info("nothing") is None
            assert info("nothing", 5) == 5
            elsewhere = await asyncio.to_thread(lambda: {name: info(name) for name in names})
            for name in names:
                if name != "socket":
                    assert seen["made"][name] == seen["open"][name] == elsewhere[name], name
            assert isinstance(info("ssl_object"), ssl.SSLObject)
            assert ("DNS", "localhost") in info("peercert")["subjectAltName"]
            assert info("peercert") is info("peercert")
            assert info("cipher")[1].startswith("TLSv1")
            assert info("compression") is None
            assert info("sslcontext") is context
            assert info("peername") == link.far.get_extra_info("sockname")
            assert link.far.get_extra_info("peercert") is None
            link.near.close()
            await link.client.lost()
            for name in ("ssl_object", "peercert", "cipher", "compression", "sslcontext"):
                assert info(name) == seen["lost"][name] == seen["open"][name], name
            assert link.near.get_protocol() is None or not secure.is_ours

    secure.run(main())


def test_is_closing_as_soon_as_the_connection_is_broken(secure):
    async def main():
        async with against_peer() as (protocol, peer):
            loop = asyncio.get_running_loop()
            below = protocol.transport
            reset(peer.sock)
            seen = []

            def write():
                below.write(b"x")
                seen.append(below.is_closing())
                if not below.is_closing():
                    loop.call_soon(write)

            write()
            await protocol.lost()
            assert seen[-1] is True

    secure.run(main())
