"""TOKIOLOOP_LOG."""

import pytest

from .support import python

PROGRAM = """
    import asyncio, sys, tokioloop
    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
    tokioloop.run(main())
"""


def test_debug_shows_the_loops_life():
    shown = python(PROGRAM, TOKIOLOOP_LOG="debug").stderr
    for words in ("loop made", "loop runs", "accepted", "loop stopped", "loop closed"):
        assert words in shown


@pytest.mark.parametrize("level", ["", "error", "off"])
def test_silent_otherwise(level):
    assert python(PROGRAM, TOKIOLOOP_LOG=level).stderr == ""
