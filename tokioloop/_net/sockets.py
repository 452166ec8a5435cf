"""Small facts about sockets that several rooms need."""

from __future__ import annotations

import os
import socket
import stat
from asyncio import BaseTransport, Future
from typing import Any

from .._loop.log import logger

try:
    import ssl
except ImportError:  # pragma: no cover - an interpreter built without OpenSSL
    ssl = None  # type: ignore[assignment]


def refuse_ssl_socket(sock: object) -> None:
    """TypeError for an ``ssl.SSLSocket``, whose own buffering a loop cannot drive."""
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")


def check_ssl_timeouts(ssl_given: object, handshake: float | None, shutdown: float | None) -> None:
    """ValueError for a TLS timeout without TLS."""
    if handshake is not None and not ssl_given:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown is not None and not ssl_given:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


def check_stream(sock: socket.socket) -> None:
    """ValueError for anything but a stream socket, of any family."""
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")


def check_unix_stream(sock: socket.socket) -> None:
    """ValueError for anything but a Unix stream socket."""
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def is_abstract(path: Any) -> bool:
    """Return whether a Unix address (str or bytes) is outside the file system."""
    return path[0] in (0, "\x00")


def set_reuse_port(sock: socket.socket) -> None:
    """Let several sockets share a port; ValueError where the system does not."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port not supported by socket module")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        raise ValueError(
            "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented."
        ) from None


def remove_stale(path: str | bytes) -> None:
    """Remove a socket file left by a process that is gone; anything else stays and makes bind fail."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        # The directory may allow nothing but making a socket.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, exc)


async def begun(transport: BaseTransport, waiter: Future[None]) -> None:
    """Wait until *waiter* says that a new transport is connected; close it where it is not, or the caller is cancelled."""
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
