"""Helpers of the tests of sendfile: data, connections with small buffers, and a protocol that records its calls."""

import asyncio
import socket

SIZE = 2 << 20
DATA = bytes(range(256)) * (SIZE // 256)


def small_tcp():
    """A TCP connection with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def small_unix():
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def receive_all(sock):
    parts = []
    while part := await asyncio.get_running_loop().sock_recv(sock, 1 << 18):
        parts.append(part)
    return b"".join(parts)


async def receive_exactly(sock, size):
    data = bytearray()
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert part, "the peer sent less"
        data += part
    return bytes(data)


class Recorder(asyncio.Protocol):
    """Records the transport's calls."""

    def __init__(self):
        self.log = []
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.log.append("pause")

    def resume_writing(self):
        self.log.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def connect(sock):
    """A transport on *sock*, whose protocol is a Recorder."""
    return await asyncio.get_running_loop().create_connection(Recorder, sock=sock)


def drain(sock):
    """Reads a blocking socket to its end."""
    buffer, size = bytearray(1 << 20), 0
    while got := sock.recv_into(buffer):
        size += got
    return size
