"""Servers over several loops: which loop accepts, which gets a connection, and one object to end them all.

    server = await serve(loops, Echo, "127.0.0.1", 8000, accept="balance")

| accept        | accepting loop                                       | which loop gets a connection                     |
| "reuseport"   | each loop, on a listening socket of its own          | the one the kernel chooses by a hash             |
| "shared"      | each loop, from one listening socket                 | a sleeping one, or the first that polls       |
| "balance"     | the first loop                                       | the one with the fewest connections of this server |

Each loop has a `Share`: a ``Server`` of its own that only that loop's thread changes. `PoolServer` speaks to the shares by calls
sent to their loops, and each share calls back when its last connection is gone.
"""

import socket
from asyncio import (
    BaseProtocol,
    StreamReader,
    StreamWriter,
    Transport,
    _get_running_loop,
    gather,
    run_coroutine_threadsafe,
    sleep,
    timeout,
    wrap_future,
)
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from os import unlink
from threading import Lock
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, cast

from .._loop.public import public
from .._net.serve import Serve
from .._net.server import Server
from .._net.sockets import is_abstract
from .._net.tls import Security
from .._tokioloop import Balance

type Accept = Literal["reuseport", "shared", "balance"]
type Factory = Callable[[], BaseProtocol]
type StreamsCallback = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]

# A connection with nothing left to send ends within this many turns of its loop.
CLOSING_TURNS = 3


@public
class LoopStats(NamedTuple):
    """One loop's part of a server's figures."""

    accepted: int
    open: int


@public
class ServerStats(NamedTuple):
    """Connections accepted since the server started and those open now: each loop's, in the order of the loops, and in all."""

    loops: tuple[LoopStats, ...]
    accepted: int
    open: int


class Share(Server):
    """One loop's part of a server over several. Its loop's thread changes it; any thread may read its figures."""

    def __init__(
        self,
        loop: Serve,
        sockets: list[socket.socket],
        factory: Factory,
        backlog: int,
        security: Security | None,
        ended: "Callable[[Share], None]",
    ) -> None:
        super().__init__(loop, sockets, factory, backlog, security)
        self._ended = ended
        # Written by the loop's thread only.
        self._accepted = 0
        self._gone = 0
        self._exclusive = False
        self._balance: Balance | None = None
        self._index = 0
        self._unlinks = False

    @property
    def stats(self) -> LoopStats:
        # In this order, so that a connection that begins meanwhile does not make the figure negative.
        gone = self._gone
        return LoopStats(self._accepted, self._accepted - gone)

    def _attach(self, transport: Transport) -> None:
        self._accepted += 1
        super()._attach(transport)

    def _detach(self, transport: Transport) -> None:
        self._count_gone()
        super()._detach(transport)

    def _collected(self) -> None:
        self._count_gone()
        super()._collected()

    def _count_gone(self) -> None:
        self._gone += 1
        if self._balance is not None:
            self._balance.ended(self._index)

    def _wake(self) -> None:
        super()._wake()
        self._loop._forget_close(self._loop_closed)
        self._ended(self)

    async def start(self) -> None:
        """Listen and accept, on the loop's thread."""
        self._loop._on_close(self._loop_closed)
        self._start_serving()
        # One turn, so that the sockets are watched when the caller goes on.
        await sleep(0)

    def _start_serving(self) -> None:
        self._loop._check_thread()
        self._serving = True
        for sock in self._sockets or ():
            sock.listen(self._backlog)
            if self._unlinks:
                self._loop._note_unix_socket(sock)
            if self._balance is not None:
                self._loop._accept_for(sock, self._balance)
            else:
                context, handshake, shutdown = self._security[:3] if self._security else (None, None, None)
                self._loop._accept(
                    sock,
                    self._protocol_factory,
                    self,
                    self._backlog,
                    context,
                    handshake,
                    shutdown,
                    self._exclusive,
                )

    async def end_clients(self) -> int:
        """Close every connection; abort, and count, those that still have something to send."""
        self.close_clients()
        for _ in range(CLOSING_TURNS):
            await sleep(0)
        left = len(self._alive())
        self.abort_clients()
        return left

    def give_up(self) -> None:
        """End without having started. Any thread."""
        sockets, self._sockets = self._sockets, None
        for sock in sockets or ():
            if self._unlinks and not is_abstract(sock.getsockname()):
                with suppress(FileNotFoundError):
                    unlink(sock.getsockname())
            sock.close()
        self._ended(self)

    def _loop_closed(self) -> None:
        sockets, self._sockets = self._sockets, None
        self._serving = False
        for sock in sockets or ():
            self._loop._stop_serving(sock)
        self._gone = self._accepted
        self._clients.clear()
        self._ended(self)


@public
class PoolServer:
    """A server over several loops, the result of `serve`.

    Its methods may be called in any thread, and awaited on any asyncio loop. Each loop's part is done by that loop's
    thread: a loop that is stopped does it when it runs again or is closed.
    """

    def __init__(self, kept: list[socket.socket], addresses: Iterable[Any], *, ours: bool) -> None:
        self._shares: tuple[Share, ...] = ()
        # What the loops' descriptors were duplicated from, and whether it is the caller's if nothing comes of the server.
        self._kept = kept
        self._ours = ours
        self._addresses = tuple(dict.fromkeys(addresses))
        self._lock = Lock()
        # The following under the lock.
        self._closing = False
        self._left: set[Share] = set()
        self._waiters: list[Future[None]] = []

    def __repr__(self) -> str:
        accepted, open = self.stats()[1:]
        return f"<{type(self).__name__} {self._addresses!r} loops={len(self._shares)} accepted={accepted} open={open}>"

    # What it is.

    @property
    def addresses(self) -> tuple[Any, ...]:
        """The addresses it was bound to, each once."""
        return self._addresses

    @property
    def port(self) -> int | None:
        """The TCP port of its first address; None for a Unix socket."""
        first = self._addresses[0]
        return cast("int", first[1]) if isinstance(first, tuple) else None

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets of all loops; those of a loop are gone once it has closed them."""
        return tuple(sock for share in self._shares for sock in share.sockets)

    def shares_of(self, loop: Serve) -> list[Share]:
        """The loop's part, if it has one."""
        return [share for share in self._shares if share._loop is loop]

    def is_serving(self) -> bool:
        """Return whether connections are accepted."""
        return not self._closing and any(share.is_serving() for share in self._shares)

    def stats(self) -> ServerStats:
        """Return the figures of this moment; the loops go on while they are read."""
        loops = tuple(share.stats for share in self._shares)
        return ServerStats(loops, sum(loop.accepted for loop in loops), sum(loop.open for loop in loops))

    # The end.

    def close(self) -> None:
        """Stop accepting; connections continue. Listening sockets are closed by their loops, which get the call at once."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._close_kept()
        first = self._shares[0]
        if first._balance is None or first not in self._left:
            self._tell(self._shares, Share.close)
        else:
            # The one that accepts before the others: what it handed over by then reaches them before their end does.
            self._tell([first], self._close_from_first)

    def _close_from_first(self, first: Share) -> None:
        first.close()
        self._tell(self._shares[1:], Share.close)

    def _close_kept(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for sock in kept:
            sock.close()

    def close_clients(self) -> None:
        """Close every connection, sending first what is buffered."""
        self._tell(self._shares, Share.close_clients)

    def abort_clients(self) -> None:
        """Close every connection at once, dropping what is buffered."""
        self._tell(self._shares, Share.abort_clients)

    async def wait_closed(self) -> None:
        """Wait until the server is closed and all its connections are gone, in either order.

        A loop that is closed counts as one without connections; for one that is stopped it waits.
        """
        with self._lock:
            if not self._left:
                return
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
        try:
            await wrap_future(waiter)
        finally:
            with self._lock, suppress(ValueError):
                self._waiters.remove(waiter)

    async def drain(self, timeout: float | None = None) -> int:
        """Stop accepting and wait until all connections have ended; return how many were aborted.

        After *timeout* seconds, connections are closed, and those that still have something to send are aborted.
        """
        self.close()
        if await self._closed_within(timeout):
            return 0
        running = [share for share in self._shares if share._loop.is_running()]
        aborted = await gather(*[on(share._loop, share.end_clients) for share in running])
        await self.wait_closed()
        return sum(aborted)

    async def _closed_within(self, seconds: float | None) -> bool:
        try:
            async with timeout(seconds):
                await self.wait_closed()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    # Between this and the shares.

    def _tell(self, shares: Iterable[Share], call: Callable[[Share], object]) -> None:
        for share in shares:
            if _get_running_loop() is cast("Any", share._loop):
                call(share)
                continue
            try:
                share._loop.call_soon_threadsafe(call, share)
            except RuntimeError:
                # A closed loop has ended its shares.
                if not share._loop.is_closed():
                    raise

    def _share_ended(self, share: Share) -> None:
        with self._lock:
            self._left.discard(share)
            left = len(self._left)
            waiters: list[Future[None]] = []
            if not left:
                waiters, self._waiters = self._waiters, waiters
        if not left or (share is self._shares[0] and share._balance is not None):
            # No loop is left that accepts from these sockets.
            self._close_kept()
            if left and self._closing:
                # Its loop may have been closed before it ended them.
                self._tell(self._shares[1:], Share.close)
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    async def _start(self, shares: list[Share], *, balances: bool) -> None:
        """Start the shares, the first last: in the other order it might hand over connections too early."""
        self._shares = tuple(shares)
        self._left = set(shares)
        waiting = list(shares)
        try:
            if balances:
                security = shares[0]._security
                targets = [(share._loop, share._protocol_factory, share) for share in shares]
                balance = Balance(cast("Any", targets), *(security[:3] if security else ()))
                for index, share in enumerate(shares):
                    share._balance, share._index = balance, index
            while waiting:
                await on(waiting[-1]._loop, waiting[-1].start, begun=waiting.pop)
        except BaseException as error:
            if not self._ours:
                self._kept = []
            for share in waiting:
                share.give_up()
            self.close()
            self.abort_clients()
            if isinstance(error, Exception):
                await self.wait_closed()
            raise


async def on[T](
    loop: Serve, call: Callable[[], Coroutine[Any, Any, T]], begun: Callable[[], object] = lambda: None
) -> T:
    """Run a coroutine function on another loop, or this one. RuntimeError if it does not run, which *begun* is not called for."""
    if not loop.is_running():
        raise RuntimeError(f"{loop!r} does not run")
    begun()
    return await wrap_future(run_coroutine_threadsafe(call(), cast("Any", loop)))
