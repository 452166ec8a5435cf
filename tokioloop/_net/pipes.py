"""Pipes, FIFOs, terminals and character devices as transports."""

from __future__ import annotations

from asyncio import BaseProtocol, ReadTransport, WriteTransport
from collections.abc import Callable
from typing import Any

from .._loop.log import logger
from .._tokioloop import EventLoop


class Pipes(EventLoop):
    """connect_read_pipe and connect_write_pipe."""

    async def connect_read_pipe[P: BaseProtocol](
        self, protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[ReadTransport, P]:
        """Read from the file object *pipe*, which the transport owns from now on; ``(transport, protocol)``.

        Raises ValueError, and leaves *pipe* alone, if that is a regular file.
        """
        self._check_thread()
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = self._make_read_pipe_transport(pipe, protocol, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        if self.get_debug():
            logger.debug("Read pipe %r connected: (%r, %r)", pipe.fileno(), transport, protocol)
        return transport, protocol

    async def connect_write_pipe[P: BaseProtocol](
        self, protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[WriteTransport, P]:
        """Write to the file object *pipe*, which the transport owns from now on; ``(transport, protocol)``.

        Raises ValueError, and leaves *pipe* alone, if that is a regular file.
        """
        self._check_thread()
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = self._make_write_pipe_transport(pipe, protocol, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        if self.get_debug():
            logger.debug("Write pipe %r connected: (%r, %r)", pipe.fileno(), transport, protocol)
        return transport, protocol
