"""What a scenario leaves behind in its process: memory, descriptors, threads, live objects."""

import ctypes
import gc
import os
import resource
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Modules whose objects must all be gone: loops, handles, futures, tasks, transports, protocols, sockets, locks, jobs.
MODULES = {
    "_asyncio",
    "asyncio",
    "concurrent",
    "tokioloop",
    "uvloop",
    "socket",
    "_socket",
    "ssl",
    "_ssl",
    "stress",
}
# And these, by name: a coroutine or generator that is left was suspended and never resumed.
TYPES = {"coroutine", "generator", "async_generator", "Thread", "Context"}

# The allocators count exactly what is in use: Python's in blocks, C's and Rust's in bytes. The allowance is for what is made
# once at some rare event: a module imported at first need, which takes some thousand blocks, the lines of a source that a traceback
# shows, a table that grew. Operations are counted by the ten thousands, so what each of them would leave is far more.
BLOCKS = 8000
MALLOC = 1 << 20
# RSS is not exact: an allocator returns a page only when everything on it is free, and a free-threaded interpreter keeps the memory of
# threads that have ended. It reuses that, so RSS may be as high as at the peak of the warm-up, and somewhat more for a peak that happened
# to be higher.
RSS_SLACK = 16 << 20
RSS_SHARE = 0.25
# What ends by itself, but not at once: the runtime's idle threads, in seconds.
SETTLE = float(os.environ.get("TOKIOLOOP_STRESS_SETTLE", "15"))


@dataclass
class Left:
    """RSS and the most it was, in bytes; blocks in use by Python, bytes by C and Rust; descriptors, threads, live objects by type."""

    rss: int
    peak: int
    blocks: int
    malloc: int
    fds: int
    threads: int
    objects: dict[str, int]

    @classmethod
    def now(cls) -> "Left":
        for _ in range(3):
            gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            pages * resource.getpagesize(),
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            sys.getallocatedblocks(),
            _in_use(),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
            live_objects(),
        )

    def growth_over(self, before: "Left") -> list[str]:
        """List what has grown since *before* by more than the allowance."""
        grown = []
        if self.rss > before.peak * (1 + RSS_SHARE) + RSS_SLACK:
            grown.append(
                f"RSS grew from {before.rss >> 20} MiB, {before.peak >> 20} at most, to {self.rss >> 20} MiB"
            )
        if self.blocks > before.blocks + BLOCKS:
            grown.append(f"memory blocks of Python grew from {before.blocks} to {self.blocks}")
        if self.malloc > before.malloc + MALLOC:
            grown.append(f"memory of C and Rust grew from {before.malloc >> 10} to {self.malloc >> 10} KiB")
        if self.fds > before.fds:
            grown.append(f"descriptors grew from {before.fds} to {self.fds}: {_descriptors()}")
        if self.threads > before.threads:
            grown.append(f"threads grew from {before.threads} to {self.threads}")
        for name, count in self.objects.items():
            if count > before.objects.get(name, 0):
                grown.append(f"live objects of {name} grew from {before.objects.get(name, 0)} to {count}")
        return grown

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def settled(before: Left) -> tuple[Left, float]:
    """What is left once nothing is more than *before*, or after SETTLE seconds; and how long that took."""
    began = time.monotonic()
    while True:
        left = Left.now()
        waited = time.monotonic() - began
        if waited > SETTLE or not left.growth_over(before):
            return left, waited
        time.sleep(0.2)


def live_objects() -> dict[str, int]:
    """Count the collector's objects whose type belongs to event loops or what they use."""
    counts: Counter[type] = Counter(map(type, gc.get_objects()))
    named: Counter[str] = Counter()
    for kind, count in counts.items():
        if kind is Left:
            continue
        # In some of Cython's types this is a descriptor, not a name.
        if str(kind.__module__).partition(".")[0] in MODULES or kind.__name__ in TYPES:
            named[f"{kind.__module__}.{kind.__qualname__}"] += count
    return dict(named)


class _Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2() returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _in_use() -> int:
    """Bytes that C and Rust have allocated and not freed; 0 where the C library does not say."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def _descriptors() -> str:
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(f"{fd}={os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:  # the listing's own descriptor
            continue
    return ", ".join(names)
