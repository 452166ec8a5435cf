"""The scenarios by name; a new file is entered here."""

from collections.abc import Callable

from ..run import Run
from . import (
    accept_storm,
    blocking,
    churn,
    closing,
    collections,
    cross_loop,
    echo,
    everything,
    executor,
    exit_storm,
    fork_storm,
    inbox,
    misuse,
    pool,
    re_armed,
    signals,
    slow_readers,
    subprocesses,
    task_misuse,
    tasks,
    timers,
    tls_churn,
    two_at_one,
)

SCENARIOS: dict[str, Callable[[Run], dict[str, int]]] = {
    module.__name__.rpartition(".")[2]: module.scenario
    for module in (
        tasks,
        timers,
        re_armed,
        inbox,
        closing,
        cross_loop,
        echo,
        tls_churn,
        slow_readers,
        accept_storm,
        subprocesses,
        signals,
        executor,
        pool,
        collections,
        blocking,
        churn,
        fork_storm,
        exit_storm,
        misuse,
        task_misuse,
        two_at_one,
        everything,
    )
}
