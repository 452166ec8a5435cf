"""The list of exceptions: `expectations.toml`, read strictly.

An exception names tests (shell patterns over `module.Class.method`), a category and a reason. It says that each of
them does not pass on the subject, on the interpreters it is for. One that passes, or a pattern that names no test,
fails the lane: the list can only be true.
"""

import fnmatch
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = frozenset({"tls", "udp", "pipes", "subprocess", "private", "difference", "defect"})
"""The first four: not built yet. private: asyncio's inner parts or the name of its class. difference: meant to
differ. defect: known and to be fixed."""

KEYS = frozenset({"tests", "category", "reason", "python", "build"})


class ExpectationsError(Exception):
    """The file is malformed."""


@dataclass(frozen=True)
class Rule:
    """One exception, as written."""

    patterns: tuple[str, ...]
    category: str
    reason: str


class Expectations:
    """The rules that hold for this interpreter."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules

    @classmethod
    def read(cls, path: Path) -> "Expectations":
        """Reads the file; ExpectationsError names the entry that is wrong."""
        data = tomllib.loads(path.read_text())
        entries = data.pop("exception", [])
        if data:
            raise ExpectationsError(f"{path.name}: unknown tables {sorted(data)}")
        return cls([_rule(entry, path.name) for entry in entries if _applies(entry)])

    def find(self, test: str) -> Rule | None:
        """The first rule that names this test."""
        for rule in self._rules:
            if any(fnmatch.fnmatchcase(test, pattern) for pattern in rule.patterns):
                return rule
        return None

    def idle(self, tests: list[str], modules: list[str]) -> list[str]:
        """Patterns for one of `modules` that name none of `tests`, or only tests that an earlier pattern names."""
        left = set(tests)
        idle = []
        for rule in self._rules:
            for pattern in rule.patterns:
                if pattern.partition(".")[0] not in modules:
                    continue
                hits = {test for test in left if fnmatch.fnmatchcase(test, pattern)}
                if not hits:
                    idle.append(pattern)
                left -= hits
        return idle


def _rule(entry: dict[str, Any], name: str) -> Rule:
    patterns, category, reason = entry.get("tests"), entry.get("category"), entry.get("reason")
    if not patterns or not isinstance(patterns, list):
        raise ExpectationsError(f"{name}: an exception without tests: {entry}")
    if category not in CATEGORIES:
        raise ExpectationsError(
            f"{name}: {patterns[0]}: category must be one of {', '.join(sorted(CATEGORIES))}"
        )
    if not reason:
        raise ExpectationsError(f"{name}: {patterns[0]}: no reason given")
    if unknown := entry.keys() - KEYS:
        raise ExpectationsError(f"{name}: {patterns[0]}: unknown keys {sorted(unknown)}")
    return Rule(tuple(patterns), category, reason)


def _applies(entry: dict[str, Any]) -> bool:
    """`python = ["3.13"]` and `build = "gil"` or `"free-threaded"` narrow an exception."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    build = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "gil"
    return version in entry.get("python", [version]) and entry.get("build", build) == build
