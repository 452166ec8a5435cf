"""TLS by rustls against itself and against ssl, on real sockets: the bytes, and the facts of the connection."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokioloop

from .rustls_support import (
    CA,
    HERE,
    PAIRS,
    SERVER,
    Run,
    Side,
    client_config,
    client_context,
    connected,
    echo,
    echoing,
    server_config,
    server_context,
)


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
    """The server gets OpenSSL's records through a socket one byte at a time."""

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
