"""Places threads and processes on cores and raises the limit of descriptors, so that a row is always measured in the same setting.

Without placement the scheduler sometimes runs two threads in turn on one core and sometimes on two. An echo costs half as
much CPU again on two cores as on one, a wake several times as much, so figures would jump between the two.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: The cores this process could use when this module was imported; empty where the system has no affinity.
GIVEN = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def take_last() -> None:
    """Binds the calling thread, and all that it starts, to the last core: a server, or all threads of a row."""
    if len(GIVEN) > 1:
        os.sched_setaffinity(0, GIVEN[-1:])


def take_others() -> None:
    """Binds the calling thread, and all that it starts, to all cores except the last: the other side of a row."""
    if len(GIVEN) > 1:
        os.sched_setaffinity(0, GIVEN[:-1])


@contextmanager
def others() -> Iterator[None]:
    """Processes started within run on the other cores."""
    if len(GIVEN) < 2:
        yield
        return
    own = os.sched_getaffinity(0)
    take_others()
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def descriptors() -> int:
    """Raises this process's limit of open descriptors as far as allowed, for its children too, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if now == resource.RLIM_INFINITY else now
