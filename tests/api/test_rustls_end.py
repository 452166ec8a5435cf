"""TLS by rustls: how connections end: orderly, cut, and by malformed input."""

import asyncio
import socket
import ssl
import struct
from typing import Any

import pytest

from .rustls_support import PAIRS, Run, Side, client_config, client_context, connected, server_config


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
            # And the peer gets a fatal alert.
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
    """An OpenSSL client on a plain socket, whose records can be corrupted on their way."""

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
