"""The table of a comparison in Markdown."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..table import grid, number
from .verdict import Verdict

SIGNS = {"pass": "pass", "slower": "**slower**", "open": "**open**", "failed": "**failed**"}
MEANING = {
    "slower": "the whole interval is above 1, and above the bound at its end",
    "open": "the interval holds 1 and the bound: more `--pairs` or `--repeats`, or a quieter machine",
    "failed": "not measured",
}


def markdown(document: dict[str, Any], verdicts: list[Verdict]) -> str:
    """What was compared and how, a line for each figure, and the meaning of each verdict that occurs."""
    where, plan = document["environment"], document["plan"]
    threading = "free-threaded" if where["free_threaded"] else "with GIL"
    states = Counter(verdict.state for verdict in verdicts)
    lines = [
        "# New against old",
        "",
        f"- old: {document['old']}",
        f"- new: {document['new']}",
        f"- CPython {where['python']} ({threading}), {where['system']}, {where['cpu']}, {where['cores']} cores, load average"
        f" {where['load_average'][0]} at the end; {where['date']} UTC",
        f"- {plan['pairs']} pairs of {plan['seconds']:g} s in turns; instructions counted {plan['repeats']} times",
        f"- `{document['command']}`",
        "",
        f"{len(verdicts)} figures: " + ", ".join(f"{count} {state}" for state, count in states.items()) + ".",
        "",
        grid(
            ["Row", "figure", "old", "new", "new / old", "95 % interval", "at most", "holds"],
            [_cells(verdict) for verdict in verdicts],
        ),
        *(f"- {state}: {text}" for state, text in MEANING.items() if states[state]),
        *(f"- `{verdict.row}`: {verdict.why}" for verdict in verdicts if verdict.why),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _cells(verdict: Verdict) -> list[str]:
    head = [f"`{verdict.row}`", verdict.figure]
    interval = verdict.interval
    if interval is None or verdict.old is None or verdict.new is None or verdict.bound is None:
        return [*head, "-", "-", "-", "-", "-", SIGNS[verdict.state]]
    between = "-" if interval.low == interval.high else f"{interval.low:.4f} to {interval.high:.4f}"
    return [
        *head,
        number(verdict.old),
        number(verdict.new),
        f"{interval.ratio:.4f}",
        between,
        f"{verdict.bound:g}",
        SIGNS[verdict.state],
    ]
