"""What the tests of TLS share: certificates, contexts, linked transports, and a peer that is driven by hand."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import tokioloop
from tokioloop import _tokioloop

from .support import PATIENCE, ROOT, Recorder, tcp_pair

CERTIFICATES = ROOT / "tests" / "certificates"
HOST = "127.0.0.1"
OURS = ["direct", "memory-bio"]
KINDS = [*OURS, "asyncio"]

TLS_1_2 = ssl.TLSVersion.TLSv1_2
TLS_1_3 = ssl.TLSVersion.TLSv1_3


class Secure:
    """A loop for one test: ours with a given TLS engine, or asyncio's own, to show whose behaviour is expected."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.loop: Any = asyncio.SelectorEventLoop() if kind == "asyncio" else tokioloop.TokioLoop()
        self.contexts: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.contexts.append(context))

    @property
    def is_ours(self) -> bool:
        return self.kind != "asyncio"

    def run[T](self, coro: Coroutine[Any, Any, T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(PATIENCE):
                return await coro

        return self.loop.run_until_complete(in_time())

    def make_loop(self) -> Any:
        """Another loop of the same kind."""
        return asyncio.SelectorEventLoop() if self.kind == "asyncio" else tokioloop.TokioLoop()


@contextlib.contextmanager
def engine_of(kind: str) -> Any:
    """New connections of our loops use this engine."""
    before = _tokioloop._tls_engine()
    if kind in OURS:
        _tokioloop._tls_engine(kind)
    try:
        yield
    finally:
        _tokioloop._tls_engine(before)


def server_context(
    name: str = "server", *, client_certificates: str | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem", CERTIFICATES / f"{name}.key")
    if client_certificates is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CERTIFICATES / f"{client_certificates}.pem")
    return only(context, version)


def client_context(
    *, trust: str = "ca", certificate: str | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(CERTIFICATES / f"{trust}.pem"))
    if certificate is not None:
        context.load_cert_chain(CERTIFICATES / f"{certificate}.pem", CERTIFICATES / f"{certificate}.key")
    return only(context, version)


def only(context: ssl.SSLContext, version: ssl.TLSVersion | None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Linked:
    """Two TLS transports of the running loop, connected with each other, with their protocols."""

    def __init__(self, client: Any, server: Any) -> None:
        self.client, self.server = client, server

    @property
    def near(self) -> Any:
        return self.client.transport

    @property
    def far(self) -> Any:
        return self.server.transport


@contextlib.asynccontextmanager
async def linked(
    client: Any = None,
    server: Any = None,
    *,
    version: ssl.TLSVersion | None = None,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Linked]:
    """Connect a client with a server; *options* go to both, and both are aborted at the end."""
    loop = asyncio.get_running_loop()
    client, server = client or Recorder(), server or Recorder()
    to_server = {"ssl": server_context(version=version)} | options | (server_options or {})
    to_client = (
        {"ssl": client_context(version=version), "server_hostname": "localhost"}
        | options
        | (client_options or {})
    )
    listening = await loop.create_server(lambda: server, HOST, 0, **to_server)
    try:
        await loop.create_connection(lambda: client, *listening.sockets[0].getsockname(), **to_client)
        await server.event("made")
        yield Linked(client, server)
    finally:
        listening.close()
        for protocol in (client, server):
            if protocol.transport is not None:
                protocol.transport.abort()
                if "made" in protocol.log:
                    await protocol.lost()


@contextlib.asynccontextmanager
async def serving(factory: Callable[[], Any], context: ssl.SSLContext | None = None, **options: Any) -> Any:
    """A TLS server of the running loop; yields its address."""
    loop = asyncio.get_running_loop()
    context = context or server_context()
    server = await loop.create_server(factory, HOST, 0, ssl=context, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


class Peer:
    """The other end of a TLS connection, driven by hand: it decides what goes out, when, and how whole."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session,
        )

    def pending(self) -> bytes:
        """Take the ciphertext that is to be sent."""
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def feed(self) -> bool:
        """Receive ciphertext; False at the end of the stream."""
        data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    async def drive(self, call: Callable[..., Any], *args: Any) -> Any:
        """Repeat a call until it needs no more input; sends what comes out."""
        while True:
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                await self.send(self.pending())
                await self.feed()
            except ssl.SSLError:
                await self.send(self.pending())
                raise
            else:
                await self.send(self.pending())
                return result

    async def handshake(self) -> None:
        await self.drive(self.object.do_handshake)

    async def write(self, data: bytes) -> None:
        await self.drive(self.object.write, data)

    async def read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = await self.drive(self.object.read, size - len(data))
            assert part, "the peer sent less"
            data += part
        return bytes(data)

    async def read_all(self) -> bytes:
        """Read up to the peer's close_notify; SSLEOFError if it ends without."""
        data = bytearray()
        while True:
            try:
                part = await self.drive(self.object.read, 1 << 16)
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                return bytes(data)
            data += part

    def goodbye(self) -> bytes:
        """close_notify, encrypted."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.unwrap()
        return self.pending()

    def encrypted(self, data: bytes) -> bytes:
        """Records with *data*, not sent."""
        assert self.object.write(data) == len(data)
        return self.pending()

    def close(self) -> None:
        self.sock.close()


@contextlib.asynccontextmanager
async def against_peer(
    protocol: Any = None,
    *,
    server_side: bool = False,
    version: ssl.TLSVersion | None = None,
    handshake: bool = True,
    **options: Any,
) -> AsyncIterator[tuple[Any, Peer]]:
    """A transport of the running loop (*server_side* or not) on one end of a connection, and a ``Peer`` on the other.

    Without *handshake* the transport's handshake is a task, ``protocol.connecting``, and the peer has not begun.
    """
    loop = asyncio.get_running_loop()
    protocol = protocol or Recorder()
    near, far = tcp_pair()
    if server_side:
        peer = Peer(far, client_context(version=version), server_hostname="localhost")
        context = options.pop("ssl", None) or server_context(version=version)
        connect = loop.connect_accepted_socket(lambda: protocol, near, ssl=context, **options)
    else:
        peer = Peer(far, server_context(version=version), server_side=True)
        context = options.pop("ssl", None) or client_context(version=version)
        options = {"server_hostname": "localhost"} | options
        connect = loop.create_connection(lambda: protocol, sock=near, ssl=context, **options)
    protocol.connecting = asyncio.create_task(connect)
    try:
        if handshake:
            await peer.handshake()
            await protocol.connecting
        yield protocol, peer
    finally:
        protocol.connecting.cancel()
        await asyncio.gather(protocol.connecting, return_exceptions=True)
        if protocol.transport is not None:
            protocol.transport.abort()
            await protocol.lost()
        peer.close()
        near.close()
