"""What scenarios run in: the loop under test, time, chance, threads, the watchdog, and the count of what is left."""

import asyncio
import faulthandler
import gc
import importlib
import os
import random
import resource
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

LOOPS = ["tokioloop", "asyncio", "uvloop"]

# What a scenario may leave behind: the allocator keeps some memory, a runtime its threads' stacks.
SLACK_RSS = 64 << 20
SLACK_FDS = 4
# The shared runtime starts its workers at first use and keeps them.
SLACK_THREADS = 0


@dataclass(frozen=True)
class Settings:
    loop: str
    threads: int
    seconds: float
    seed: int

    def factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        if self.loop == "asyncio":
            return asyncio.SelectorEventLoop
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(self.loop).new_event_loop
        return factory


class Run:
    """One run of a scenario. ``over()`` says when to end; ``random(n)`` is chance that the seed repeats."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        self.settings = settings
        self.threads = settings.threads
        self.new_loop = settings.factory()
        self._end = time.monotonic() + seconds
        self._errors: list[BaseException] = []

    def over(self) -> bool:
        return time.monotonic() >= self._end or bool(self._errors)

    def random(self, salt: object = 0) -> random.Random:
        return random.Random(f"{self.settings.seed} {salt}")

    def in_threads(self, *works: Callable[[], object]) -> None:
        """Run each function in a thread of its own; the first error of any is raised here."""

        def guarded(work: Callable[[], object]) -> None:
            try:
                work()
            except BaseException as error:
                self._errors.append(error)

        threads = [
            threading.Thread(target=guarded, args=(work,), name=f"work {n}") for n, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
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

    def wait(self, coro: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result()

    def flush(self) -> None:
        """Return when all that was posted before has run."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(done.set)
        done.wait()

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@dataclass
class Left:
    rss: int
    fds: int
    threads: int

    @classmethod
    def now(cls) -> "Left":
        for _ in range(3):
            gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            pages * resource.getpagesize(),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
        )

    def growth_over(self, before: "Left") -> list[str]:
        """Say what has grown since *before* by more than the allowance."""
        grown = []
        if self.rss > before.rss + SLACK_RSS:
            grown.append(f"memory grew from {before.rss >> 20} to {self.rss >> 20} MiB")
        if self.fds > before.fds + SLACK_FDS:
            grown.append(f"descriptors grew from {before.fds} to {self.fds}")
        if self.threads > before.threads + SLACK_THREADS:
            grown.append(f"threads grew from {before.threads} to {self.threads}")
        return grown


def attempt(name: str, scenario: Callable[[Run], dict[str, int] | None], settings: Settings) -> int:
    """Warm up, run, and compare what is left; 0 when all was right."""
    warm_up = min(1.0, settings.seconds / 4)
    # Far above what it takes: a hang ends the process with every thread's stack.
    faulthandler.dump_traceback_later(4 * (settings.seconds + warm_up) + 60, exit=True)
    print(
        f"{name}: {settings.loop}, {settings.threads} threads, {settings.seconds:g} s, seed {settings.seed}",
        flush=True,
    )
    began = time.monotonic()
    try:
        counts = scenario(Run(settings, warm_up))
        if counts is None:
            print(f"{name}: not for {settings.loop}")
            return 0
        before = Left.now()
        cpu = time.process_time()
        counts = scenario(Run(settings, settings.seconds)) or {}
        cpu = time.process_time() - cpu
        after = Left.now()
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    shown = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(
        f"{name}: {shown}; {time.monotonic() - began:.1f} s, CPU {cpu:.1f} s, RSS {after.rss >> 20} MiB",
        flush=True,
    )
    grown = after.growth_over(before)
    for line in grown:
        print(f"{name}: {line}")
    return 1 if grown else 0
