"""The scenarios by name; a new file is entered here."""

from collections.abc import Callable

from ..harness import Run
from . import churn, echo, inbox, misuse, task_misuse, tasks, timers

SCENARIOS: dict[str, Callable[[Run], dict[str, int] | None]] = {
    module.__name__.rpartition(".")[2]: module.scenario
    for module in (inbox, echo, timers, churn, misuse, task_misuse, tasks)
}
