"""The documentation's programs run and print what they should."""

import re
from pathlib import Path

import pytest

from ..loop.support import python

ROOT = Path(__file__).resolve().parents[2]


def programs(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, ["6 7 8", "['0 1', '1 2', '2 3']", "1 2"]),
        (1, ["HOW ARE YOU"]),
        (2, ["other"]),
    ],
)
def test_pools(number, said):
    assert python(programs("docs/pools.md")[number]).stdout.splitlines() == said


def test_the_readme():
    [program] = [text for text in programs("README.md") if "WorkerPool" in text]
    lines = python(program).stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines[:8]] == [f"hello {n}" for n in range(8)]
    assert {line.partition(":")[0] for line in lines[:8]} == {f"loop-{n}" for n in range(4)}
    assert lines[8].startswith("6 ServerStats(") and len(lines) == 9
