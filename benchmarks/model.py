"""Rows and the measurements that they yield."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from socket import socket
from typing import Any, Literal

type Loop = asyncio.AbstractEventLoop
type LoopFactory = Callable[[], Loop]

#: A body does `n` operations on a loop of the calling thread that is not running, and returns how many it did.
type Body = Callable[[Loop, int], int]

#: Serves on a listening or datagram socket; the result undoes it.
type Serve = Callable[[Loop, socket], Awaitable[Callable[[], None]]]

type Accept = Literal["reuseport", "shared", "balance"]

type Measurement = dict[str, Any]

#: A row with its own way of measuring, which makes the loops itself.
type Special = Callable[[LoopFactory, int], Measurement]


def per_operation(ops: int, wall: float, cpu: float) -> Measurement:
    """The measurement of `ops` operations that took `wall` and `cpu` seconds."""
    return {
        "ops": ops,
        "wall_s": wall,
        "cpu_us": cpu * 1e6 / ops,
        "wall_us": wall * 1e6 / ops,
        "rate": ops / wall,
    }


@dataclass(frozen=True, slots=True)
class Target:
    """tokioloop's target in a row: every part that is given.

    `times` is how many times less than uvloop's figure (2.4 means at most 1/2.4 of it), or, where `than` names
    another row, than tokioloop's own in that row; `floor` how many times the floor's figure at most; `below` an
    absolute bound in the row's unit.
    """

    times: float | None = None
    than: str | None = None
    floor: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        parts = [
            "" if self.times is None else f"{self.than or 'uvloop'} / {self.times:g}",
            "" if self.floor is None else f"floor x {self.floor:g}",
            "" if self.below is None else f"< {self.below:.4g}",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Together:
    """The target of two threads with a loop each: the rate of both, over uvloop's of two threads (`times`) and over one
    thread's (`scale`)."""

    times: float | None = None
    scale: float | None = None

    def __str__(self) -> str:
        parts = [
            f"uvloop x {self.times:g}" if self.times else "",
            f"one thread x {self.scale:g}" if self.scale else "",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured. Exactly one of `body`, `serve`, `spread` and `special` is set."""

    name: str
    title: str
    group: Literal["network", "tls", "processes", "scheduling", "threads", "pools", "loops"]
    #: Operations of one call of `body`, which is called until the measured time is used up, or of `special`.
    n: int = 0
    body: Body | None = None
    serve: Serve | None = None
    #: One server over several loops: how it accepts, and over how many. Compared with one over one loop.
    spread: tuple[Accept, int] | None = None
    special: Special | None = None
    #: Arguments of the load generator: its command and options.
    load: tuple[str, ...] = ()
    over: Literal["tcp", "unix", "udp"] = "tcp"
    #: The plain-Rust floor serves this row too, with these arguments.
    floor: tuple[str, ...] | None = None
    #: Also run on two threads with a loop each, as row `NAME@2`.
    two_threads: bool = False
    #: And on these numbers of threads, as `NAME@4` and so on.
    more_threads: tuple[int, ...] = ()
    #: The target of two threads.
    together: Together | None = None
    #: All threads of the row share a core (see `cores`).
    one_core: bool = False
    #: Its instructions can be counted: they are the same in each run, so no part of it waits for time to pass, or sleeps
    #: only when another thread happens to be slow.
    counted: bool = False
    #: The field of a measurement that the row is about, and its unit.
    figure: str = "cpu_us"
    unit: str = "us CPU"
    target: Target | None = None
    #: The only loops that can do this; None means all.
    loops: tuple[str, ...] | None = None
    #: A module that the row needs; without it the row is left out.
    needs: str | None = None
