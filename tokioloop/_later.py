"""What asyncio offers and this version does not: a NotImplementedError that says what is missing.

Arguments that asyncio refuses are refused here as well, before that.
"""

import socket
from typing import Any

from ._sockets import not_built, refuse_ssl_socket
from ._tokioloop import EventLoop


class Later(EventLoop):
    """TLS upgrades, datagrams and sendfile."""

    async def start_tls(self, transport: Any, protocol: Any, sslcontext: Any, **options: Any) -> Any:
        """Not supported yet."""
        import ssl

        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        not_built("TLS (start_tls)")

    async def create_datagram_endpoint(
        self,
        protocol_factory: Any,
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> Any:
        """Not supported yet."""
        if sock is not None and sock.type == socket.SOCK_STREAM:
            raise ValueError(f"A datagram socket was expected, got {sock!r}")
        not_built("UDP (create_datagram_endpoint)")

    async def sendfile(
        self, transport: Any, file: Any, offset: int = 0, count: int | None = None, *, fallback: bool = True
    ) -> Any:
        """Not supported yet."""
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        not_built("sendfile")

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> Any:
        """Not supported yet."""
        if self.get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        refuse_ssl_socket(sock)
        _check_sendfile(sock, file, offset, count)
        not_built("sock_sendfile")

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> Any:
        """Not supported yet."""
        not_built("sock_recvfrom")

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> Any:
        """Not supported yet."""
        not_built("sock_recvfrom_into")

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> Any:
        """Not supported yet."""
        not_built("sock_sendto")


def _check_sendfile(sock: socket.socket, file: Any, offset: int, count: int | None) -> None:
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    if count is not None:
        if not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")
