"""Helpers of the tests of servers over several loops: loops in threads, and clients that are plain sockets."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import tokioloop
from tests.loop.tls_support import CERTIFICATES

# Far above what any test needs: it turns a hang into a failure.
PATIENCE = 30


class Thread:
    """A loop that runs in a thread of its own until it is stopped; then it is closed."""

    def __init__(self) -> None:
        running = threading.Event()
        self.contexts: list[dict[str, Any]] = []
        self.loop = tokioloop.TokioLoop()
        self.loop.set_exception_handler(lambda loop, context: self.contexts.append(context))
        self.loop.call_soon(running.set)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert running.wait(PATIENCE)

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def call(self, function: Any, *args: Any) -> Any:
        """Call a function on the loop's thread and return what it returned."""

        async def call() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    def stop(self) -> None:
        """Stop and close the loop; a second call does nothing."""
        if not self.loop.is_closed():
            self.loop.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def threads(count: int) -> Iterator[list[Thread]]:
    made: list[Thread] = []
    try:
        made += [Thread() for _ in range(count)]
        yield made
    finally:
        for thread in made:
            thread.stop()


class Echo(asyncio.Protocol):
    """Answers with the name of its thread when asked for it, otherwise echoes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data == b"who":
            data = threading.current_thread().name.encode()
        self.transport.write(data)


async def echo_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(threading.current_thread().name.encode() if data == b"who" else data)
        await writer.drain()
    writer.close()


def connect(server: Any) -> socket.socket:
    """A plain client of a server, connected."""
    address = server.addresses[0]
    if isinstance(address, tuple):
        return socket.create_connection(address[:2], PATIENCE)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(address)
    return client


def ask(client: socket.socket, text: bytes = b"who") -> bytes:
    client.sendall(text)
    return client.recv(1000)


def at_end(client: socket.socket) -> bool:
    """Wait for the connection's end, by close or by reset."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


MODES = ["reuseport", "shared", "balance"]


def leaves_open(test):
    ignored = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
    return pytest.mark.usefixtures("left_open")(ignored(test))


def loops(made):
    return [thread.loop for thread in made]


def server_terms(kind):
    if kind == "ssl":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        return context
    if kind == "rustls":
        return tokioloop.tls.ServerConfig(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    return None


def secured(client, kind):
    if kind == "plain":
        return client
    context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
    return context.wrap_socket(client, server_hostname="127.0.0.1")


async def in_thread(function, *args):
    """Clients block, so they run in a thread of their own."""
    return await asyncio.to_thread(function, *args)


def ask_name():
    return threading.current_thread().name.encode()
