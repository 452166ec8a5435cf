"""The files that the commands write."""

import sys

import pytest

from benchmarks import __main__ as commands
from benchmarks.performance import interpreter
from benchmarks.run import environment


@pytest.fixture
def bench(results, tmp_path, monkeypatch):
    """Runs the harness in an empty directory with made-up measurements."""
    monkeypatch.chdir(tmp_path)
    found = results().measured("http", over_floor=1.1, uvloop=33.0, tokioloop=22.0, floor=20.0)
    grown = results().measured("growth_echo:10", uvloop=3.0, tokioloop=2.0)
    monkeypatch.setattr(commands, "run", lambda plan: found.document)
    monkeypatch.setattr(commands.growth, "measure", lambda rounds, *, quick: grown.document)

    def bench(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        return commands.main()

    bench.found, bench.directory = found, tmp_path
    return bench


def here():
    return f"benchmarks/results/{interpreter(environment())}"


def test_without_a_command_all_is_measured_and_the_document_written(bench):
    assert bench("--quick") == 0
    assert (bench.directory / here() / "results.json").exists()
    assert (bench.directory / here() / "growth.json").exists()
    text = (bench.directory / "docs/performance.md").read_text()
    assert "`http`" in text and "## How cost grows" in text


def test_another_interpreters_run_stays_in_the_document(bench, results):
    bench()
    other = bench.directory / "benchmarks/results/3.99t"
    (bench.directory / here()).rename(other)
    document = (other / "results.json").read_text().replace("3.13.9", "3.99.0")
    (other / "results.json").write_text(document)
    bench()
    text = (bench.directory / "docs/performance.md").read_text()
    assert "## All rows, 3.13t" in text and "## All rows, 3.99t" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rows", "http"),
        ("--loops", "uvloop,tokioloop"),
        ("run", "--rows", "http"),
        ("run", "--out", "there"),
    ],
)
def test_a_run_of_a_part_leaves_the_document_and_the_whole_runs_alone(bench, arguments):
    assert bench(*arguments) == 0
    assert not (bench.directory / "docs").exists()
    assert not (bench.directory / here()).exists()


def test_the_status_shows_a_failure_of_tokioloop_and_the_document_is_written(bench):
    bench.found.failed("connect", "uvloop", "hung")
    assert bench() == 0
    bench.found.failed("connect", "tokioloop", "hung")
    assert bench() == 1
    assert "failed: hung" in (bench.directory / "docs/performance.md").read_text()
