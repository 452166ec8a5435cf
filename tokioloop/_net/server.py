"""Server: listening sockets and the connections that came through them."""

from __future__ import annotations

from asyncio import AbstractServer, BaseProtocol, CancelledError, Future, Transport, sleep
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from .serve import Serve
    from .tls import Security


class Server(AbstractServer):
    """The result of ``create_server`` and ``create_unix_server``. Its methods belong to the loop's thread.

    Two conditions end it: it is closed (``_sockets`` is None) and its last connection is gone. Whichever
    comes last wakes those in ``wait_closed`` and sets ``_waiters`` to None.
    """

    def __init__(
        self,
        loop: Serve,
        sockets: list[socket],
        protocol_factory: Callable[[], BaseProtocol],
        backlog: int,
        security: Security | None = None,
    ) -> None:
        self._loop = loop
        self._sockets: list[socket] | None = sockets
        self._protocol_factory = protocol_factory
        self._backlog = backlog
        self._security = security
        # By their ids. Weak, so that an unused transport can still be collected, and warn.
        self._clients: dict[int, ref[Transport]] = {}
        self._waiters: list[Future[None]] | None = []
        self._serving = False
        self._serving_forever: Future[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    # Connections, reported by the native transports.

    def _attach(self, transport: Transport) -> None:
        self._clients[id(transport)] = ref(transport)

    def _detach(self, transport: Transport) -> None:
        self._clients.pop(id(transport), None)
        if self._sockets is None and not self._clients:
            self._wake()

    def _collected(self) -> None:
        """An unclosed connection without references was collected."""
        for key in [key for key, client in self._clients.items() if client() is None]:
            del self._clients[key]
        if self._sockets is None and not self._clients:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # Serving.

    def get_loop(self) -> Serve:  # type: ignore[override]
        """Return the loop this server serves on."""
        return self._loop

    def is_serving(self) -> bool:
        """Return whether connections are accepted. May be called from any thread."""
        return self._serving

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets; empty once the server is closed."""
        return tuple(map(TransportSocket, self._sockets or ()))

    def _start_serving(self) -> None:
        if self._serving:
            return
        self._loop._check_thread()
        self._serving = True
        for sock in self._sockets or ():
            sock.listen(self._backlog)
            self._loop._start_serving(self._protocol_factory, sock, self, self._backlog, self._security)

    async def start_serving(self) -> None:
        """Start to accept connections; nothing happens if that is under way. RuntimeError once closed."""
        self._require_open()
        self._start_serving()
        # One turn, so that a connection made right after is accepted by it.
        await sleep(0)

    async def serve_forever(self) -> None:
        """Accept connections until cancelled, then close the server and its connections.

        Raises RuntimeError if the server is closed or this is already being awaited.
        """
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self._require_open()
        self._start_serving()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except CancelledError:
            try:
                self.close()
                self.close_clients()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    def _require_open(self) -> None:
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")

    # The end.

    def close(self) -> None:
        """Stop accepting and close the listening sockets; connections continue. A second call does nothing."""
        sockets = self._sockets
        if sockets is None:
            return
        self._loop._check_thread()
        self._sockets = None
        self._serving = False
        for sock in sockets:
            self._loop._stop_serving(sock)
        forever = self._serving_forever
        if forever is not None and not forever.done():
            forever.cancel()
            self._serving_forever = None
        if not self._clients:
            self._wake()

    def _alive(self) -> list[Transport]:
        return [transport for client in self._clients.values() if (transport := client()) is not None]

    def close_clients(self) -> None:
        """Close every connection of this server, sending first what is buffered."""
        self._loop._check_thread()
        for transport in self._alive():
            transport.close()

    def abort_clients(self) -> None:
        """Close every connection of this server at once, dropping what is buffered."""
        self._loop._check_thread()
        for transport in self._alive():
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and all its connections are gone, in either order."""
        if self._waiters is None:
            return
        waiter: Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter
