"""Most of the other scenarios at once, in one process."""

import threading
from collections.abc import Callable
from functools import partial

from ..run import NotOffered, Run
from . import (
    churn,
    cross_loop,
    echo,
    executor,
    inbox,
    pool,
    signals,
    slow_readers,
    subprocesses,
    tasks,
    timers,
    tls_churn,
)

# Excluded are those that change the whole process: its limits (accept_storm), its warnings and logs (misuse), its locks at
# any moment in a copy (fork_storm); and exit_storm, which happens elsewhere anyway.
PARTS = (tasks, timers, inbox, cross_loop, echo, tls_churn, slow_readers, executor, churn, subprocesses, pool)


def scenario(run: Run) -> dict[str, int]:
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def work(name: str, part: Callable[[Run], dict[str, int]]) -> None:
        try:
            found = part(run.part(1))
        except NotOffered as reason:
            run.note(f"without {name}: {reason}")
            return
        with lock:
            counts.update({f"{name}: {what}": count for what, count in found.items()})

    others = run.start(*(partial(work, it.__name__.rpartition(".")[2], it.scenario) for it in PARTS))
    try:
        # Signals belong to the main thread.
        work("signals", signals.scenario)
    finally:
        for thread in others:
            thread.join()
    run.check()
    return counts
