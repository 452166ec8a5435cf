"""Types of the native module, which has the code that runs per callback, per packet or per timer."""

import asyncio
import traceback
from asyncio import (
    AbstractEventLoop,
    AbstractServer,
    DatagramTransport,
    ReadTransport,
    Transport,
    WriteTransport,
)
from asyncio.protocols import BaseProtocol
from collections.abc import Awaitable, Buffer, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from os import PathLike
from socket import AddressFamily, SocketKind, socket
from ssl import SSLContext, TLSVersion
from threading import Condition
from typing import Any, Literal, Protocol, Self, final, overload

from ._pool.job import JobFuture

type _Address = tuple[Any, ...] | str | Buffer
type _SockAddr = tuple[str, int] | tuple[str, int, int, int]
type _AddrInfo = tuple[AddressFamily, SocketKind, int, str, _SockAddr]

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

type _FileDescriptorLike = int | _HasFileno

class _TaskFactory(Protocol):
    def __call__(
        self,
        loop: AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        /,
        **kwargs: Any,
    ) -> asyncio.Future[Any]: ...

__version__: str

# To type checkers handles are asyncio's, which is what programs call them; at run time they are classes of their own.
class Handle(asyncio.Handle):
    _callback: Callable[..., object] | None
    _args: tuple[Any, ...]
    _cancelled: bool
    _loop: EventLoop
    _source_traceback: traceback.StackSummary | None

class TimerHandle(Handle, asyncio.TimerHandle):
    _when: float

class Future[T](asyncio.Future[T]):
    """``asyncio.Future`` for a ``TokioLoop``: its loop's thread changes it, any thread may read it."""

    def __init__(self, *, loop: EventLoop | None = None) -> None: ...

class Task[T](asyncio.Task[T]):
    """``asyncio.Task`` for a ``TokioLoop``: its loop's thread changes it, any thread may read it."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        loop: EventLoop | None = None,
        name: object = None,
        context: Context | None = None,
        eager_start: bool = False,
    ) -> None: ...

class EventLoop:
    """The native core of one loop: ready queue, timers, inbox, driver and transports.

    A loop belongs to one thread at a time. While it runs, a method called from another thread raises
    ``RuntimeError`` naming both threads, except for those that say they may be called from any thread.
    """

    slow_callback_duration: float

    def __init__(
        self,
        *,
        tasks: Literal["native", "asyncio"] | None = None,
        cross_thread: Literal["raise", "route"] | None = None,
    ) -> None: ...

    # Running.
    def run_forever(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def time(self) -> float: ...
    def get_debug(self) -> bool: ...
    def set_debug(self, enabled: bool) -> None: ...

    # Scheduling.
    def call_soon[*Ts](
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle: ...
    def call_soon_threadsafe[*Ts](
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle: ...
    def call_later[*Ts](
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle: ...
    def call_at[*Ts](
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    def create_task[T](
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]: ...
    def set_task_factory(self, factory: _TaskFactory | None) -> None: ...
    def get_task_factory(self) -> _TaskFactory | None: ...

    # Checks and handles, for the Python layer.
    def _check_closed(self) -> None: ...
    def _check_running(self) -> None: ...
    def _check_thread(self) -> None: ...
    def _is_forked(self) -> bool: ...
    def _set_goal(self, has_goal: bool) -> bool: ...
    def _makes_native_futures(self) -> bool: ...
    def _has_goal(self) -> bool: ...
    def _break_off(self) -> None: ...
    def _thread(self) -> int: ...
    def _want_signal(self, number: int) -> None: ...
    def _unwant_signal(self, number: int) -> bool: ...
    def _make_handle(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None = None
    ) -> Handle: ...
    def _schedule(self, handle: Handle) -> None: ...
    @property
    def _current_handle(self) -> Handle | None: ...

    # Descriptor watching.
    def add_reader[*Ts](
        self, fd: _FileDescriptorLike, callback: Callable[[*Ts], Any], *args: *Ts
    ) -> None: ...
    def remove_reader(self, fd: _FileDescriptorLike) -> bool: ...
    def add_writer[*Ts](
        self, fd: _FileDescriptorLike, callback: Callable[[*Ts], Any], *args: *Ts
    ) -> None: ...
    def remove_writer(self, fd: _FileDescriptorLike) -> bool: ...

    # Sockets.
    async def sock_recv(self, sock: socket, nbytes: int) -> bytes: ...
    async def sock_recv_into(self, sock: socket, buf: Buffer) -> int: ...
    async def sock_sendall(self, sock: socket, data: Buffer) -> None: ...
    async def sock_accept(self, sock: socket) -> tuple[socket, Any]: ...
    async def sock_recvfrom(self, sock: socket, bufsize: int) -> tuple[bytes, Any]: ...
    async def sock_recvfrom_into(self, sock: socket, buf: Buffer, nbytes: int = 0) -> tuple[int, Any]: ...
    async def sock_sendto(self, sock: socket, data: Buffer, address: _Address) -> int: ...
    def _send_file(
        self, target: socket | StreamTransport, file: int, offset: int, count: int | None, size: int
    ) -> Awaitable[int]: ...
    def _sock_connect(self, sock: socket, address: _Address) -> Awaitable[None]: ...

    # Transports and servers.
    def _make_socket_transport(
        self,
        sock: socket,
        protocol: BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: AbstractServer | None = None,
    ) -> Transport: ...
    def _make_tls(
        self,
        protocol: BaseProtocol,
        sslcontext: SSLContext | ServerConfig | ClientConfig,
        waiter: asyncio.Future[None],
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        call_connection_made: bool = True,
    ) -> Any: ...
    def _make_datagram_transport(
        self,
        sock: socket,
        protocol: BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramTransport: ...
    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> ReadTransport: ...
    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> WriteTransport: ...
    def _watch_child(self, pid: int, callback: Callable[[int | None], object]) -> ChildDescriptor: ...
    def _accept(
        self,
        sock: socket,
        protocol_factory: Callable[[], BaseProtocol],
        server: AbstractServer,
        backlog: int,
        sslcontext: SSLContext | ServerConfig | ClientConfig | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        exclusive: bool = False,
    ) -> None: ...
    def _accept_for(self, sock: socket, balance: Balance) -> None: ...
    def _stop_accept(self, sock: socket) -> None: ...

    # Name resolution on the shared runtime's blocking pool.
    def _resolve(
        self, host: bytes | None, port: bytes | None, family: int, type: int, proto: int, flags: int
    ) -> tuple[asyncio.Future[list[_AddrInfo]], Lookup]: ...
    def _resolve_name(
        self, sockaddr: tuple[Any, ...], flags: int
    ) -> tuple[asyncio.Future[tuple[str, str]], Lookup]: ...

@final
class Lookup:
    """A name that is looked up."""

    def withdraw(self) -> None: ...

@final
class ChildDescriptor:
    """The descriptor of a child: no signal sent by it goes to another process."""

    def send_signal(self, signal: int) -> None: ...

@final
class Balance:
    """The loops of one server of which one accepts: each connection goes to the one with the fewest."""

    def __new__(
        cls,
        targets: list[tuple[EventLoop, Callable[[], BaseProtocol], AbstractServer]],
        sslcontext: SSLContext | ServerConfig | ClientConfig | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Balance: ...
    def ended(self, index: int) -> None: ...
    def open(self) -> list[int]: ...

class StreamTransport(Transport):
    @property
    def _protocol_paused(self) -> bool: ...
    def _begin_file(self) -> None: ...
    def _end_file(self) -> None: ...

# TLS by rustls: `tokioloop.tls`.

type _Pem = str | PathLike[str] | bytes | bytearray

@final
class ServerConfig:
    """Settings of the server's side of TLS connections, for the ``ssl`` argument of ``create_server`` and similar methods.

    ``certificate``: the chain, the server's own first; ``key``: its private key, not encrypted. Each is the path of
    a PEM file or PEM text as bytes. ``client_auth``: whether clients are asked for a certificate, and refused
    without one. ``roots``: the authorities whose clients' certificates are accepted; needed with ``client_auth``, and only then.
    ``crls``: revocation lists; every client's own certificate is then checked. ``alpn``: protocols in order of
    preference; a client that offers only others is refused. ``session_tickets``: how many tickets a TLS 1.3 client
    gets to resume with; 0 for no resumption at all.

    Raises OSError for files that cannot be read, ssl.SSLError for contents that cannot be used, ValueError and
    TypeError for other arguments. Immutable; any thread may use one, and many loops at once.
    """

    def __new__(
        cls,
        certificate: _Pem,
        key: _Pem,
        *,
        client_auth: Literal["optional", "required"] | None = None,
        roots: _Pem | None = None,
        crls: _Pem | None = None,
        alpn: Iterable[str | bytes] | None = None,
        minimum_version: Literal[TLSVersion.TLSv1_2, TLSVersion.TLSv1_3] | None = None,
        session_tickets: int = 2,
    ) -> ServerConfig: ...

@final
class ClientConfig:
    """Settings of the client's side of TLS connections, for the ``ssl`` argument of ``create_connection`` and similar methods.

    The server's certificate is always verified, with its name or address (``server_hostname``, or ``host``).
    ``roots``: the authorities whose certificates are accepted: the path of a PEM file or PEM text as bytes; None for the system's.
    ``certificate``, ``key``: for servers that ask for one. The others are as for ``ServerConfig``. Sessions are
    resumed between connections to the same server that are made with the same object.
    """

    def __new__(
        cls,
        *,
        roots: _Pem | None = None,
        certificate: _Pem | None = None,
        key: _Pem | None = None,
        crls: _Pem | None = None,
        alpn: Iterable[str | bytes] | None = None,
        minimum_version: Literal[TLSVersion.TLSv1_2, TLSVersion.TLSv1_3] | None = None,
    ) -> ClientConfig: ...

@final
class Connection:
    """The result of ``get_extra_info("ssl_object")`` for a connection made with one of these: any thread, no I/O."""

    @property
    def context(self) -> ServerConfig | ClientConfig: ...
    @property
    def server_side(self) -> bool: ...
    @property
    def server_hostname(self) -> str | None: ...
    @property
    def session_reused(self) -> bool: ...
    def version(self) -> str | None: ...
    def cipher(self) -> tuple[str, str, int] | None: ...
    def selected_alpn_protocol(self) -> str | None: ...
    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None:
        """{} where the peer sent a certificate, whose fields are not taken apart; None where it sent none."""

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...
    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...
    def get_unverified_chain(self) -> list[bytes]: ...
    def compression(self) -> None: ...

class Job:
    """The native half of a job; see JobFuture."""

    # Read-only.
    _state: str
    _waiters: list[Any]
    _condition: Condition
    def _ask_to_cancel(self) -> bool:
        """Ask a running coroutine to cancel itself; whether there is one. Any thread."""

class Pool:
    """The native half of WorkerPool."""

    def __new__(cls, *args: object, **kwargs: object) -> Self: ...
    def _begin(self, threads: int) -> Pool: ...
    @overload
    def submit[T](
        self,
        fn: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        worker: int | None = None,
        **kwargs: Any,
    ) -> JobFuture[T]:
        """Have a worker call ``fn(*args, **kwargs)``, and run the coroutine if that gives one. Any thread."""

    @overload
    def submit[T](
        self, fn: Callable[..., T], /, *args: Any, worker: int | None = None, **kwargs: Any
    ) -> JobFuture[T]: ...
    def _enter(self, loop: EventLoop, index: int) -> None: ...
    def _workers(self) -> int: ...
    def _index(self) -> int | None: ...
    def _close(self) -> None: ...
    def _is_forked(self) -> bool: ...
    def _is_closing(self) -> bool: ...
    def _end_waiting(self, error: BaseException | None = None) -> int: ...
    def _end_begun(self) -> None: ...
    def _finish(self) -> None: ...
    def _figures(self) -> tuple[int, list[tuple[int, int, int]]]: ...

def get_running_loop() -> AbstractEventLoop: ...
def get_event_loop() -> AbstractEventLoop: ...
def _tls_engine(name: str | None = None) -> str: ...
def _native_tasks(event_loop: EventLoop) -> set[asyncio.Task[Any]]: ...
def loops() -> dict[int, EventLoop]: ...
def _configure_runtime(
    worker_threads: int | None,
    max_blocking_threads: int | None,
    resolver_threads: int | None,
    thread_name: str | None,
) -> None: ...
def _runtime_metrics() -> tuple[bool, int, int, int, int, int, int, int, int]: ...
def _own_methods(cls: type[EventLoop]) -> None: ...
def _needs_no_gil(module: object) -> bool | None: ...
def _bound_loop() -> EventLoop | None: ...
def _bind(loop: EventLoop | None) -> None: ...
def _set_job_class(cls: type[Job]) -> None: ...
def _run_on[T](loop: EventLoop, coro: Coroutine[Any, Any, T]) -> JobFuture[T]: ...
def _outcome_of[T](job: JobFuture[T]) -> asyncio.Future[T] | None: ...
def _leave(loop: EventLoop) -> None: ...
def _forget() -> None: ...
def _is_over() -> bool: ...
def _cancel_running() -> int: ...
def _is_of_job(error: BaseException) -> bool: ...
def _begin_exit() -> list[EventLoop]: ...
def _is_signal_wanted(number: int) -> bool: ...
def _panics() -> int: ...
def _raise_signal(number: int) -> bool: ...
def _insist_on_signal(number: int) -> None: ...

class ThreadQueue:
    """Functions that wait for a thread. A loop's default executor is the threads over it."""

    def __new__(cls, most: int) -> Self: ...
    def _submit(
        self, event_loop: EventLoop, function: Callable[..., Any], args: tuple[Any, ...], /
    ) -> tuple[asyncio.Future[Any], bool]: ...
    def _work(self) -> None: ...
    def _close(self, drop_waiting: bool = False) -> int: ...
    def _lost_thread(self) -> None: ...

# The native halves of the stream classes; asyncio's, from which those derive too, say what they have.
class StreamReader:
    def __init__(self, limit: int = 65536, loop: AbstractEventLoop | None = None) -> None: ...

class StreamWriter:
    def __init__(
        self,
        transport: WriteTransport,
        protocol: BaseProtocol,
        reader: asyncio.StreamReader | None,
        loop: AbstractEventLoop,
    ) -> None: ...

class StreamReaderProtocol:
    def data_received(self, data: bytes, /) -> None: ...

def _set_stream_classes(reader: type[StreamReader], protocol: type[StreamReaderProtocol]) -> None: ...
