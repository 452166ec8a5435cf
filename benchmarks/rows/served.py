"""Rows with a server in the measured process and the Rust load generator outside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import Any, Protocol, cast

from ..model import Loop, Row, Target

LIMIT = 256 * 1024
#: Listening again, as a server does, sets the backlog again.
BACKLOG = 4096
BODY = b"Hello, World!\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoOnce(Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class EchoDatagrams(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


class EchoBuffered(asyncio.BufferedProtocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = bytearray(LIMIT)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # A copy: the loop may keep what the kernel does not take, while the buffer is filled again.
        self.transport.write(self.buffer[:nbytes])


class Parser(Protocol):
    """The part of `httptools.HttpRequestParser` that is used."""

    def feed_data(self, data: bytes) -> None: ...
    def should_keep_alive(self) -> bool: ...


class Http(Echo):
    """HTTP/1.1 with httptools' parser; every request gets the same reply."""

    def __init__(self, parser: Callable[[Any], Parser]) -> None:
        self.parser = parser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(RESPONSE)
        if not self.parser.should_keep_alive():
            self.transport.close()


async def serve_echo(loop: Loop, listener: socket) -> Callable[[], None]:
    return (await _server(loop, Echo, listener)).close


async def serve_echo_once(loop: Loop, listener: socket) -> Callable[[], None]:
    return (await _server(loop, EchoOnce, listener)).close


async def serve_datagrams(loop: Loop, sock: socket) -> Callable[[], None]:
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, sock=sock)
    return transport.close


async def serve_buffered(loop: Loop, listener: socket) -> Callable[[], None]:
    return (await _server(loop, EchoBuffered, listener)).close


async def serve_http(loop: Loop, listener: socket) -> Callable[[], None]:
    from httptools import HttpRequestParser

    return (await _server(loop, lambda: Http(HttpRequestParser), listener)).close


async def _server(
    loop: Loop, factory: Callable[[], asyncio.BaseProtocol], listener: socket
) -> asyncio.AbstractServer:
    # asyncio accepts up to the backlog in one turn.
    if listener.family.name == "AF_UNIX":
        return await loop.create_unix_server(factory, sock=listener, backlog=BACKLOG)
    return await loop.create_server(factory, sock=listener, backlog=BACKLOG)


async def serve_streams(loop: Loop, listener: socket) -> Callable[[], None]:
    start_server = asyncio.start_server
    if type(loop).__module__.partition(".")[0] == "tokioloop":
        import tokioloop

        start_server = tokioloop.start_server

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The load generator leaves in the middle of an exchange, so large ones end with a reset.
        with suppress(ConnectionError):
            while data := await reader.read(LIMIT):
                writer.write(data)
                await writer.drain()
        writer.close()

    return (await start_server(handle, sock=listener, backlog=BACKLOG)).close


async def serve_sock(loop: Loop, listener: socket) -> Callable[[], None]:
    tasks: set[asyncio.Task[None]] = set()

    async def handle(connection: socket) -> None:
        with connection:
            while data := await loop.sock_recv(connection, LIMIT):
                await loop.sock_sendall(connection, data)

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = loop.create_task(handle(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    listener.setblocking(False)
    accepting = loop.create_task(accept())

    def undo() -> None:
        for task in [accepting, *tasks]:
            task.cancel()

    return undo


ECHO = ("echo", "--size", "1024", "--connections", "64")
ECHO_100K = ("echo", "--size", "102400", "--connections", "64")

ROWS = (
    Row(
        "echo_protocol",
        "echo of 1 KiB, Protocol, 64 connections",
        "network",
        serve=serve_echo,
        load=ECHO,
        floor=(),
        two_threads=True,
        target=Target(times=1.05, floor=1.06),
    ),
    Row(
        "echo_protocol_1000",
        "echo of 1 KiB, Protocol, 1000 connections",
        "network",
        serve=serve_echo,
        load=("echo", "--size", "1024", "--connections", "1000"),
        floor=(),
        target=Target(times=1.15, floor=1.06),
    ),
    Row(
        "echo_buffered",
        "echo of 1 KiB, BufferedProtocol, 64 connections",
        "network",
        serve=serve_buffered,
        load=ECHO,
        floor=(),
        target=Target(times=1.15, floor=1.08),
    ),
    Row(
        "echo_streams",
        "echo of 1 KiB, streams, 64 connections",
        "network",
        serve=serve_streams,
        load=ECHO,
        floor=(),
        target=Target(times=2.0, floor=1.3),
    ),
    Row(
        "echo_100k",
        "echo of 100 KiB, Protocol, 64 connections",
        "network",
        serve=serve_echo,
        load=ECHO_100K,
        floor=(),
        target=Target(times=1.05),
    ),
    Row(
        "echo_100k_streams",
        "echo of 100 KiB, streams, 64 connections",
        "network",
        serve=serve_streams,
        load=ECHO_100K,
        floor=(),
        target=Target(times=1.8),
    ),
    Row(
        "echo_sock",
        "echo of 1 KiB, sock_recv and sock_sendall, 64 connections",
        "network",
        serve=serve_sock,
        load=ECHO,
        floor=(),
        target=Target(times=3.3, floor=1.25),
    ),
    Row(
        "unix_protocol",
        "echo of 1 KiB, Protocol, Unix socket, 64 connections",
        "network",
        serve=serve_echo,
        load=ECHO,
        over="unix",
        floor=(),
        target=Target(times=1.15, floor=1.08),
    ),
    Row(
        "udp_echo",
        "echo of datagrams of 1 KiB, DatagramProtocol, 32 sockets with two under way each",
        "network",
        serve=serve_datagrams,
        load=("udp", "--size", "1024", "--connections", "32", "--under-way", "2"),
        over="udp",
        floor=(),
        target=Target(times=1.5, floor=1.0),
    ),
    Row(
        "connect",
        "connect, echo of one byte, close by the server; 16 at a time",
        "network",
        serve=serve_echo_once,
        load=("connect", "--closer", "server", "--connections", "16"),
        floor=("--once",),
        target=Target(times=1.05, floor=1.06),
    ),
    Row(
        "http",
        "HTTP/1.1 keep-alive GET, httptools, 64 connections",
        "network",
        serve=serve_http,
        load=("http", "--connections", "64"),
        floor=("--http",),
        two_threads=True,
        target=Target(times=1.15, floor=1.2),
    ),
)
