"""The stress harness reports each end of a scenario correctly, and records it."""

import ctypes
import json
import os
import random
import re
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stress import left, page, parent, plot, record
from stress.parent import Outcome, supervise
from stress.run import Histogram, Settings

CATALOGUE = "tests.stress_harness.catalogue"


def ends(name: str, deadline: float | None = None) -> Outcome:
    settings = Settings("tokioloop", threads=2, seconds=0.2, seed=1)
    return supervise(name, settings, lambda outcome: None, catalogue=CATALOGUE, deadline=deadline)


@pytest.fixture(autouse=True)
def settle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that are left for good are reported after a moment: the children read this."""
    monkeypatch.setenv("TOKIOLOOP_STRESS_SETTLE", "0.1")


def test_a_scenario_that_passes():
    outcome = ends("passes")
    assert (outcome.status, outcome.problems) == ("passed", [])
    result = outcome.result
    assert result["ops"] == result["counts"]["loops"] > 0
    assert 0 < result["p50"] <= result["p99"] <= result["most"] * 1.06
    assert outcome.samples[-1].rss > 1 << 20


def test_a_scenario_that_fails_in_a_thread():
    outcome = ends("fails")
    assert outcome.status == "failed"
    assert outcome.problems[0].strip().endswith("AssertionError: two and two <is> five")
    assert "--scenario fails --loop tokioloop --threads 2 --seconds 0.2 --seed 1" in outcome.command


def test_a_scenario_that_crashes():
    outcome = ends("crashes")
    assert outcome.status == "crashed"
    assert outcome.problems == ["ended by SIGSEGV while it ran"]
    assert "Fatal Python error: Segmentation fault" in outcome.output
    assert "in crashes" in outcome.output


def test_a_scenario_that_hangs_shows_its_stacks_and_leaves_nothing_behind():
    outcome = ends("hangs", deadline=4)
    assert outcome.status == "hung"
    assert outcome.problems == ["still there after 4 s, in phase 'warm-up'"]
    assert "in hangs" in outcome.stacks
    assert "stress reporter" in outcome.stacks or "child.py" in outcome.stacks
    assert "in hangs" not in outcome.output
    started = int(outcome.output.split("started ")[1].split()[0])
    # It was killed with its group; the process that adopted it may not have reaped it yet.
    try:
        end = os.pidfd_open(started)
    except ProcessLookupError:
        return
    assert select.select([end], [], [], 60)[0] == [end]
    os.close(end)


def test_a_frozen_process_is_reported_long_before_the_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parent, "SILENCE", 3.0)
    outcome = ends("freezes")
    assert outcome.status == "hung"
    assert outcome.problems == ["frozen: it reported nothing for 3 s, in phase 'warm-up'"]
    assert "in freezes" in outcome.stacks
    assert re.search("thread .* state S", outcome.stacks)


def test_a_scenario_that_gets_no_further_is_stuck(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parent, "STANDSTILL", 2.0)
    outcome = ends("stands_still")
    assert outcome.status == "hung"
    assert outcome.problems == ["stuck: nothing was done for 2 s, after 1 operations, in phase 'warm-up'"]
    assert "in stands_still" in outcome.stacks


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("crashes", "Fatal Python error: Segmentation fault"),
        ("panics", "thread 'one' panicked at src/some.rs:1:2:"),
    ],
)
def test_a_crash_is_reported_with_the_stacks_of_all_threads(name: str, first: str):
    outcome = ends(name)
    assert outcome.status == "crashed"
    assert outcome.stacks.startswith(first)
    assert f"in {name}" in outcome.stacks and "child.py" in outcome.stacks


def test_the_report_of_a_long_run_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parent, "SAMPLES", 8)
    monkeypatch.setattr(parent, "INTERVAL", 0.01)
    outcome = ends("passes")
    assert outcome.status == "passed"
    assert 4 <= len(outcome.samples) < 8
    times = [sample.at for sample in outcome.samples]
    assert times == sorted(times) and outcome.samples[-1].phase != "start"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leaks_descriptors", "descriptors grew from"),
        ("leaks_a_future", "live objects of tokioloop.Future grew from 1 to 2"),
        ("leaks_a_thread", "threads grew from"),
    ],
)
def test_what_is_left_fails(name: str, said: str):
    outcome = ends(name)
    assert outcome.status == "failed"
    assert any(problem.startswith(said) for problem in outcome.problems), outcome.problems


def test_a_bad_end_of_the_process_is_reported():
    outcome = ends("ends_badly")
    assert (outcome.status, outcome.problems) == ("failed", ["ended with status 3 after its result"])


def test_something_that_a_loop_does_not_offer_is_not_a_failure():
    outcome = ends("is_not_offered")
    assert (outcome.status, outcome.result["notes"]) == ("not offered", ["no loop does this"])


def test_a_scenario_that_does_nothing_has_shown_nothing():
    outcome = ends("does_nothing")
    assert (outcome.status, outcome.problems) == ("failed", ["nothing was done in that time"])


def test_a_run_that_runs_nothing_did_not_pass():
    ran = run_stress("run", "--scenario", "is_not_offered", "--seconds", "0.1", "--catalogue", CATALOGUE)
    assert (ran.returncode, "nothing was run; 1 not offered by the loop" in ran.stdout) == (1, True), (
        ran.stdout
    )


@pytest.mark.parametrize("option", ["--seconds", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_how_much_is_above_zero(option: str, value: str):
    ran = run_stress("run", option, value)
    assert (ran.returncode, option in ran.stderr) == (2, True), ran.stderr


def test_memory_that_grew_is_reported():
    before = left.Left(100 << 20, 120 << 20, blocks=1000, malloc=2 << 20, fds=3, threads=1, objects={})
    assert replace(before, rss=140 << 20, blocks=1500, malloc=5 << 19).growth_over(before) == []
    assert replace(before, rss=200 << 20, blocks=19000, malloc=8 << 20).growth_over(before) == [
        "RSS grew from 100 MiB, 120 at most, to 200 MiB",
        "memory blocks of Python grew from 1000 to 19000",
        "memory of C and Rust grew from 2048 to 8192 KiB",
    ]


def test_memory_in_use_is_counted():
    before = left.Left.now()
    kept = [bytearray(1 << 16) for _ in range(3)] + [bytes(n) for n in range(100)]
    size = 10 << 20
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    memory = ctypes.c_void_p(malloc(ctypes.c_size_t(size)))
    after = left.Left.now()
    ctypes.CDLL(None).free(memory)
    assert after.blocks >= before.blocks + len(kept)
    assert before.malloc + size <= after.malloc < before.malloc + 2 * size


class Balanced(HTMLParser):
    """Fails where elements are not closed in their order, or anything is fetched from elsewhere."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not {"src", "xlink:href"} & {name for name, _ in attrs}
        assert all((value or "").startswith("#") for name, value in attrs if name == "href")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(directory: Path) -> str:
    text = (directory / "index.html").read_text()
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert {"table", "svg", "h2"} <= parser.seen
    assert "url(" not in text and "@import" not in text
    return text


def run_stress(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stress", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_a_run_is_written_down_and_runs_are_compared(tmp_path: Path):
    one, other, both = tmp_path / "one", tmp_path / "other", tmp_path / "both"
    common = ["--threads", "1", "--seconds", "0.5", "--seed", "7", "--catalogue", CATALOGUE]
    ran = run_stress("run", *common, "--scenario", "passes,fails,is_not_offered", "--report", str(one))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "fails on tokioloop failed" in ran.stdout
    assert (
        "again: python -m stress run --scenario fails --loop tokioloop --threads 1 --seconds 0.5 --seed 7"
        in ran.stdout
    )
    report = json.loads((one / "report.json").read_text())
    assert [it["status"] for it in report["results"]] == ["passed", "failed", "not offered"]
    assert {it["seed"] for it in report["results"]} == {7}
    text = check_page(one)
    assert "two and two &lt;is&gt; five" in text and "<is>" not in text

    ran = run_stress("run", *common, "--scenario", "passes", "--loop", "asyncio", "--report", str(other))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = run_stress("compare", str(one), str(other), "--report", str(both))
    assert ran.returncode == 0, ran.stderr
    check_page(both)
    shown = run_stress("table", str(one), str(other)).stdout
    assert "| Scenario | tokioloop | asyncio |" in shown
    assert "| `fails` | **failed**: AssertionError: two and two <is> five | - |" in shown


def test_an_unknown_scenario_or_loop_is_refused():
    ran = run_stress("run", "--scenario", "nothing", "--loop", "none")
    assert ran.returncode == 2
    assert "unknown: none, nothing" in ran.stdout


def test_all_scenarios_of_the_catalogue_are_listed():
    shown = run_stress("list").stdout
    files = Path(record.__file__).parent.joinpath("scenarios").glob("[a-z]*.py")
    assert {line.split()[0] for line in shown.splitlines()} == {path.stem for path in files}
    assert all(len(line.split(maxsplit=1)) == 2 for line in shown.splitlines())


def test_quantiles_of_the_histogram():
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    times = [random.Random(n).uniform(1e-5, 1e-2) for n in range(5000)]
    for it in times:
        histogram.add(it)
    times.sort()
    for share in (0.01, 0.5, 0.99, 1.0):
        exact = times[max(0, int(share * len(times)) - 1)]
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.07)
    assert histogram.since(histogram).quantile(0.5) is None


@pytest.mark.parametrize("most", [0.00037, 0.9, 1, 1.99, 3, 42, 1e6, 7.7e7])
def test_charts_have_a_few_round_steps(most: float):
    step = plot.nice_step(most)
    assert 1.9 <= most / step <= 6
    assert f"{step:.0e}"[0] in "125"


def test_a_chart_is_well_formed():
    show: Callable[[float], str] = lambda value: f"{value:g} <s>"  # noqa: E731 - as the page's own
    text = plot.chart(
        "a & b", [("tokioloop", [(0.0, 1.0), (1.0, 3.0)]), ("asyncio", [(0.5, 0.0), (2.0, 2.0)])], show
    )
    figure = ElementTree.fromstring(text)
    assert len(figure.findall(".//circle")) == 4
    assert page.ORDER.index("passed") < page.ORDER.index("crashed")
