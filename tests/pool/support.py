"""Helpers of the tests of pools: jobs that wait until they are released."""

import asyncio
import threading
from typing import Any

import tokioloop

from ..loop.support import PATIENCE


class Blocked:
    """A worker that is inside a function."""

    def __init__(self, pool: tokioloop.WorkerPool, worker: int = 0) -> None:
        self._inside, self._go = threading.Event(), threading.Event()
        self.job = pool.submit(self._block, worker=worker)
        assert self._inside.wait(PATIENCE)

    def _block(self) -> str:
        self._inside.set()
        assert self._go.wait(PATIENCE)
        return "released"

    def release(self) -> None:
        self._go.set()


class Patient:
    """A coroutine function whose coroutine waits, and records how it ended."""

    def __init__(self, stubborn: bool = False) -> None:
        self.started, self.ended = threading.Event(), threading.Event()
        self.log: list[str] = []
        self._stubborn = stubborn
        self._loop: asyncio.AbstractEventLoop
        self._gate: asyncio.Event

    async def __call__(self, result: Any = None) -> Any:
        self._loop, self._gate = asyncio.get_running_loop(), asyncio.Event()
        self.started.set()
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            if self._stubborn:
                return "stubborn"
            raise
        finally:
            self.ended.set()
        self.log.append("went on")
        return result

    def let_go(self) -> None:
        """Let the coroutine end. Any thread."""
        self._loop.call_soon_threadsafe(self._gate.set)

    def wait_for_start(self) -> None:
        assert self.started.wait(PATIENCE)

    def wait_for_end(self) -> None:
        assert self.ended.wait(PATIENCE)
