"""Loops to be the subject of a sample lane."""

import asyncio
from typing import Any


class Deaf(asyncio.SelectorEventLoop):
    """A loop that cannot resolve names."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Always refuses."""
        raise NotImplementedError("this loop does not resolve names")
