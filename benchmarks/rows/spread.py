"""Rows of one server over several loops: every way to accept, over 1, 2, 4 and 8 loops."""

from __future__ import annotations

from ..model import Accept, Row
from .served import ECHO

WAYS: tuple[Accept, ...] = ("reuseport", "shared", "balance")

ROWS = tuple(
    Row(
        f"serve_{accept}_{count}",
        f"echo of 1 KiB, Protocol, 64 connections, one server over {count} loops, accept={accept!r}",
        "threads",
        spread=(accept, count),
        load=ECHO,
        loops=("tokioloop",),
    )
    for accept in WAYS
    for count in (1, 2, 4, 8)
)
