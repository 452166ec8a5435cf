"""Keeps the server and its load generator on cores of their own.

Left to itself the scheduler now runs the two in turn on one core and now side by side, and an echo costs half as
much CPU again in the second case: side by side, always, is what can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class Cores:
    """The cores this process may use, split where there are two: the last for the server, the others for the load."""

    def __init__(self) -> None:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []

    def take_server(self) -> None:
        """Binds the calling thread, and what it starts, to the server's core."""
        if len(self._all) > 1:
            os.sched_setaffinity(0, self._all[-1:])

    @contextmanager
    def load(self) -> Iterator[None]:
        """Processes started within run on the load's cores."""
        if len(self._all) < 2:
            yield
            return
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._all[:-1])
        try:
            yield
        finally:
            os.sched_setaffinity(0, own)
