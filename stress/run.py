"""What a scenario works with: the loop under test, time, chance, threads, and the counting of what was done."""

import asyncio
import importlib
import math
import random
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

LOOPS = ["tokioloop", "asyncio", "uvloop"]

# How long anything that must happen may take, in seconds: far above what it takes, below the parent's deadline.
PATIENCE = 60.0


class NotOffered(Exception):
    """Raised by a scenario for something that the loop under test does not claim to do; the message names it."""


def told(context: dict[str, Any]) -> str:
    """A context of a loop's exception handler, on one line."""
    return f"{context.get('message')}: {context.get('exception')!r}"


@dataclass(frozen=True)
class Settings:
    """The parameters of a run: *seconds* of measured work after the warm-up, *threads* at once, *seed* of all choices."""

    loop: str
    threads: int
    seconds: float
    seed: int

    @property
    def warm_up(self) -> float:
        """Seconds of the same work before anything is compared."""
        return min(2.0, self.seconds / 3)

    def factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Return the function that makes a loop. Raises ImportError where the loop is not installed."""
        if self.loop == "asyncio":
            return asyncio.SelectorEventLoop
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(self.loop).new_event_loop
        return factory


class Histogram:
    """Counts durations in buckets of a twelfth of a doubling, so that a quantile is right to 6 %."""

    PER_DOUBLING = 12
    # In nanoseconds; the last bucket begins at 2**40 ns, a quarter of an hour.
    SIZE = PER_DOUBLING * 40 + 1

    def __init__(self) -> None:
        self.buckets = [0] * self.SIZE
        self.most = 0.0

    def add(self, seconds: float) -> None:
        place = int(math.log2(max(1.0, seconds * 1e9)) * self.PER_DOUBLING)
        self.buckets[min(place, self.SIZE - 1)] += 1
        self.most = max(self.most, seconds)

    def merge(self, other: "Histogram") -> None:
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]
        self.most = max(self.most, other.most)

    def since(self, earlier: "Histogram") -> "Histogram":
        """The durations added after *earlier* was taken; their maximum is not known."""
        fresh = Histogram()
        fresh.buckets = [now - then for now, then in zip(self.buckets, earlier.buckets, strict=True)]
        return fresh

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that *share* of all stay below; None without durations."""
        due = share * sum(self.buckets)
        for place, count in enumerate(self.buckets):
            due -= count
            if count and due <= 0:
                return 2.0 ** ((place + 0.5) / self.PER_DOUBLING) / 1e9
        return None


class Tally:
    """What one thread did, for progress and figures. One thread writes it; others read it without a lock."""

    def __init__(self) -> None:
        self.ops = 0
        self.times = Histogram()

    def took(self, began: float) -> None:
        """Count an operation that began at *began* (``time.perf_counter()``) and is done now."""
        self.ops += 1
        self.times.add(time.perf_counter() - began)


class Run:
    """One run of a scenario. ``over()`` is true when it is time to end; ``random(salt)`` gives random numbers that the seed repeats.

    All methods may be called from any thread.
    """

    def __init__(self, settings: Settings, seconds: float) -> None:
        self.settings = settings
        self.threads = settings.threads
        self.new_loop = settings.factory()
        self.tallies: list[Tally] = []
        self.notes: list[str] = []
        self._end = time.monotonic() + seconds
        self._errors: list[BaseException] = []

    def over(self) -> bool:
        return time.monotonic() >= self._end or bool(self._errors)

    def random(self, salt: object = 0) -> random.Random:
        return random.Random(f"{self.settings.seed} {salt}")

    def tally(self) -> Tally:
        """A count for the calling thread, shown as progress while the run lasts."""
        tally = Tally()
        self.tallies.append(tally)
        return tally

    def note(self, text: str) -> None:
        """Keep a remark for the report: which part was skipped on this loop, and why."""
        if text not in self.notes:
            self.notes.append(text)

    def native(self, name: str) -> Any:
        """tokioloop's function or class *name* where tokioloop is under test, else None."""
        if self.settings.loop != "tokioloop":
            return None
        return getattr(importlib.import_module("tokioloop"), name)

    def part(self, threads: int) -> "Run":
        """A run within this one: both end together, and an error in either ends both."""
        part = Run(self.settings, 0)
        part.threads = threads
        part.tallies, part.notes = self.tallies, self.notes
        part._end, part._errors = self._end, self._errors
        return part

    def in_threads(self, *works: Callable[[], object]) -> None:
        """Run each function in a thread of its own; the first error of any is raised here."""
        for thread in self.start(*works):
            thread.join()
        self.check()

    def start(self, *works: Callable[[], object]) -> list[threading.Thread]:
        """Start a thread for each function; the caller joins them, and then calls ``check()``."""

        def guarded(work: Callable[[], object]) -> None:
            try:
                work()
            except BaseException as error:  # a thread's error is the run's: it is raised again by check()
                self._errors.append(error)

        threads = [
            threading.Thread(target=guarded, args=(work,), name=f"work {n}") for n, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        return threads

    def check(self) -> None:
        """Raise the first error of any of the run's threads, if there is one."""
        if self._errors:
            raise self._errors[0]

    def serve(self, loop: asyncio.AbstractEventLoop) -> "Running":
        return Running(loop)


class Running:
    """``with run.serve(loop):`` the loop runs in a thread of its own meanwhile, and is closed at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.Thread(target=loop.run_forever, name="loop")

    def __enter__(self) -> Self:
        started = threading.Event()
        self.loop.call_soon(started.set)
        self.thread.start()
        started.wait()
        return self

    def wait[T](self, coro: Coroutine[Any, Any, T]) -> T:
        """Run *coro* on the loop and return its result; TimeoutError where it does not come."""
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result(PATIENCE)

    def flush(self) -> None:
        """Return when every call posted before has run."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(done.set)
        assert done.wait(PATIENCE), "a posted call never ran"

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
