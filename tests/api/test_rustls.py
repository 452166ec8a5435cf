"""TLS by rustls: tokioloop.tls against itself and against ssl, on real sockets."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import tokioloop
from tokioloop.tls import ClientConfig, ServerConfig

HERE = Path(__file__).parents[1] / "certificates"
CA, SERVER, KEY = HERE / "ca.pem", HERE / "server.pem", HERE / "server.key"

type Run = Callable[[Any], Any]


def server_context(**options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.get("certificate", SERVER), options.get("key", KEY))
    if "alpn" in options:
        context.set_alpn_protocols(options["alpn"])
    if "client_auth" in options:
        context.load_verify_locations(CA)
        context.verify_mode = options["client_auth"]
    return context


def client_context(**options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("roots", CA))
    if "certificate" in options:
        context.load_cert_chain(options["certificate"], options["key"])
    if "alpn" in options:
        context.set_alpn_protocols(options["alpn"])
    return context


def server_config(**options: Any) -> ServerConfig:
    return ServerConfig(options.pop("certificate", SERVER), options.pop("key", KEY), **options)


def client_config(**options: Any) -> ClientConfig:
    return ClientConfig(roots=options.pop("roots", CA), **options)


# Both ends by rustls, and each with OpenSSL on the other side.
PAIRS = pytest.mark.parametrize(
    ("make_server", "make_client"),
    [
        pytest.param(server_config, client_config, id="rustls-rustls"),
        pytest.param(server_config, client_context, id="rustls-openssl"),
        pytest.param(server_context, client_config, id="openssl-rustls"),
    ],
)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Side(asyncio.Protocol):
    """A server's protocol: what it is told can be awaited."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[asyncio.Transport] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[Exception | None] = loop.create_future()
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@contextlib.asynccontextmanager
async def echoing(terms: Any) -> AsyncIterator[int]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=terms)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def connected(port: int, terms: Any, name: str = "localhost") -> AsyncIterator[tuple[Any, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=terms, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


# ---- what comes through ---------------------------------------------------------------------------------------------


@PAIRS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_message_goes_both_ways(
    run: Run, make_server: Any, make_client: Any, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        server, client = make_server(), make_client()
        for terms in (server, client):
            if isinstance(terms, ssl.SSLContext):
                terms.minimum_version = terms.maximum_version = version
                expected = version
                break
        else:
            expected = ssl.TLSVersion.TLSv1_3
        async with echoing(server) as port, connected(port, client) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert writer.get_extra_info("ssl_object").version() == expected.name.replace("_", ".")
            assert writer.get_extra_info("sslcontext") is client

    run(main())


@PAIRS
def test_much_goes_both_ways_with_back_pressure(run: Run, make_server: Any, make_client: Any) -> None:
    payload = bytes(range(256)) * 40_000

    async def main() -> None:
        async with echoing(make_server()) as port, connected(port, make_client()) as (reader, writer):

            async def send() -> None:
                for start in range(0, len(payload), 1_000_000):
                    writer.write(payload[start : start + 1_000_000])
                    await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(len(payload)) == payload
            await sending

    run(main())


def test_a_buffered_protocol_with_little_memory_gets_all(run: Run) -> None:
    payload = bytes(range(256)) * 1000

    class Small(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.memory, self.data = bytearray(1000), bytearray()
            self.all = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.memory

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.memory[:nbytes]
            if len(self.data) == len(payload):
                self.all.set_result(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with echoing(server_config()) as port:
            transport, protocol = await loop.create_connection(
                Small, "127.0.0.1", port, ssl=client_config(), server_hostname="localhost"
            )
            transport.write(payload)
            await protocol.all
            assert protocol.data == payload
            transport.close()

    run(main())


def test_records_arrive_in_single_bytes(run: Run) -> None:
    """What OpenSSL says to the server comes through a socket one byte at a time."""

    async def main() -> None:
        async with echoing(server_config()) as port:
            answer = await asyncio.to_thread(dribble, port, b"x" * 300)
            assert answer == b"x" * 300

    run(main())


def test_a_handshake_message_in_several_records(run: Run, tmp_path: Path) -> None:
    chain = tmp_path / "long.pem"
    chain.write_text(SERVER.read_text() + 60 * CA.read_text())

    async def main() -> None:
        for make_server, make_client in (
            (server_context, client_config),
            (server_config, client_context),
            (server_config, client_config),
        ):
            async with echoing(make_server(certificate=chain)) as port:
                async with connected(port, make_client()) as (reader, writer):
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"

    run(main())


def dribble(port: int, message: bytes) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def until_done(call: Callable[[], Any]) -> Any:
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        sock.sendall(bytes([byte]))
                    incoming.write(sock.recv(1 << 16))

        until_done(session.do_handshake)
        session.write(message)
        return until_done(lambda: session.read(len(message)))  # type: ignore[no-any-return]


@PAIRS
def test_unix_sockets(run: Run, make_server: Any, make_client: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        async with await asyncio.start_unix_server(echo, path, ssl=make_server()):
            reader, writer = await asyncio.open_unix_connection(
                path, ssl=make_client(), server_hostname="localhost"
            )
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()

    run(main())


@PAIRS
def test_start_tls_on_both_sides(run: Run, make_server: Any, make_client: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(make_server())
        await echo(reader, writer)

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go\n"
            await writer.start_tls(make_client(), server_hostname="localhost")
            writer.write(b"secret")
            assert await reader.readexactly(6) == b"secret"
            writer.close()
            await writer.wait_closed()

    run(main())


def test_an_accepted_socket(run: Run, listener: socket.socket) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        client = asyncio.create_task(
            asyncio.open_connection(*listener.getsockname(), ssl=client_config(), server_hostname="localhost")
        )
        sock, _ = await asyncio.to_thread(listener.accept)
        transport, protocol = await loop.connect_accepted_socket(Side, sock, ssl=server_config())
        transport.write(b"hello")
        reader, writer = await client
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        assert await protocol.lost is None

    run(main())


# ---- what is told of a connection -----------------------------------------------------------------------------------


@PAIRS
def test_alpn(run: Run, make_server: Any, make_client: Any) -> None:
    async def main() -> None:
        server, client = make_server(alpn=["h2", "http/1.1"]), make_client(alpn=["http/1.1"])
        async with echoing(server) as port, connected(port, client) as (_, writer):
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"

    run(main())


def test_the_facts_of_a_connection(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sides: asyncio.Queue[Side] = asyncio.Queue()

        def make() -> Side:
            sides.put_nowait(side := Side())
            return side

        config = client_config(certificate=HERE / "client.pem", key=HERE / "client.key")
        terms = server_config(client_auth="optional", roots=CA)
        server = await loop.create_server(make, "127.0.0.1", 0, ssl=terms)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with connected(port, config) as (_, writer):
                theirs = writer.get_extra_info("ssl_object")
                ours = (await (await sides.get()).made).get_extra_info("ssl_object")
                for told, side, name in ((theirs, False, "localhost"), (ours, True, None)):
                    assert told.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
                    assert told.compression() is None
                    assert (told.server_side, told.server_hostname) == (side, name)
                    assert told.session_reused is False
                    assert told.selected_alpn_protocol() is None
                assert theirs.getpeercert(True) == ssl.PEM_cert_to_DER_cert(SERVER.read_text())
                assert ours.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
                    (HERE / "client.pem").read_text()
                )
                assert (theirs.context, ours.context) == (config, terms)
                assert writer.get_extra_info("peercert") == {}
                assert writer.get_extra_info("cipher") == theirs.cipher()
                assert writer.get_extra_info("compression") is None
                assert writer.get_extra_info("peername") == ("127.0.0.1", port)
            async with connected(port, client_config()) as (_, writer):
                stranger = await (await sides.get()).made
                assert stranger.get_extra_info("peercert") is None
                assert stranger.get_extra_info("ssl_object").getpeercert(True) is None

    run(main())


@PAIRS
def test_an_address_may_be_expected(run: Run, make_server: Any, make_client: Any) -> None:
    async def main() -> None:
        async with (
            echoing(make_server()) as port,
            connected(port, make_client(), "127.0.0.1") as (reader, writer),
        ):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"

    run(main())


def test_an_international_name_is_expected_in_its_ascii_form(run: Run) -> None:
    async def main() -> None:
        async with echoing(server_config()) as port:
            with pytest.raises(ssl.SSLCertVerificationError, match="xn--bcher-kva.example"):
                async with connected(port, client_config(), "b\u00fccher.example"):
                    pass

    run(main())


@pytest.mark.parametrize("make_server", [server_config, server_context])
def test_a_session_is_resumed(run: Run, make_server: Any) -> None:
    async def main() -> None:
        config = client_config()
        reused = []
        async with echoing(make_server()) as port:
            for _ in range(2):
                async with connected(port, config) as (reader, writer):
                    writer.write(b"hello")
                    # The tickets come before the answer.
                    await reader.readexactly(5)
                    reused.append(writer.get_extra_info("ssl_object").session_reused)
        assert reused == [False, True]

    run(main())


def test_no_tickets_no_resumption(run: Run) -> None:
    async def main() -> None:
        config = client_config()
        async with echoing(server_config(session_tickets=0)) as port:
            for _ in range(2):
                async with connected(port, config) as (reader, writer):
                    writer.write(b"hello")
                    await reader.readexactly(5)
                    assert not writer.get_extra_info("ssl_object").session_reused

    run(main())


# ---- certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_server", [server_config, server_context])
@pytest.mark.parametrize(
    ("server", "client", "name", "code", "text"),
    [
        ("expired", {}, "localhost", 10, "expired"),
        (
            "server",
            {},
            "other.example",
            62,
            "Hostname mismatch, certificate is not valid for 'other.example'",
        ),
        ("server", {}, "127.0.0.2", 64, "IP address mismatch, certificate is not valid for '127.0.0.2'"),
        ("server", {"roots": HERE / "stranger.pem"}, "localhost", 20, "local issuer"),
        (
            "revoked",
            {"roots": HERE / "revoker.pem", "crls": HERE / "revoker.crl"},
            "localhost",
            23,
            "revoked",
        ),
    ],
)
def test_a_bad_certificate_is_named(
    run: Run, make_server: Any, server: str, client: Any, name: str, code: int, text: str
) -> None:
    async def main() -> None:
        terms = make_server(certificate=HERE / f"{server}.pem", key=HERE / f"{server}.key")
        async with echoing(terms) as port:
            with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                async with connected(port, client_config(**client), name):
                    pass
            error = caught.value
            assert error.verify_code == code
            assert text in error.verify_message and text in str(error)
            assert (error.library, error.reason) == ("SSL", "CERTIFICATE_VERIFY_FAILED")

    run(main())


def test_a_list_without_the_certificate_lets_it_pass(run: Run) -> None:
    """It is signed by the authority that the list is of."""

    async def main() -> None:
        terms = server_config(certificate=HERE / "standing.pem", key=HERE / "standing.key")
        config = client_config(roots=HERE / "revoker.pem", crls=HERE / "revoker.crl")
        async with echoing(terms) as port, connected(port, config) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"

    run(main())


CLIENT = {"certificate": HERE / "client.pem", "key": HERE / "client.key"}


@pytest.mark.parametrize("make_client", [client_config, client_context])
@pytest.mark.parametrize(
    ("client_auth", "client", "accepted"),
    [
        ("required", CLIENT, True),
        ("optional", CLIENT, True),
        ("optional", {}, True),
        ("required", {}, False),
        ("required", {"certificate": HERE / "revoked.pem", "key": HERE / "revoked.key"}, False),
        ("optional", {"certificate": HERE / "revoked.pem", "key": HERE / "revoked.key"}, False),
    ],
)
def test_client_authentication(
    run: Run, contexts: list[Any], make_client: Any, client_auth: str, client: Any, accepted: bool
) -> None:
    async def main() -> None:
        async with echoing(server_config(client_auth=client_auth, roots=CA)) as port:

            async def talk() -> None:
                async with connected(port, make_client(**client)) as (reader, writer):
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"

            if accepted:
                await talk()
            else:
                # In TLS 1.3 the client has finished before the server looks; the alert comes with what it reads next.
                with pytest.raises(ssl.SSLError, match="(?i)alert"):
                    await talk()

    run(main())


def test_a_server_hears_why_it_was_refused(run: Run) -> None:
    """By the alert: here OpenSSL's in blocking mode, outside any loop."""

    async def main() -> None:
        def serve(sock: socket.socket) -> str:
            with sock, contextlib.suppress(OSError):
                try:
                    server_context().wrap_socket(sock, server_side=True).recv(1)
                except ssl.SSLError as error:
                    return error.reason
            return "nothing"

        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepting = asyncio.create_task(asyncio.to_thread(lambda: serve(listener.accept()[0])))
            terms = client_config(roots=HERE / "stranger.pem")
            with pytest.raises(ssl.SSLCertVerificationError):
                async with connected(listener.getsockname()[1], terms):
                    pass
            assert await accepting == "TLSV1_ALERT_UNKNOWN_CA"

    run(main())


# ---- the end of a connection ----------------------------------------------------------------------------------------


@PAIRS
@pytest.mark.parametrize("closer", ["server", "client"])
def test_a_goodbye_reaches_the_other_side(run: Run, make_server: Any, make_client: Any, closer: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sides: asyncio.Queue[Side] = asyncio.Queue()

        def make() -> Side:
            sides.put_nowait(side := Side())
            return side

        server = await loop.create_server(make, "127.0.0.1", 0, ssl=make_server())
        async with server:
            port = server.sockets[0].getsockname()[1]
            transport, client = await loop.create_connection(
                Side, "127.0.0.1", port, ssl=make_client(), server_hostname="localhost"
            )
            transport.write(b"x")
            side = await sides.get()
            theirs = await side.made
            first, second = (theirs, client) if closer == "server" else (transport, side)
            first.write(b"last words")
            first.close()
            await second.ended
            assert second.data.endswith(b"last words")
            assert await client.lost is None
            assert await side.lost is None

    run(main())


def raw(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "WRONG_VERSION_NUMBER"),
        (b"\x16\x03\x01\xff\xff" + b"x" * 20, "PACKET_LENGTH_TOO_LONG"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "BAD_PACKET"),
        (b"\x17\x03\x03\x00\x05xxxxx", "UNEXPECTED_MESSAGE"),
    ],
)
def test_garbage_in_the_handshake(run: Run, garbage: bytes, reason: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, raw(listener.getsockname()[1]) as peer:
            sock, _ = listener.accept()
            peer.sendall(garbage)
            with pytest.raises(ssl.SSLError) as caught:
                await loop.connect_accepted_socket(Side, sock, ssl=server_config())
            assert caught.value.reason == reason
            # And the peer is told, by a fatal alert.
            assert (await asyncio.to_thread(peer.recv, 7))[:1] == b"\x15"

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_cut_in_the_handshake(run: Run, reset: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, raw(listener.getsockname()[1]) as peer:
            sock, _ = listener.accept()
            peer.sendall(b"\x16\x03\x01\x00\xff\x01")
            if reset:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            with pytest.raises(ConnectionResetError):
                await loop.connect_accepted_socket(Side, sock, ssl=server_config())

    run(main())


def test_a_stalled_handshake_times_out(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, raw(listener.getsockname()[1]):
            sock, _ = listener.accept()
            with pytest.raises(ConnectionAbortedError, match="taking longer than"):
                await loop.connect_accepted_socket(
                    Side, sock, ssl=server_config(), ssl_handshake_timeout=0.05
                )

    run(main())


class Broken:
    """An OpenSSL client on a plain socket, whose records can be spoilt on their way."""

    def __init__(self, port: int) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.sock = raw(port)
        while True:
            try:
                self.session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self.incoming.write(self.sock.recv(1 << 16))
        self.sock.sendall(self.outgoing.read())

    def record(self, data: bytes) -> bytes:
        self.session.write(data)
        return self.outgoing.read()


def test_a_spoilt_record_comes_after_the_good_ones(run: Run, contexts: list[Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sides: asyncio.Queue[Side] = asyncio.Queue()

        def make() -> Side:
            sides.put_nowait(side := Side())
            return side

        server = await loop.create_server(make, "127.0.0.1", 0, ssl=server_config())
        async with server:
            peer = await asyncio.to_thread(Broken, server.sockets[0].getsockname()[1])
            good, bad = peer.record(b"good"), bytearray(peer.record(b"bad"))
            bad[-1] ^= 1
            peer.sock.sendall(good + bytes(bad))
            side = await sides.get()
            error = await side.lost
            assert side.data == b"good"
            assert isinstance(error, ssl.SSLError)
            assert error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
            peer.sock.close()

    run(main())
    assert contexts == []


@pytest.mark.parametrize("reset", [False, True])
def test_cut_in_the_middle(run: Run, reset: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sides: asyncio.Queue[Side] = asyncio.Queue()

        def make() -> Side:
            sides.put_nowait(side := Side())
            return side

        server = await loop.create_server(make, "127.0.0.1", 0, ssl=server_config())
        async with server:
            peer = await asyncio.to_thread(Broken, server.sockets[0].getsockname()[1])
            side = await sides.get()
            await side.made
            peer.sock.sendall(peer.record(b"half a record")[:-5])
            if reset:
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.sock.close()
            else:
                peer.sock.shutdown(socket.SHUT_WR)
            error = await side.lost
            peer.sock.close()
            assert isinstance(error, ConnectionResetError) if reset else error is None
            assert side.data == b""

    run(main())


def test_paused_reading_holds_back_and_loses_nothing(run: Run) -> None:
    payload = b"x" * 3_000_000

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sides: asyncio.Queue[Side] = asyncio.Queue()

        def make() -> Side:
            sides.put_nowait(side := Side())
            return side

        server = await loop.create_server(make, "127.0.0.1", 0, ssl=server_config())
        async with server:
            async with connected(server.sockets[0].getsockname()[1], client_config()) as (_, writer):
                side = await sides.get()
                transport = await side.made
                transport.pause_reading()
                writer.write(payload)
                draining = asyncio.create_task(writer.drain())
                await asyncio.wait([draining], timeout=0.05)
                assert not side.data
                transport.resume_reading()
                await draining
            await side.ended
            assert side.data == payload

    run(main())


# ---- one configuration, many threads --------------------------------------------------------------------------------


def test_many_loops_share_one_configuration() -> None:
    server, client = server_config(), client_config()
    failures: list[BaseException] = []

    async def main() -> None:
        async with echoing(server) as port:

            async def talk() -> None:
                async with connected(port, client) as (reader, writer):
                    for _ in range(20):
                        writer.write(b"x" * 5000)
                        assert await reader.readexactly(5000) == b"x" * 5000

            await asyncio.gather(*(talk() for _ in range(8)))

    def work() -> None:
        try:
            tokioloop.run(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_pem_text_instead_of_files(run: Run) -> None:
    async def main() -> None:
        terms = server_config(certificate=SERVER.read_bytes(), key=bytearray(KEY.read_bytes()))
        async with echoing(terms) as port, connected(port, client_config(roots=CA.read_bytes())):
            pass

    run(main())


def test_the_systems_roots_do_not_know_our_authority(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(HERE / "stranger.pem"))

    async def main() -> None:
        async with echoing(server_config()) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                async with connected(port, ClientConfig()):
                    pass
            monkeypatch.setenv("SSL_CERT_FILE", str(CA))
            async with connected(port, ClientConfig()):
                pass

    run(main())


NOTHING = b"no certificate in here"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ServerConfig("/nonexistent.pem", KEY), FileNotFoundError, "/nonexistent.pem"),
        (lambda: ServerConfig(SERVER, HERE / "other.key"), ssl.SSLError, "KEY_VALUES_MISMATCH"),
        (lambda: ServerConfig(NOTHING, KEY), ssl.SSLError, "certificate: no certificate"),
        (lambda: ServerConfig(SERVER, SERVER), ssl.SSLError, "key: no private key"),
        (lambda: ServerConfig(b"-----BEGIN CERTIFICATE-----\n!", KEY), ssl.SSLError, "certificate"),
        (lambda: ServerConfig(SERVER, 5), TypeError, "int"),
        (lambda: ServerConfig(SERVER, KEY, client_auth="maybe", roots=CA), ValueError, "client_auth"),
        (lambda: ServerConfig(SERVER, KEY, client_auth="required"), ValueError, "roots"),
        (lambda: ServerConfig(SERVER, KEY, roots=CA), ValueError, "client_auth"),
        (lambda: ServerConfig(SERVER, KEY, session_tickets=-1), OverflowError, "negative"),
        (lambda: ClientConfig(certificate=SERVER), ValueError, "together"),
        (lambda: ClientConfig(roots=NOTHING), ssl.SSLError, "roots: no certificate"),
        (lambda: ClientConfig(roots=CA, crls=NOTHING), ssl.SSLError, "crls: no revocation list"),
        (lambda: ClientConfig(roots=CA, alpn="h2"), TypeError, "several"),
        (lambda: ClientConfig(roots=CA, alpn=[""]), ValueError, "1 to 255"),
        (lambda: ClientConfig(roots=CA, minimum_version=ssl.TLSVersion.TLSv1_1), ValueError, "TLSv1_2"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_a_minimum_version_holds(run: Run) -> None:
    async def main() -> None:
        old = client_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with echoing(server_config(minimum_version=ssl.TLSVersion.TLSv1_3)) as port:
            with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
                async with connected(port, old):
                    pass

    run(main())


def test_each_side_wants_its_own_kind(run: Run, listener: socket.socket) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError, match="ServerConfig"):
            await loop.create_server(Side, "127.0.0.1", 0, ssl=client_config())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="ClientConfig"):
            await loop.create_connection(
                Side,
                *listener.getsockname(),
                ssl=server_config(),  # type: ignore[arg-type]
                server_hostname="localhost",
            )
        with pytest.raises(ValueError, match="server_hostname"):
            await loop.create_connection(
                Side, *listener.getsockname(), ssl=client_config(), server_hostname=""
            )
        with pytest.raises(ValueError, match="server_hostname"):
            await loop.create_connection(
                Side, *listener.getsockname(), ssl=client_config(), server_hostname="not a name"
            )
        with pytest.raises(TypeError, match="SSLContext"):
            await loop.create_server(Side, "127.0.0.1", 0, ssl=True)  # type: ignore[arg-type]

    run(main())


def test_configurations_are_immutable() -> None:
    for config in (server_config(), client_config()):
        with pytest.raises(AttributeError):
            config.alpn = ["h2"]  # type: ignore[union-attr]
