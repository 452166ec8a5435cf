"""Measures served rows: a server here or the floor, and the load generator outside."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import (
    AF_INET,
    AF_UNIX,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from statistics import median
from typing import Any

from . import cores, loadgen
from .model import Loop, LoopFactory, Measurement, Row, Serve

#: A row that is compared with the floor is measured in this many slices, each followed by one of the floor.
SLICES = 4
WARM_UP = 0.1
#: The load generator makes all its connections at once; one that finds no room waits a second or more.
BACKLOG = 4096

type Report = dict[str, Any]


class Load:
    """The load generator's runs of one row against one server."""

    def __init__(
        self, row: Row, where: tuple[str, ...], pid: int, *, apart: bool, latencies: bool = False
    ) -> None:
        self._arguments = (*row.load, *where, "--server-pid", str(pid), "--warm-up", str(WARM_UP))
        if latencies:
            self._arguments += ("--latencies",)
        self._apart = apart

    def start(self, seconds: float) -> int:
        """Starts a run; the report comes from the descriptor, which the caller closes."""
        with ExitStack() as stack:
            if self._apart:
                stack.enter_context(cores.others())
            child = loadgen.start(*self._arguments, "--seconds", str(seconds))
        assert child.stdout is not None
        return os.dup(child.stdout.fileno())

    def run(self, seconds: float) -> Report:
        """Runs and waits for the report."""
        with os.fdopen(self.start(seconds), "rb") as report:
            return loadgen.report(report.read())


def alone(
    row: Row, serve: Serve, make: LoopFactory, seconds: float, *, latencies: bool = False
) -> Measurement:
    """Serves on this thread, the only one of the process; with `latencies` not in turns with the floor."""
    cores.take_last()
    cores.descriptors()
    with ExitStack() as stack:
        path = _unix_path(row, stack)
        [listener] = _listeners(1, row, path, stack)
        load = Load(row, _where(listener, path), os.getpid(), apart=True, latencies=latencies)
        if latencies:
            [report] = _serve_loads(serve, make(), listener, iter([(load, seconds)]))
            return merged([report]) | {"latencies_us": report["latencies_us"]}
        if row.target is None or row.target.floor is None:
            return merged(_serve_loads(serve, make(), listener, iter([(load, seconds)])))
        beside = _floor(row, stack)
        each = [(load, seconds / SLICES), (beside, seconds / SLICES)]
        reports = _serve_loads(serve, make(), listener, iter(each * SLICES))
        own, floor = merged(reports[::2]), merged(reports[1::2])
        pairs = zip(reports[::2], reports[1::2], strict=True)
        # On a busy machine a side may get no core, and so spend nothing, in the whole of a short slice.
        over = [
            one["cpu_us_per_request"] / other["cpu_us_per_request"]
            for one, other in pairs
            if one["cpu_us_per_request"] and other["cpu_us_per_request"]
        ]
        if not over:
            raise RuntimeError("no slice in which both the server and the floor ran")
        return own | {"floor_cpu_us": floor["cpu_us"], "over_floor": median(over)}


def beside(row: Row, serve: Serve, make: LoopFactory, seconds: float, threads: int) -> Measurement:
    """Serves on `threads` threads, each with a loop and a listener of the one port."""
    ready = threading.Barrier(threads + 1, timeout=30)
    loops: list[Loop] = []

    def run(listener: socket) -> None:
        loop = make()
        undo = loop.run_until_complete(serve(loop, listener))
        loops.append(loop)
        ready.wait()
        loop.run_forever()
        _end(loop, undo)

    with ExitStack() as stack:
        listeners = _listeners(threads, row, None, stack)
        running = [threading.Thread(target=run, args=(listener,), daemon=True) for listener in listeners]
        for thread in running:
            thread.start()
        ready.wait()
        report = Load(row, _where(listeners[0], None), os.getpid(), apart=False).run(seconds)
        for loop in loops:
            loop.call_soon_threadsafe(loop.stop)
        for thread in running:
            thread.join(timeout=10)
    return merged([report])


def floor(row: Row, seconds: float) -> Measurement:
    """The plain-Rust server in place of a Python one. Raises LookupError for a row that it does not have."""
    cores.take_last()
    cores.descriptors()
    with ExitStack() as stack:
        return merged([_floor(row, stack).run(seconds)])


def _floor(row: Row, stack: ExitStack) -> Load:
    if row.floor is None:
        raise LookupError(f"the floor does not serve {row.name}")
    path = _unix_path(row, stack)
    datagrams = ("--udp",) if row.over == "udp" else ()
    child = loadgen.Floor(*(("--unix", str(path)) if path else ("--port", "0")), *datagrams, *row.floor)
    stack.callback(child.close)
    where = ("--unix", str(path)) if path else ("--addr", f"127.0.0.1:{child.where['port']}")
    return Load(row, where, child.pid, apart=True)


def _unix_path(row: Row, stack: ExitStack) -> Path | None:
    return Path(stack.enter_context(tempfile.TemporaryDirectory())) / "socket" if row.over == "unix" else None


def _where(listener: socket, path: Path | None) -> tuple[str, ...]:
    return ("--unix", str(path)) if path else ("--addr", f"127.0.0.1:{listener.getsockname()[1]}")


def _listeners(count: int, row: Row, path: Path | None, stack: ExitStack) -> list[socket]:
    """Listening or datagram sockets, one a server thread; those of TCP share one port."""
    listeners: list[socket] = []
    # The protocol is named as getaddrinfo would: only then does asyncio set TCP_NODELAY on what is accepted.
    family, kind, protocol = {
        "tcp": (AF_INET, SOCK_STREAM, IPPROTO_TCP),
        "unix": (AF_UNIX, SOCK_STREAM, 0),
        "udp": (AF_INET, SOCK_DGRAM, IPPROTO_UDP),
    }[row.over]
    port = 0
    for _ in range(count):
        listener = stack.enter_context(socket(family, kind, protocol))
        if path:
            listener.bind(str(path))
        else:
            listener.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            port = listener.getsockname()[1]
        if kind == SOCK_STREAM:
            listener.listen(BACKLOG)
        listener.setblocking(False)
        listeners.append(listener)
    return listeners


def _serve_loads(
    serve: Serve, loop: Loop, listener: socket, loads: Iterator[tuple[Load, float]]
) -> list[Report]:
    """Serves while one load after the other runs. The reports come through the loop, so no other thread is needed."""
    undo = loop.run_until_complete(serve(loop, listener))
    texts: list[bytes] = []

    def begin() -> None:
        load, seconds = next(loads, (None, 0.0))
        if load is None:
            loop.stop()
            return
        texts.append(b"")
        report = load.start(seconds)
        loop.add_reader(report, readable, report)

    def readable(report: int) -> None:
        piece = os.read(report, 65536)
        texts[-1] += piece
        # The report is one line. End of file comes alone only where the load generator failed.
        if not piece or piece.endswith(b"\n"):
            loop.remove_reader(report)
            os.close(report)
            begin()

    begin()
    loop.run_forever()
    _end(loop, undo)
    return [loadgen.report(text) for text in texts]


def _end(loop: Loop, undo: Callable[[], None]) -> None:
    """Stops serving, after a few turns in which the loop sees that the load generator has closed its connections."""
    undo()
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()


def merged(reports: list[Report]) -> Measurement:
    """One measurement of several runs."""
    ops = sum(report["requests"] for report in reports)
    wall = sum(report["seconds"] for report in reports)
    p50 = median(report["p50_us"] for report in reports)
    lost = {"lost": sum(report["lost"] for report in reports)} if "lost" in reports[0] else {}
    return lost | {
        "ops": ops,
        "wall_s": wall,
        "cpu_us": sum(report["server_cpu_s"] for report in reports) * 1e6 / ops,
        "wall_us": p50,
        "rate": ops / wall,
        "p50_us": p50,
        "p99_us": max(report["p99_us"] for report in reports),
    }
