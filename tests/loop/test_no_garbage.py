"""Ended objects are freed at once, without the collector, which stops every thread: ended connections leave no cycles.

As in asyncio, a transport releases its protocol after connection_lost().
"""

import asyncio
import gc
import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import tokioloop
from tokioloop.tls import ClientConfig, ServerConfig

from .tls_support import CERTIFICATES, client_context, server_context

HOST = "127.0.0.1"
ROUNDS = 5


class Watch:
    """Weak references to the objects."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Any]] = []

    def add(self, *objects: Any) -> None:
        self.made += map(weakref.ref, objects)

    def alive(self) -> list[Any]:
        return [found for made in self.made if (found := made()) is not None]


class Kept:
    """A protocol that keeps its transport, as most do."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.over = asyncio.get_running_loop().create_future()
        watch.add(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.watch.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(None)


class Answering(Kept, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class Buffered(Kept, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(64)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))
        self.transport.close()


class Datagrams(Kept, asyncio.DatagramProtocol):
    pass


class Child(Kept, asyncio.SubprocessProtocol):
    pass


type Case = Callable[[Watch], Coroutine[Any, Any, None]]


def connections(kind: type[Kept], options: Callable[[], tuple[Any, Any]] | None = None) -> Case:
    async def case(watch: Watch) -> None:
        loop = asyncio.get_running_loop()
        serving, asking = options() if options else (None, None)
        server = await loop.create_server(lambda: kind(watch), HOST, 0, ssl=serving)
        name = {"server_hostname": "localhost"} if asking else {}
        for _ in range(ROUNDS):
            transport, protocol = await loop.create_connection(
                lambda: Answering(watch), *server.sockets[0].getsockname(), ssl=asking, **name
            )
            transport.write(b"x")
            await protocol.over
            del transport, protocol
        server.close()
        await server.wait_closed()

    return case


async def datagrams(watch: Watch) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(ROUNDS):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Datagrams(watch), local_addr=(HOST, 0)
        )
        transport.close()
        await protocol.over
        del transport, protocol


async def pipes(watch: Watch) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(ROUNDS):
        read, write = os.pipe()
        _, reader = await loop.connect_read_pipe(lambda: Answering(watch), os.fdopen(read, "rb"))
        transport, writer = await loop.connect_write_pipe(lambda: Answering(watch), os.fdopen(write, "wb"))
        transport.close()
        await writer.over
        await reader.over
        del transport, reader, writer


async def children(watch: Watch) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(ROUNDS):
        _, protocol = await loop.subprocess_exec(lambda: Child(watch), "true")
        await protocol.over
        protocol.transport.close()  # As on asyncio, it calls that although the child has ended.
        del protocol


def streams(start_server: Any, open_connection: Any) -> Case:
    async def case(watch: Watch) -> None:
        async def answer(reader: Any, writer: Any) -> None:
            watch.add(reader, writer, writer.transport)
            writer.write(await reader.read(10))
            writer.close()

        server = await start_server(answer, HOST, 0)
        for _ in range(ROUNDS):
            reader, writer = await open_connection(*server.sockets[0].getsockname())
            watch.add(reader, writer, writer.transport)
            writer.write(b"x")
            assert await reader.read() == b"x"
            writer.close()
            await writer.wait_closed()
            del reader, writer
        server.close()
        await server.wait_closed()

    return case


def ssl_contexts() -> tuple[Any, Any]:
    return server_context(), client_context()


def rustls_configs() -> tuple[Any, Any]:
    chain, key = CERTIFICATES / "server.pem", CERTIFICATES / "server.key"
    return ServerConfig(certificate=chain, key=key), ClientConfig(roots=CERTIFICATES / "ca.pem")


CASES: dict[str, Case] = {
    "protocol": connections(Answering),
    "buffered": connections(Buffered),
    "tls": connections(Answering, ssl_contexts),
    "rustls": connections(Answering, rustls_configs),
    "datagrams": datagrams,
    "pipes": pipes,
    "children": children,
    "streams": streams(tokioloop.start_server, tokioloop.open_connection),
    "asyncio-streams": streams(asyncio.start_server, asyncio.open_connection),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_is_left_to_the_collector(run, case):
    async def main() -> list[Any]:
        watch = Watch()
        gc.collect()
        gc.disable()
        try:
            await case(watch)
            assert watch.made
            # The last callbacks of both sides, and the tasks that waited for them, take some turns.
            for _ in range(1000):
                if not watch.alive():
                    break
                await asyncio.sleep(0)
            return watch.alive()
        finally:
            gc.enable()

    assert run(main()) == []


@pytest.mark.parametrize("kind", [Answering, Buffered])
def test_a_transport_has_no_protocol_after_its_end(run, kind):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch()
        server = await loop.create_server(lambda: kind(watch), HOST, 0)
        transport, protocol = await loop.create_connection(
            lambda: Answering(watch), *server.sockets[0].getsockname()
        )
        transport.abort()
        assert transport.get_protocol() is protocol
        await protocol.over
        await asyncio.sleep(0)
        assert transport.get_protocol() is None
        transport.write(b"late")
        server.close()

    run(main())
