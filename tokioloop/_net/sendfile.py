"""Files sent whole: by the kernel where it can, otherwise read and written piece by piece."""

from __future__ import annotations

import os
import socket
import stat
import sys
from asyncio import BaseTransport, Future, Protocol, SendfileNotAvailableError, constants
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

from .._loop.executor import Executor
from .._tokioloop import StreamTransport
from .sockets import refuse_ssl_socket

_TRANSPORT_BLOCK = 16 * 1024
"""Bytes read at a time for a transport that the kernel cannot send files through."""


class Sendfile(Executor):
    """sendfile and sock_sendfile."""

    async def sendfile(
        self,
        transport: BaseTransport,
        file: BinaryIO,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file through a transport and return the number of bytes sent.

        Sends *count* bytes from *offset* on, or with None all of the rest. While it lasts the transport takes no writes
        and reads nothing. However it ends, the file's position is then after the bytes that were sent. With *fallback*, files that the
        kernel cannot send are read and written instead (a file that is not regular, TLS).
        """
        self._check_thread()
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        modes = constants._SendfileMode
        mode = getattr(transport, "_sendfile_compatible", modes.UNSUPPORTED)
        if mode is modes.UNSUPPORTED:
            raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
        if mode is modes.TRY_NATIVE:
            try:
                return await self._sendfile_native(transport, file, offset, count)
            except SendfileNotAvailableError:
                if not fallback:
                    raise
        if not fallback:
            raise RuntimeError(
                f"fallback is disabled and native sendfile is not supported for transport {transport!r}"
            )
        return await self._sendfile_fallback(transport, file, offset, count)

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: BinaryIO,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send a file to a connected, non-blocking stream socket; as ``sendfile``, without a transport."""
        self._check_thread()
        if self.get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        refuse_ssl_socket(sock)
        _check_mode(file)
        if sock.type != socket.SOCK_STREAM:
            raise ValueError("only SOCK_STREAM type sockets are supported")
        _check_range(offset, count)
        try:
            return await self._sock_sendfile_native(sock, file, offset, count)
        except SendfileNotAvailableError:
            if not fallback:
                raise
        return await self._sock_sendfile_fallback(sock, file, offset, count)

    # As in asyncio, programs and tests may replace these four to choose how a file is sent.

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: BinaryIO, offset: int, count: int | None
    ) -> int:
        return await self._send_native(sock, file, offset, count)

    async def _sendfile_native(
        self, transport: BaseTransport, file: BinaryIO, offset: int, count: int | None
    ) -> int:
        if not isinstance(transport, StreamTransport):
            raise SendfileNotAvailableError(f"sendfile is not available for transport {transport!r}")
        transport._begin_file()
        resume = transport.is_reading()
        transport.pause_reading()
        try:
            _check_mode(file)
            _check_range(offset, count)
            return await self._send_native(transport, file, offset, count)
        finally:
            transport._end_file()
            if resume:
                transport.resume_reading()

    async def _sock_sendfile_fallback(
        self, sock: socket.socket, file: BinaryIO, offset: int, count: int | None
    ) -> int:
        async def send(block: bytes) -> None:
            await self.sock_sendall(sock, block)

        size: int = constants.SENDFILE_FALLBACK_READBUFFER_SIZE
        return await self._copy(file, offset, count, size, send)

    async def _sendfile_fallback(self, transport: Any, file: BinaryIO, offset: int, count: int | None) -> int:
        _check_mode(file)
        keeper = _Keeper(transport, self.create_future)

        async def send(block: bytes) -> None:
            transport.write(block)
            await keeper.drain()

        try:
            return await self._copy(file, offset, count, _TRANSPORT_BLOCK, send)
        finally:
            keeper.restore()

    async def _send_native(
        self, target: socket.socket | StreamTransport, file: BinaryIO, offset: int, count: int | None
    ) -> int:
        try:
            descriptor = file.fileno()
            status = os.fstat(descriptor)
        except (AttributeError, OSError) as error:
            raise SendfileNotAvailableError("not a regular file") from error
        if not stat.S_ISREG(status.st_mode):
            raise SendfileNotAvailableError("not a regular file")
        size = status.st_size
        if not (count or size):
            return 0
        # A count larger than any file means "all"; the kernel is never asked for that much at once.
        limit = None if count is None else min(count, sys.maxsize)
        return await self._send_file(target, descriptor, offset, limit, size)

    async def _copy(
        self,
        file: BinaryIO,
        offset: int,
        count: int | None,
        size: int,
        send: Callable[[bytes], Awaitable[None]],
    ) -> int:
        """Reads *size* bytes at a time in a thread and sends them."""
        seekable = hasattr(file, "seek")
        if seekable:
            file.seek(offset)
        buffer = memoryview(bytearray(min(count, size) if count else size))
        read: Callable[[memoryview], int] = file.readinto  # type: ignore[attr-defined]
        sent = 0
        try:
            while not count or sent < count:
                wanted = min(count - sent, len(buffer)) if count else len(buffer)
                got = await self.run_in_executor(None, read, buffer[:wanted])
                if not got:
                    break
                # A copy: the receiver may keep it, and the buffer is read into again.
                await send(bytes(buffer[:got]))
                sent += got
            return sent
        finally:
            if sent and seekable:
                file.seek(offset + sent)


class _Keeper(Protocol):
    """Replaces a transport's protocol while a file is sent, to get its flow control and its end."""

    def __init__(self, transport: Any, create_future: Callable[[], Future[None]]) -> None:
        self._transport = transport
        self._create_future = create_future
        self._protocol = transport.get_protocol()
        self._reading = transport.is_reading()
        self._told_to_pause: bool = transport._protocol_paused
        self._writable: Future[None] | None = create_future() if self._told_to_pause else None
        transport.pause_reading()
        transport.set_protocol(self)

    async def drain(self) -> None:
        """Wait until the transport takes more; ConnectionError when it never will."""
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._writable is not None:
            await self._writable

    def restore(self) -> None:
        """Restore the transport's protocol and state; the protocol gets the calls that it missed."""
        transport, protocol = self._transport, self._protocol
        transport.set_protocol(protocol)
        if self._reading:
            transport.resume_reading()
        if self._writable is not None:
            self._writable.cancel()
        if not transport.is_closing() and transport._protocol_paused != self._told_to_pause:
            (protocol.resume_writing if self._told_to_pause else protocol.pause_writing)()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._writable is not None and not self._writable.done():
            # The file was not sent to its end yet, so this is an error, whatever the reason.
            self._writable.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        raise RuntimeError("Invalid state: reading should be paused")

    def eof_received(self) -> bool | None:
        raise RuntimeError("Invalid state: reading should be paused")


def _check_mode(file: object) -> None:
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")


def _check_range(offset: object, count: object) -> None:
    if count is not None:
        if not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")
