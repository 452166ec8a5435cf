"""Tests of the conformance runner itself, on tiny test modules."""

import json
from pathlib import Path
from typing import Any

import pytest

from .__main__ import main

ASYNCIO = "asyncio.SelectorEventLoop"
DEAF = "tests.conformance.samples.loops.Deaf"


class Lane:
    """One run of the lane over a sample module."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory = directory
        self._capsys = capsys

    def run(self, module: str, *options: str, loop: str = ASYNCIO, exceptions: str = "") -> int:
        """Runs it and keeps its exit code's company: `output`, and each test's entry in `tests`."""
        listed, report = self._directory / "list.toml", self._directory / "report.json"
        listed.write_text(exceptions)
        where = ["--package", "tests.conformance.samples", "--module", module, "--loop", loop]
        code = main([*where, "--expectations", str(listed), "--json", str(report), "--jobs", "1", *options])
        self.output = self._capsys.readouterr().out
        data: dict[str, Any] = json.loads(report.read_text())
        self.tests = {entry["test"].rpartition(".")[2]: entry for entry in data["tests"]}
        self.problems: list[str] = data["problems"]
        return code

    @property
    def closing(self) -> str:
        return self.output.splitlines()[-1]


@pytest.fixture
def lane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lane:
    return Lane(tmp_path, capsys)


def exception(test: str, **more: str) -> str:
    """An entry of a list of exceptions."""
    extra = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'[[exception]]\ntests = ["{test}"]\ncategory = "defect"\nreason = "a sample"\n{extra}'


def test_every_ending_costs_one_test(lane: Lane) -> None:
    assert lane.run("endings", "--timeout", "2") == 1
    status = {name.removeprefix("test_"): entry["subject"]["status"] for name, entry in lane.tests.items()}
    assert status == {
        "passes": "pass",
        "passes_after_another_one_died": "pass",
        "fails": "fail",
        "skips": "skip",
        "hangs": "timeout",
        "crashes": "crash",
        "exits": "crash",
        "crashes_at_exit": "crash",
        "leaves_an_exception_behind": "fail",
        "leaves_a_process_behind": "pass",
    }
    assert lane.closing == "3 passed, 6 failed, 1 skipped"


def test_a_hanging_test_shows_where_it_hung(lane: Lane) -> None:
    lane.run("endings", "--timeout", "1", "--test", "test_hangs")
    assert "still running after 1 s" in lane.tests["test_hangs"]["reason"]
    assert "endings.py" in lane.tests["test_hangs"]["subject"]["output"]
    assert "in test_hangs" in lane.output


def test_a_crash_names_the_signal_or_the_exit_code(lane: Lane) -> None:
    lane.run("endings", "--test", "test_crashes", "--test", "test_exits")
    assert "SIGSEGV during the test" in lane.tests["test_crashes"]["reason"]
    assert "SIGABRT after the test, at exit" in lane.tests["test_crashes_at_exit"]["reason"]
    assert "exit code 3 during the test" in lane.tests["test_exits"]["reason"]


def test_a_failure_shows_what_the_test_printed(lane: Lane) -> None:
    assert lane.run("endings", "--test", "test_fails") == 1
    assert "| printed before the failure" in lane.output
    assert "AssertionError: on purpose" in lane.output


def test_a_passing_lane_exits_with_zero(lane: Lane) -> None:
    assert lane.run("endings", "--test", "test_passes") == 0
    assert lane.tests["test_passes"]["subject"]["loops"] == {"subject": 1}
    assert lane.closing == "2 passed, 0 failed, 0 skipped"


def test_only_what_asyncio_passes_is_counted(lane: Lane) -> None:
    assert lane.run("names", loop=DEAF) == 1
    verdicts = {name: entry["verdict"] for name, entry in lane.tests.items()}
    assert verdicts == {
        "test_resolves": "failed",
        "test_runs": "passed",
        "test_fails_everywhere": "not counted",
    }
    assert "NotImplementedError" in lane.tests["test_resolves"]["reason"]


def test_an_exception_excuses_a_failure(lane: Lane) -> None:
    assert lane.run("names", loop=DEAF, exceptions=exception("names.Names.test_resolves")) == 0
    assert lane.tests["test_resolves"]["verdict"] == "excepted"
    assert lane.closing == "1 passed, 0 failed, 2 skipped"


def test_an_exception_that_passes_fails_the_lane(lane: Lane) -> None:
    assert lane.run("names", loop=DEAF, exceptions=exception("names.Names.test_r*")) == 1
    assert lane.tests["test_resolves"]["verdict"] == "excepted"
    assert lane.tests["test_runs"]["verdict"] == "failed"
    assert "passes, but is excepted" in lane.tests["test_runs"]["reason"]


def test_a_pattern_that_names_no_test_fails_the_lane(lane: Lane) -> None:
    listed = exception("names.Names.test_resolves") + exception("names.Names.test_gone")
    assert lane.run("names", loop=DEAF, exceptions=listed) == 1
    assert "names.Names.test_gone" in lane.problems[0]
    assert lane.closing == "1 passed, 1 failed, 2 skipped"


def test_a_pattern_with_nothing_left_to_name_fails_the_lane(lane: Lane) -> None:
    listed = exception("names.Names.test_resolves") + exception("names.Names.test_re*")
    assert lane.run("names", loop=DEAF, exceptions=listed) == 1
    assert "names.Names.test_re*" in lane.problems[0]


def test_an_exception_for_another_interpreter_is_not_read(lane: Lane) -> None:
    listed = exception("names.Names.test_gone", python='["2.7"]')
    assert lane.run("names", "--test", "test_runs", loop=DEAF, exceptions=listed) == 0


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ('[[exception]]\ntests = ["a"]\ncategory = "whim"\nreason = "x"', "category must be one of"),
        ('[[exception]]\ntests = ["a"]\ncategory = "tls"', "no reason given"),
        ('[[exception]]\ncategory = "tls"\nreason = "x"', "without tests"),
        (exception("a", until='"tomorrow"'), "unknown keys"),
        ("[[excuse]]", "unknown tables"),
    ],
)
def test_a_malformed_list_stops_the_lane(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: str, complaint: str
) -> None:
    path = tmp_path / "list.toml"
    path.write_text(listed)
    assert main(["--expectations", str(path), "--module", "names", "--list"]) == 2
    assert complaint in capsys.readouterr().err


def test_a_loop_that_does_not_exist_stops_the_lane(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--package", "tests.conformance.samples", "--module", "names", "--loop", "asyncio.NoSuchLoop"]
    assert main(options) == 2
    assert "does not name a class" in capsys.readouterr().err


def test_a_module_that_is_missing_fails_the_lane(lane: Lane) -> None:
    assert lane.run("no_such_module") == 1
    assert "no_such_module: not importable" in lane.problems[0]
