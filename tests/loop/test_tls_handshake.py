"""Handshakes: certificates, names, ALPN, SNI, sessions, timeouts, and how failures are reported."""

import asyncio
import contextlib
import gc
import logging
import ssl
import sys

import pytest

from .support import Recorder
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


async def connect(address, context, hostname="localhost", protocol=None, **options):
    loop = asyncio.get_running_loop()
    return await loop.create_connection(
        lambda: protocol or Recorder(), *address, ssl=context, server_hostname=hostname, **options
    )


async def end(*protocols):
    for protocol in protocols:
        protocol.transport.abort()
    for protocol in protocols:
        await protocol.lost()


# ---- timeouts ----------------------------------------------------------------------------------------------


@SIDES
def test_the_handshake_timeout(secure, server_side):
    async def main():
        options = {"ssl_handshake_timeout": 0.01}
        async with against_peer(server_side=server_side, handshake=False, **options) as (protocol, _peer):
            with pytest.raises(ConnectionAbortedError, match=r"longer than 0\.01 seconds: aborting"):
                await protocol.connecting
            assert protocol.log == []

    secure.run(main())
    assert secure.contexts == []


def test_a_stream_that_had_ended_before_fails_at_once(secure):
    """The end is reported once, to the former protocol: TLS that begins after it must not wait for the timeout."""

    async def main():
        upgraded = asyncio.get_running_loop().create_future()

        async def upgrade(reader, writer):
            # Returns at the end of the stream, which leaves the connection open.
            assert await reader.read() == b"hello"
            try:
                await writer.start_tls(server_context())
                upgraded.set_result("upgraded")
            except ConnectionResetError as error:
                upgraded.set_result(error)
            writer.transport.abort()

        server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        writer.write_eof()
        assert isinstance(await upgraded, ConnectionResetError)
        writer.close()
        server.close()
        await server.wait_closed()

    secure.run(main())
    assert secure.contexts == []


def test_a_client_that_stalls_blocks_no_other_and_is_cut(secure):
    async def main():
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        async with serving(factory, ssl_handshake_timeout=0.3) as address:
            stalled = []
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"\x16\x03\x01")
                stalled.append((reader, writer))
            _, protocol = await connect(address, client_context())
            assert await asyncio.gather(*(reader.read() for reader, _ in stalled)) == [b""] * 5
            for _, writer in stalled:
                writer.close()
            await made[-1].event("made")
            await end(protocol, made[-1])
            assert [protocol.log for protocol in made[:-1]] == [[]] * 5

    secure.run(main())
    assert secure.contexts == []


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0])
def test_timeouts_must_be_positive(secure_ours, name, seconds):
    async def main():
        with pytest.raises(ValueError, match=f"{name} should be a positive number"):
            async with linked(client_options={name: seconds}):
                pass

    secure_ours.run(main())


# ---- certificates and names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "hostname", "trust", "reason"),
    [
        ("server", "localhost", "stranger", "unable to get local issuer certificate"),
        ("server", "wrong.example", "ca", "Hostname mismatch, certificate is not valid for 'wrong.example'"),
        ("server", "10.1.2.3", "ca", "IP address mismatch, certificate is not valid for '10.1.2.3'"),
        ("other", "localhost", "ca", "Hostname mismatch, certificate is not valid for 'localhost'"),
        ("expired", "localhost", "ca", "certificate has expired"),
    ],
)
def test_a_certificate_that_does_not_do(secure, certificate, hostname, trust, reason):
    """The reason is named, and the server gets an alert."""

    async def main():
        async with against_peer(
            handshake=False, ssl=client_context(trust=trust), server_hostname=hostname
        ) as (protocol, peer):
            other = Peer(peer.sock, server_context(certificate), server_side=True)
            heard, error = await asyncio.gather(
                other.handshake(), protocol.connecting, return_exceptions=True
            )
            assert isinstance(error, ssl.SSLCertVerificationError)
            assert error.verify_message.startswith(reason)
            assert reason in str(error)
            if secure.is_ours:  # asyncio sends no alert.
                assert "ALERT" in heard.reason
            assert protocol.log == []

    secure.run(main())
    assert secure.contexts == []


def test_connecting_by_address(secure):
    async def main():
        async with linked(client_options={"server_hostname": "127.0.0.1"}) as link:
            assert link.near.get_extra_info("ssl_object").server_hostname == "127.0.0.1"
            assert link.far.get_extra_info("ssl_object").server_side

    secure.run(main())


@VERSIONS
def test_client_certificates(secure, version):
    async def main():
        server = server_context(client_certificates="ca", version=version)
        client = client_context(certificate="client", version=version)
        async with linked(client_options={"ssl": client}, server_options={"ssl": server}) as link:
            subject = link.far.get_extra_info("peercert")["subject"]
            assert subject == ((("commonName", "a client"),),)

    secure.run(main())


@VERSIONS
@pytest.mark.parametrize("wrong", [False, True], ids=["none", "of a wrong authority"])
def test_a_client_without_the_right_certificate(secure_ours, version, wrong):
    """A server refuses it silently; the client gets an alert, in TLS 1.3 after its own handshake is done."""

    async def main():
        server = server_context(client_certificates="stranger" if wrong else "ca", version=version)
        client = client_context(certificate="client" if wrong else None, version=version)
        refused = Recorder()
        async with serving(lambda: refused, server) as address:
            protocol = Recorder()
            if version is TLS_1_2:
                with pytest.raises(ssl.SSLError, match=r"ALERT|alert"):
                    await connect(address, client, protocol=protocol)
                assert protocol.log == []
            else:
                await connect(address, client, protocol=protocol)
                error = await protocol.lost()
                assert isinstance(error, ssl.SSLError)
                assert error.reason in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA")
        assert refused.log == []

    secure_ours.run(main())
    assert secure_ours.contexts == []


def test_failures_of_a_servers_handshake_are_logged_in_debug_mode_only(secure_ours, caplog):
    async def main():
        async with serving(Recorder) as address:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(address, client_context(trust="stranger"))
            # The server gets it in a turn of its own.
            for _ in range(20):
                await asyncio.sleep(0)

    for debug in (False, True):
        caplog.clear()
        secure_ours.loop.set_debug(debug)
        with caplog.at_level(logging.DEBUG, "asyncio"):
            secure_ours.run(main())
        messages = [record.getMessage() for record in caplog.records]
        assert any("starts SSL handshake" in message for message in messages) is debug
        failures = [message for message in messages if "SSL handshake failed" in message]
        assert bool(failures) is debug
        assert any("on verifying the certificate" in message for message in failures) is debug
    assert secure_ours.contexts == []


def test_debug_mode_logs_how_long_it_took(secure, caplog):
    secure.loop.set_debug(True)

    async def main():
        async with linked() as link:
            link.near.close()
            await link.server.lost()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        secure.run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert sum("SSL handshake took" in message for message in messages) == 2


# ---- ALPN and SNI ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "server", "chosen"),
    [(["h2", "http/1.1"], ["http/1.1"], "http/1.1"), (["h2"], ["http/1.1"], None), (["h2"], [], None)],
)
def test_alpn(secure, client, server, chosen):
    async def main():
        to_client, to_server = client_context(), server_context()
        to_client.set_alpn_protocols(client)
        if server:
            to_server.set_alpn_protocols(server)
        async with linked(client_options={"ssl": to_client}, server_options={"ssl": to_server}) as link:
            for transport in (link.near, link.far):
                assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == chosen

    secure.run(main())


def test_sni_switches_the_certificate(secure):
    async def main():
        asked = []
        first, second = server_context("other"), server_context("server")

        def choose(ssl_object, name, context):
            asked.append((name, context is first, isinstance(ssl_object, ssl.SSLObject)))
            ssl_object.context = second

        first.sni_callback = choose
        async with linked(server_options={"ssl": first}) as link:
            assert ("DNS", "localhost") in link.near.get_extra_info("peercert")["subjectAltName"]
            assert link.far.get_extra_info("sslcontext") is first
        assert asked == [("localhost", True, True)]

    secure.run(main())


@pytest.mark.parametrize("answer", [ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME, "error"])
def test_sni_refuses(secure_ours, monkeypatch, answer):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: unraisable.append(seen.exc_type))

    async def main():
        def refuse(ssl_object, name, context):
            if answer == "error":
                raise LookupError("mine")
            return answer

        context = server_context()
        context.sni_callback = refuse
        server = Recorder()
        async with serving(lambda: server, context) as address:
            with pytest.raises(ssl.SSLError) as told:
                await connect(address, client_context())
            expected = "HANDSHAKE_FAILURE" if answer == "error" else "UNRECOGNIZED_NAME"
            assert expected in told.value.reason
        assert server.log == []

    secure_ours.run(main())
    assert secure_ours.contexts == []
    assert unraisable == ([LookupError] if answer == "error" else [])


@pytest.mark.parametrize("way", ["close", "abort", "write"])
def test_sni_uses_the_transport(secure_ours, way):
    """A callback in the middle of the handshake: a write waits, an end is an end."""

    async def main():
        loop = asyncio.get_running_loop()
        tls = []

        def use(ssl_object, name, context):
            (transport,) = tls
            if way == "write":
                transport.write(b"early")
                assert transport.get_write_buffer_size() == 5
            else:
                getattr(transport, way)()
                assert transport.is_closing()

        context = server_context()
        context.sni_callback = use
        server = Recorder()
        async with against_peer(server, server_side=True, handshake=False, ssl=context) as (_, peer):
            # Not shown before connection_made: fetched from the transport below.
            await asyncio.sleep(0)
            tls.extend(find_tls(loop))
            if way == "write":
                await peer.handshake()
                assert await peer.read_exactly(5) == b"early"
                await server.connecting
                assert server.log == ["made"]
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await peer.handshake()
                transport, _ = await server.connecting
                assert transport is tls[0]
                assert server.log == []

    secure_ours.run(main())
    assert secure_ours.contexts == []


def find_tls(loop):
    found = [
        thing
        for thing in gc.get_objects()
        if type(thing).__name__ == "SslTransport" and thing._loop is loop and not thing.is_closing()
    ]
    assert len(found) == 1
    return found


# ---- sessions ----------------------------------------------------------------------------------------------


@VERSIONS
def test_a_session_is_used_again(secure, version):
    async def main():
        server = server_context(version=version)
        context = client_context(version=version)
        made = asyncio.Queue()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.write(b"x")  # Behind the tickets of TLS 1.3.
                made.put_nowait(self)

        async with serving(Server, server) as address:
            loop = asyncio.get_running_loop()
            first = Recorder()
            await connect(address, context, protocol=first)
            await first.received(1)
            ssl_object = first.transport.get_extra_info("ssl_object")
            session = ssl_object.session
            assert session.has_ticket
            assert not ssl_object.session_reused
            await end(await made.get(), first)

            with session_in(context, session):
                second = Recorder()
                await connect(address, context, protocol=second)
                await second.received(1)
                assert second.transport.get_extra_info("ssl_object").session_reused
                again = await made.get()
                assert again.transport.get_extra_info("ssl_object").session_reused
                assert loop.is_running()
                await end(again, second)

    secure.run(main())


@contextlib.contextmanager
def session_in(context, session):
    """asyncio has no argument for a session: a context that hands it to what it makes."""
    kind = type(context).sslobject_class

    class Resuming(kind):
        @classmethod
        def _create(cls, *args, **options):
            made = kind._create(*args, **(options | {"session": session}))
            return made

    context.sslobject_class = Resuming
    try:
        yield
    finally:
        context.sslobject_class = kind


# ---- what is refused ---------------------------------------------------------------------------------------


def test_versions_that_do_not_meet(secure_ours):
    async def main():
        options = {"ssl": server_context(version=TLS_1_2)}
        async with serving(Recorder, options["ssl"]) as address:
            with pytest.raises(ssl.SSLError) as told:
                await connect(address, client_context(version=TLS_1_3))
            assert "PROTOCOL_VERSION" in told.value.reason

    secure_ours.run(main())


def test_many_handshakes_at_once(secure):
    async def main():
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        async with serving(factory) as address:
            context = client_context()
            protocols = [Recorder() for _ in range(40)]
            await asyncio.gather(*(connect(address, context, protocol=protocol) for protocol in protocols))
            for protocol in protocols:
                protocol.transport.write(b"x")
            await asyncio.gather(*(protocol.received(1) for protocol in made))
            await end(*protocols)
            await asyncio.gather(*(protocol.lost() for protocol in made))

    secure.run(main())
    assert secure.contexts == []
