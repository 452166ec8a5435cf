"""An error of the network ends a connection; only the protocol gets it, since the program did not cause it."""

import asyncio
import errno
import logging
import socket
import struct

import pytest

import tokioloop

from .faults import name_of, python_with

BAD = [
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.EIO,
]

STREAM = """
import asyncio, socket, sys, tokioloop

WRITES = int(sys.argv[1])
loop = tokioloop.TokioLoop()
contexts = []
loop.set_exception_handler(lambda loop, context: contexts.append(context))

class Noting(asyncio.Protocol):
    def connection_made(self, transport):
        self.ended = loop.create_future()
    def connection_lost(self, error):
        self.ended.set_result(error)

async def main():
    near, far = socket.socketpair() if sys.argv[2] == "unix" else tcp_pair()
    near.setblocking(False)
    transport, protocol = await loop.create_connection(Noting, sock=near)
    far.send(b"x")
    for _ in range(WRITES):
        transport.write(b"x")
    print(type(await protocol.ended).__name__, (await protocol.ended).errno, contexts)
    far.close()

def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]

loop.run_until_complete(main())
loop.close()
"""


def told(number):
    return f"{type(OSError(number, '')).__name__} {number} []\n"


@pytest.mark.parametrize("number", BAD, ids=name_of)
@pytest.mark.parametrize(("family", "call"), [("tcp", "recv"), ("unix", "recvmsg")])
def test_receiving(number, family, call):
    assert python_with(STREAM, "0", family, **{call: (0, 1, number)}).stdout == told(number)


@pytest.mark.parametrize("number", BAD, ids=name_of)
@pytest.mark.parametrize(("writes", "call"), [("1", "send"), ("3", "sendmsg")])
def test_sending(number, writes, call):
    # Far away from `far.send()`, which is Python's own.
    passed = 1 if call == "send" else 0
    done = python_with(STREAM, writes, "tcp", **{call: (passed, 1, number), "recv": (0, 1, errno.EAGAIN)})
    assert done.stdout == told(number)


@pytest.mark.parametrize("number", [*BAD, errno.ECONNREFUSED, errno.EMSGSIZE], ids=name_of)
@pytest.mark.parametrize("call", ["recvmmsg", "sendto"])
def test_datagrams(number, call):
    """The transport survives it, and received data stays."""
    done = python_with(
        """
        import asyncio, socket, sys, tokioloop

        loop = tokioloop.TokioLoop()
        contexts = []
        loop.set_exception_handler(lambda loop, context: contexts.append(context))

        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.told = loop.create_future()
            def datagram_received(self, data, address):
                transport.sendto(data, address)
            def error_received(self, error):
                self.told.set_result(error.errno)

        async def main():
            global transport
            transport, protocol = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.setblocking(False)
                peer.connect(transport.get_extra_info("sockname"))
                peer.send(b"1")
                number = await protocol.told
                peer.send(b"2")
                answers = b""
                while b"2" not in answers:
                    answers += await loop.sock_recv(peer, 10)
            transport.close()
            print(number, answers, contexts)

        loop.run_until_complete(main())
        loop.close()
        """,
        **{call: (0, 1, number)},
    )
    answers = b"12" if call == "recvmmsg" else b"2"
    assert done.stdout == f"{number} {answers} []\n"


def test_a_transport_ends_though_the_log_of_its_error_fails(monkeypatch):
    """Debug mode logs an error of the network. An error of a program's logger must not keep the transport open."""

    def fail(*args, **kwargs):
        raise RuntimeError("of the logger")

    event_loop = tokioloop.TokioLoop()
    event_loop.set_debug(True)
    event_loop.set_exception_handler(lambda loop, context: None)

    async def main():
        lost = event_loop.create_future()

        class Peer(asyncio.Protocol):
            def connection_lost(self, exc):
                lost.set_result(exc)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        await event_loop.connect_accepted_socket(Peer, near)
        monkeypatch.setattr(logging.getLogger("asyncio"), "debug", fail)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()  # By a reset.
        return await asyncio.wait_for(lost, 20)

    assert isinstance(event_loop.run_until_complete(main()), ConnectionResetError)
    monkeypatch.undo()
    event_loop.close()
