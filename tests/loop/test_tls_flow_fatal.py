"""An error that leaves the run from `resume_writing` over TLS: waiting data is sent, and the peer gets the end."""

import asyncio

import pytest

from .support import Recorder
from .tls_support import client_context, server_context

#: More than a socket and TLS's buffer take at once.
LARGE = bytes(8_000_000)


class Interrupted(Recorder):
    """Raises once from `resume_writing`."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def resume_writing(self):
        super().resume_writing()
        if self.error is not None:
            error, self.error = self.error, None
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_connection_ends_though_resume_writing_left_the_run(loop, error):
    protocols = []

    def factory():
        protocols.append(Interrupted(error))
        return protocols[-1]

    async def read():
        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
        )
        while not (protocols and protocols[0].transport):
            await asyncio.sleep(0)
        # Its shutdown timeout, 30 s, is longer than this test has.
        protocols[0].transport.write(LARGE)
        protocols[0].transport.close()
        got = bytearray()
        while piece := await reader.read(1 << 20):
            got += piece
        writer.close()
        await protocols[0].lost()
        server.close()
        return len(got)

    reading = loop.create_task(read())
    with pytest.raises(error):
        loop.run_until_complete(reading)
    assert loop.run_until_complete(asyncio.wait_for(reading, 20)) == len(LARGE)
