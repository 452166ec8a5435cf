"""Scenarios whose ends are known, for the tests of the harness."""

import asyncio
import atexit
import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from stress.run import NotOffered, Run

kept: list[object] = []


def passes(run: Run) -> dict[str, int]:
    tally = run.tally()
    while not run.over():
        began = time.perf_counter()
        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            runner.run(asyncio.sleep(0))
        tally.took(began)
    return {"loops": tally.ops}


def fails(run: Run) -> dict[str, int]:
    def work() -> None:
        raise AssertionError("two and two <is> five")

    run.in_threads(work)
    return {}


def crashes(run: Run) -> dict[str, int]:
    ctypes.string_at(0)
    return {}


def hangs(run: Run) -> dict[str, int]:
    # What it started must not outlive it.
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]))
    print(f"started {kept[-1].pid}", flush=True)  # type: ignore[attr-defined]
    threading.Event().wait()
    return {}


def freezes(run: Run) -> dict[str, int]:
    """A thread waits in C without detaching: a collection waits for it, and all other threads wait for the collection."""
    attached = ctypes.PyDLL(None)
    threading.Thread(target=attached.pause, name="away", daemon=True).start()
    while True:
        gc.collect()


def stands_still(run: Run) -> dict[str, int]:
    run.tally().took(time.perf_counter())
    threading.Event().wait()
    return {}


def panics(run: Run) -> dict[str, int]:
    sys.stderr.write("thread 'one' panicked at src/some.rs:1:2:\n")
    sys.stderr.flush()
    os.abort()


def leaks_descriptors(run: Run) -> dict[str, int]:
    os.dup(0)
    return {}


def leaks_a_future(run: Run) -> dict[str, int]:
    loop = run.new_loop()
    kept.append(loop.create_future())
    loop.close()
    return {}


def leaks_a_thread(run: Run) -> dict[str, int]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return {}


def ends_badly(run: Run) -> dict[str, int]:
    atexit.register(os._exit, 3)
    return passes(run)


def does_nothing(run: Run) -> dict[str, int]:
    return {}


def is_not_offered(run: Run) -> dict[str, int]:
    raise NotOffered("no loop does this")


SCENARIOS: dict[str, Callable[[Run], dict[str, int]]] = {
    it.__name__: it
    for it in (
        passes,
        fails,
        crashes,
        hangs,
        freezes,
        stands_still,
        panics,
        leaks_descriptors,
        leaks_a_future,
        leaks_a_thread,
        ends_badly,
        does_nothing,
        is_not_offered,
    )
}
