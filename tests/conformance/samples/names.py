"""A test that a loop without name resolution fails, and one that it passes."""

import asyncio
import unittest


class Names(unittest.IsolatedAsyncioTestCase):
    """Asks the loop."""

    async def test_resolves(self) -> None:
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)

    async def test_runs(self) -> None:
        await asyncio.sleep(0)

    async def test_fails_everywhere(self) -> None:
        self.fail("on any loop")
