"""Pipes, FIFOs, terminals and character devices as transports."""

from __future__ import annotations

from asyncio import BaseProtocol, ReadTransport, WriteTransport
from collections.abc import Callable
from typing import Any

from .._loop.log import logger
from .._tokioloop import EventLoop
from .sockets import begun


class Pipes(EventLoop):
    """connect_read_pipe and connect_write_pipe."""

    async def connect_read_pipe[P: BaseProtocol](
        self, protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[ReadTransport, P]:
        """Read from the file object *pipe*, which the transport owns from now on; ``(transport, protocol)``.

        Raises ValueError, and leaves *pipe* alone, if that is a regular file.
        """
        return await self._connect_pipe("Read", self._make_read_pipe_transport, protocol_factory, pipe)

    async def connect_write_pipe[P: BaseProtocol](
        self, protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[WriteTransport, P]:
        """Write to the file object *pipe*, which the transport owns from now on; ``(transport, protocol)``.

        Raises ValueError, and leaves *pipe* alone, if that is a regular file.
        """
        return await self._connect_pipe("Write", self._make_write_pipe_transport, protocol_factory, pipe)

    async def _connect_pipe[P: BaseProtocol](
        self, kind: str, make: Callable[..., Any], protocol_factory: Callable[[], P], pipe: Any
    ) -> tuple[Any, P]:
        self._check_thread()
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = make(pipe, protocol, waiter)
        await begun(transport, waiter)
        if self.get_debug():
            logger.debug("%s pipe %r connected: (%r, %r)", kind, pipe.fileno(), transport, protocol)
        return transport, protocol
