"""A socket whose close() fails: the rest of the connection's end goes on."""

import asyncio
import os
import sys

import pytest

from .datagrams import Recorder as DatagramRecorder
from .support import Recorder, tcp_pair


def steal(transport):
    """The program closes the descriptor: the transport's own close() finds none."""
    os.close(transport.get_extra_info("socket").fileno())


def test_the_server_notices_its_connections_end(loop, run, contexts):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        client, _ = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        while not (protocols and protocols[0].transport):
            await asyncio.sleep(0)
        server.close()
        steal(protocols[0].transport)
        protocols[0].transport.abort()
        await protocols[0].lost()
        # It has no connection left.
        await server.wait_closed()
        client.abort()

    run(main())
    assert [type(context["exception"]) for context in contexts] == [OSError]


@pytest.mark.parametrize("fails", [False, True])
def test_the_protocol_is_released(loop, run, contexts, monkeypatch, fails):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))

    class Failing(Recorder):
        def connection_lost(self, error):
            super().connection_lost(error)
            if fails:
                raise ValueError("of the program")

    async def main():
        near, far = tcp_pair()
        near.setblocking(False)
        protocol = Failing()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        steal(transport)
        transport.abort()
        await protocol.lost()
        far.close()
        await asyncio.sleep(0)
        assert transport.get_protocol() is None

    run(main())
    assert [type(context["exception"]) for context in contexts] == [ValueError if fails else OSError]
    assert [type(error) for error in unraisable] == [OSError] * fails


def test_datagrams(loop, run, endpoint, contexts):
    async def main():
        transport, protocol = await endpoint(DatagramRecorder())
        steal(transport)
        transport.abort()
        await protocol.event("lost")
        await asyncio.sleep(0)
        assert transport.get_protocol() is None

    run(main())
    assert [type(context["exception"]) for context in contexts] == [OSError]
