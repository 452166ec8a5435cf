"""A subject that follows the time which a test makes up, as `TestLoop` of CPython's test utilities does."""

import asyncio
import heapq
from collections.abc import Callable, Generator
from typing import Any

Times = Callable[[], Generator[float, float]]
"""Makes a generator that gets the time of each new timer, and yields how far the time moves."""


def loop_class(subject: type[Any]) -> type[Any]:
    """A class of its own, so that no other test sees the additions."""

    class TestLoop(subject):  # type: ignore[misc]
        """Without made-up time: the subject as it is."""

        _ready = ()
        """For tests that check whether a turn left anything."""

        def __init__(self, times: Times | None) -> None:
            super().__init__()
            self._times = None if times is None else times()
            if self._times is not None:
                next(self._times)
            self._time = 0.0
            self._untold: list[float] = []
            self._timers: list[asyncio.TimerHandle] = []
            self._turning = False
            self._failure: BaseException | None = None

        def close(self) -> None:
            was_closed = self.is_closed()
            super().close()
            if self._times is None or was_closed:
                return
            try:
                self._times.send(0)
            except StopIteration:
                return
            raise AssertionError("the generator of times is not finished")

        def time(self) -> float:
            return super().time() if self._times is None else self._time

        def advance_time(self, advance: float | None) -> None:
            self._time += advance or 0

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
            if self._times is None:
                return super().call_later(delay, callback, *args, context=context)
            return self.call_at(self._time + delay, callback, *args, context=context)

        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
            if self._times is None:
                return super().call_at(when, callback, *args, context=context)
            handle = asyncio.TimerHandle(when, callback, args, self, context)
            heapq.heappush(self._timers, handle)
            self._untold.append(when)
            self._turn_soon()
            return handle

        def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
            """The attributes that asyncio's handles expect of their loop."""

        def run_forever(self) -> None:
            try:
                super().run_forever()
            finally:
                self._tell()
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure

        def _run_once(self) -> None:
            self.stop()
            self.run_forever()

        def _turn_soon(self) -> None:
            if not self._turning:
                self._turning = True
                self.call_soon(self._turn)

        def _turn(self) -> None:
            """Runs in every turn while there are timers, since a test may move the time by itself."""
            self._turning = False
            self._tell()
            if self._failure is not None:
                self.stop()
                return
            while self._timers and (self._timers[0].cancelled() or self._timers[0].when() <= self._time):
                self.call_soon(_run, heapq.heappop(self._timers))
            if self._timers:
                self._turn_soon()

        def _tell(self) -> None:
            """The generator's complaint is the test's failure: it leaves `run_forever`."""
            untold, self._untold = self._untold, []
            try:
                for when in untold:
                    self.advance_time(self._times.send(when))  # type: ignore[union-attr]
            except BaseException as failure:
                self._failure = failure

    return TestLoop


def _run(handle: asyncio.TimerHandle) -> None:
    if not handle.cancelled():
        handle._run()
