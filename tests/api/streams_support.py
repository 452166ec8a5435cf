"""Helpers of the tests of native streams."""

import asyncio
from typing import Any

import pytest

LIMIT = 2**16


def at_once(awaitable: Any) -> Any:
    """The result of an awaitable that does not have to wait."""
    with pytest.raises(StopIteration) as stop:
        awaitable.send(None)
    return stop.value.value


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(LIMIT):
        writer.write(data)
        await writer.drain()
    writer.close()
