"""Helpers of the tests of TLS by rustls: both kinds of configurations, an echo server, a client."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

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
    """A server's protocol, whose calls can be awaited."""

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
