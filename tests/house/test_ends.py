"""Every way to end a transport, of every kind, with every fault meanwhile: once, completely, and as on asyncio's own loop.

The cases of a kind are made in a process of its own, which cannot hang.
"""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .ends import CALLBACKS, FLOW, KINDS, cases

ROOT = Path(__file__).resolve().parents[2]
WAYS = list(dict.fromkeys((kind, way) for kind, way, _ in cases()))

type Seen = dict[str, Any]


@functools.cache
def told(kind: str) -> dict[tuple[str, str], tuple[Seen, Seen]]:
    """The observations of asyncio's loop and of ours, for each way and fault."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.house.ends", kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return {(way, trouble): (theirs, ours) for way, trouble, theirs, ours in lines}


def seen(kind: str, way: str) -> list[tuple[str, Seen, Seen]]:
    return [(trouble, *told(kind)[way, trouble]) for of, its, trouble in cases() if (of, its) == (kind, way)]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_it_ends_once_and_whole(kind: str, way: str) -> None:
    for trouble, _, ours in seen(kind, way):
        collected = way in ("collected", "loop closed")
        lost = [call for call in ours["calls"] if call.startswith("connection_lost")]
        assert len(lost) == (0 if collected else 1), trouble
        assert ours["descriptor"] == "closed", trouble
        assert "kept" not in (ours["protocol"], ours["transport"]), trouble
        if kind == "accepted" and way != "loop closed":
            assert ours["server"] == "closed", trouble
        # As on asyncio: a pipe's protocol gets the end of the data, then the pipe's, in one turn.
        if not collected and not (kind == "read pipe" and way in ("eof", "eof_received")):
            assert ours["turn"] == "own", trouble
        assert ours["warnings"] == ["unclosed"] * collected * (2 if kind.startswith("tls") else 1) or (
            way == "loop closed" and set(ours["warnings"]) == {"unclosed"}
        ), trouble


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_it_is_told_as_by_asyncio(kind: str, way: str) -> None:
    for trouble, theirs, ours in seen(kind, way):
        for what in ("calls", "reports", "logged", "unraisable", "left"):
            case = (kind, way, trouble)
            assert same(case, what, ours[what]) == same(case, what, expected(case, what, theirs[what])), (
                trouble,
                what,
            )


def expected(case: tuple[str, str, str], what: str, theirs: list[str]) -> list[str]:
    """The expected observations of ours, given asyncio's: the differences, each with its reason."""
    kind, way, _ = case
    if what == "calls" and way == "close" and kind.startswith("tls"):
        # asyncio reports the peer's answer to our close_notify; a transport of ours delivers nothing after close().
        theirs = [call for call in theirs if call != "eof_received"]
    if what == "reports":
        if way in ("data_received", "datagram_received") and kind in ("read pipe", "datagram"):
            # asyncio reports the handle that called the protocol; ours has none, and names the transport.
            own = f"Exception in callback: ValueError('{way}') with "
            theirs = [own + "['protocol', 'transport']" if text == own + "[]" else text for text in theirs]
        if way in CALLBACKS and kind.startswith("tls"):
            # As asyncio's transport of a socket: the callback that failed is named.
            named = f"Fatal error: protocol.{way}() call failed."
            theirs = [text.replace("Fatal error on SSL protocol", named) for text in theirs]
        # Faults of asyncio after an interrupt (it writes nothing, or is closed twice), and of our way to close a loop with a task.
        fault = re.compile("Data should not be empty|'NoneType' object|Task was destroyed")
        theirs = [text for text in theirs if not fault.search(text)]
    return theirs


def same(case: tuple[str, str, str], what: str, told: list[str]) -> list[str]:
    """The observations that do not depend on the order of the kernel's reports: whether the peer reads, or has left."""
    kind, _, trouble = case
    # Of writing, and of reading.
    gone = re.compile(r"(BrokenPipe|ConnectionReset)Error\([^)]*\)")
    told = [gone.sub("gone", text) for text in told]
    if kind.startswith("tls"):
        # asyncio counts encrypted bytes too, and pauses and resumes more often.
        told = [text for text in told if not any(name in text for name in FLOW)]
    return sorted(told) if trouble == "flow" and what in ("calls", "reports") else told


def test_each_kind_has_cases() -> None:
    assert {kind for kind, _ in WAYS} == set(KINDS)
