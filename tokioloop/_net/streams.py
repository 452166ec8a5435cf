"""Streams: native readers and writers behind asyncio's classes, and the functions that make them.

Methods called for each piece of data are native; those called once or rarely are asyncio's own code, which finds its
attributes here.
"""

import asyncio
from asyncio import BaseTransport, Server, Transport, events
from collections.abc import Awaitable, Callable
from functools import partial
from os import PathLike
from typing import Any, ClassVar, cast

from .. import _tokioloop
from .._loop.public import public

#: asyncio's default, in bytes: half of what a reader buffers before it pauses its transport, and the longest line.
LIMIT = 2**16

type StreamCallback = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


@public
class StreamReader(_tokioloop.StreamReader, asyncio.StreamReader):
    """``asyncio.StreamReader``, natively. A read whose bytes are in the buffer does not wait.

    limit: in bytes, half of what is buffered before the transport is paused, and the longest line. loop: any asyncio loop, by default
    the current one. Its methods belong to the loop's thread.
    """

    # asyncio's methods call one another. An override in a derived class is called by the methods that call it in asyncio.
    _CALLERS: ClassVar = {
        "readuntil": ("readline",),
        "readline": ("__anext__",),
        "_wait_for_data": ("read", "readexactly", "readuntil", "readline"),
        "_wakeup_waiter": ("feed_data", "feed_eof"),
        "_maybe_resume_transport": ("read", "readexactly", "readuntil", "readline"),
    }

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for own, callers in cls._CALLERS.items():
            if getattr(cls, own) is not getattr(StreamReader, own):
                for name in callers:
                    if getattr(cls, name) is getattr(StreamReader, name):
                        setattr(cls, name, getattr(asyncio.StreamReader, name))


@public
class StreamWriter(_tokioloop.StreamWriter, asyncio.StreamWriter):
    """``asyncio.StreamWriter``, natively. ``drain()`` below the high-water mark does not wait.

    Its methods belong to the loop's thread.
    """


@public
class StreamReaderProtocol(_tokioloop.StreamReaderProtocol, asyncio.StreamReaderProtocol):
    """``asyncio.StreamReaderProtocol``: on a transport of ours bytes reach the reader without a call in Python."""

    def connection_made(self: Any, transport: BaseTransport) -> None:
        """Begin: give the reader its transport, and call the callback of ``start_server``."""
        callback = self._client_connected_cb
        reader = self._stream_reader
        if callback is None or reader is None or self._reject_connection:
            super().connection_made(transport)
            return
        self._transport = transport
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        reader.set_transport(transport)
        writer = StreamWriter(cast("Transport", transport), self, reader, self._loop)
        result = callback(reader, writer)
        if asyncio.iscoroutine(result):
            self._task = self._loop.create_task(result)
            self._task.add_done_callback(partial(self._callback_ended, transport))
        self._strong_reader = None

    def connection_lost(self: Any, exc: Exception | None) -> None:
        """End: notify the reader, and wake coroutines that wait for the end or for room."""
        super().connection_lost(exc)
        closed = self._closed
        if closed.done() and not closed.cancelled():
            # A program need not call `wait_closed` to retrieve the error. asyncio's class retrieves it in its finaliser, which is too late
            # where the collector finds the future first.
            closed.exception()

    def _callback_ended(self: Any, transport: Transport, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            transport.close()
        elif error := task.exception():
            self._loop.call_exception_handler(
                {
                    "message": "Unhandled exception in client_connected_cb",
                    "exception": error,
                    "transport": transport,
                }
            )
            transport.close()


_tokioloop._set_stream_classes(StreamReader, StreamReaderProtocol)


def _reader_protocol(limit: int) -> tuple[StreamReader, StreamReaderProtocol]:
    loop = events.get_running_loop()
    reader = StreamReader(limit, loop)
    return reader, StreamReaderProtocol(reader, loop=loop)


@public
async def open_connection(
    host: str | None = None, port: int | str | None = None, *, limit: int = LIMIT, **options: Any
) -> tuple[StreamReader, StreamWriter]:
    """Connect, and return a reader and a writer. As ``asyncio.open_connection``; on any asyncio loop.

    limit: the reader's, in bytes. The other options are those of ``loop.create_connection``.
    """
    loop = events.get_running_loop()
    reader, protocol = _reader_protocol(limit)
    transport, _ = await loop.create_connection(
        lambda: protocol, cast("Any", host), cast("Any", port), **options
    )
    return reader, StreamWriter(transport, protocol, reader, loop)


@public
async def start_server(
    client_connected_cb: StreamCallback,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    **options: Any,
) -> Server:
    """Serve: call *client_connected_cb* with a reader and a writer for each connection; a coroutine becomes a task.

    As ``asyncio.start_server``; on any asyncio loop. limit: the readers', in bytes. The other options are those of
    ``loop.create_server``.
    """
    loop = events.get_running_loop()
    factory = stream_factory(loop, client_connected_cb, limit)
    return await loop.create_server(factory, host, cast("Any", port), **options)


@public
async def open_unix_connection(
    path: "str | PathLike[str] | None" = None, *, limit: int = LIMIT, **options: Any
) -> tuple[StreamReader, StreamWriter]:
    """As ``open_connection``, to a Unix socket."""
    loop = events.get_running_loop()
    reader, protocol = _reader_protocol(limit)
    transport, _ = await loop.create_unix_connection(lambda: protocol, cast("Any", path), **options)
    return reader, StreamWriter(transport, protocol, reader, loop)


@public
async def start_unix_server(
    client_connected_cb: StreamCallback,
    path: "str | PathLike[str] | None" = None,
    *,
    limit: int = LIMIT,
    **options: Any,
) -> Server:
    """As ``start_server``, on a Unix socket."""
    loop = events.get_running_loop()
    factory = stream_factory(loop, client_connected_cb, limit)
    return await loop.create_unix_server(factory, cast("Any", path), **options)


def stream_factory(
    loop: asyncio.AbstractEventLoop, client_connected_cb: Any, limit: int
) -> Callable[[], StreamReaderProtocol]:
    """Make the factory of protocols, each with its reader, for a server."""

    def factory() -> StreamReaderProtocol:
        return StreamReaderProtocol(StreamReader(limit, loop), client_connected_cb, loop)

    return factory
