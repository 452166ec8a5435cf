"""The command that compares two builds: how rows are compared, and the verdicts."""

import json
import sys

import pytest

from benchmarks import __main__ as commands
from benchmarks import compare
from benchmarks.compare import instructions, pairs, report
from benchmarks.compare.statistics import Interval
from benchmarks.compare.verdict import Verdict, exact
from benchmarks.rows import ROWS, variants


@pytest.mark.parametrize(
    ("variant", "way"),
    [
        ("call_soon_burst", "instructions"),
        ("timer_fire", "instructions"),
        ("pool_submit", "instructions"),
        ("loop_create_close", "instructions"),
        ("call_soon_burst@2", "pairs"),
        ("executor", "pairs"),
        ("echo_protocol", "pairs"),
        ("tls_echo", "pairs"),
        ("pool_steal", "pairs"),
        ("serve_shared_2", "pairs"),
        ("idle_loop_bytes", "memory"),
        ("pending_task_bytes", "memory"),
    ],
)
def test_a_row_is_compared_in_the_way_that_repeats_best(variant, way):
    assert compare.way(variant) == way


def test_every_scheduling_row_that_stays_in_one_thread_is_counted():
    assert {row.name for row in ROWS.values() if row.group == "scheduling"} - {"executor"} == {
        row.name for row in ROWS.values() if row.group == "scheduling" and row.counted
    }


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.counted], ids=lambda row: row.name)
def test_the_sizes_of_a_counted_row_are_far_apart(row):
    small, large = instructions.sizes(row)
    assert small > 0 and large >= 10 * small


@pytest.mark.parametrize(
    ("interval", "state"),
    [
        ((0.99, 0.98, 1.01), "pass"),
        ((1.0, 0.99, 1.02), "pass"),
        ((1.01, 1.005, 1.015), "pass"),
        ((1.01, 0.99, 1.03), "open"),
        ((1.01, 1.001, 1.03), "slower"),
        ((1.2, 1.1, 1.3), "slower"),
    ],
)
def test_the_whole_interval_has_to_be_below_the_bound(interval, state):
    assert Verdict("a", "cpu_us", 1.0, 1.0, Interval(*interval), 1.02).state == state


def test_what_is_exact_may_not_grow_at_all():
    assert exact("a", "blocks", 3.0, 3.0).state == "pass"
    assert exact("a", "blocks", 3.0, 2.5).state == "pass"
    assert exact("a", "blocks", 3.0, 3.0005).state == "slower"
    assert exact("a", "blocks", 0.0, 0.0).state == "pass"
    assert exact("a", "blocks", 0.0, 1.0).state == "slower"


def counter(each):
    """A counter that reports *each*, an expression of `n`, for any command."""
    code = f"import os, sys; n = int(sys.argv[-1]); old = os.environ['SIDE'] == 'old'; print('Collected :', {each}, file=sys.stderr)"
    return instructions.Counter("fake", (sys.executable, "-c", code), r"Collected : (\d+)")


SIDES = ({"SIDE": "old"}, {"SIDE": "new"})


def together(jobs):
    return [job() for job in jobs]


def test_instructions_an_operation_are_the_difference_of_two_runs():
    able = [counter("100000 + n * (400 if old else 402)")]
    found = instructions.compare(ROWS["call_soon_burst"], able, SIDES, 2, together)
    assert (found.old, found.new, found.state) == (400, 402, "pass")
    assert found.interval == Interval(*[pytest.approx(1.005)] * 3)
    worse = instructions.compare(
        ROWS["call_soon_burst"], [counter("n * (400 if old else 410)")], SIDES, 1, together
    )
    assert (worse.old, worse.new, worse.state) == (400, 410, "slower")


def test_repeats_that_differ_leave_it_open():
    found = instructions.judge("a", "fake", [100.0, 103.0], [100.0, 103.0])
    assert found.interval is not None and found.interval.low < 0.97 and found.interval.high > 1.03
    assert found.state == "open"
    more = instructions.judge("a", "fake", [100.0, 103.0] * 50, [100.0, 103.0] * 50)
    assert more.state == "pass"


def test_a_row_that_one_counter_cannot_run_is_run_by_the_next():
    broken = instructions.Counter("broken", ("false",), r"(\d+)")
    found = instructions.compare(ROWS["sleep0_1"], [broken, counter("n * 5")], SIDES, 1, together)
    assert (found.figure, found.old) == ("instructions, fake", 5)
    with pytest.raises(RuntimeError, match="broken: exit status 1"):
        instructions.compare(ROWS["sleep0_1"], [broken], SIDES, 1, together)
    with pytest.raises(RuntimeError, match="neither valgrind nor"):
        instructions.compare(ROWS["sleep0_1"], [], SIDES, 1, together)


def test_a_counter_that_is_not_there_does_not_work():
    assert not instructions.Counter("none", ("no-such-program",), r"(\d+)").works({})
    assert not instructions.Counter("silent", ("env",), r"Collected : (\d+)").works({"PATH": "/usr/bin:/bin"})


def pair(old, new):
    return old, new


def test_a_served_row_has_cpu_and_two_latencies():
    side = {"cpu_us": 5.0, "p50_us": 100.0, "p99_us": 200.0, "latencies_us": [[100.0, 98], [200.0, 2]]}
    found = pairs.judge("echo_protocol", [pair(side, side | {"cpu_us": 6.0})] * 3)
    assert [(v.figure, v.state, v.bound) for v in found] == [
        ("cpu_us", "slower", 1.02),
        ("p50_us", "pass", 1.05),
        ("p99_us", "pass", 1.05),
    ]


def test_a_row_without_cpu_is_judged_by_its_own_figure():
    found = pairs.judge("pool_steal", [pair({"latency_us": 2.0}, {"latency_us": 1.9})] * 3)
    assert [(v.figure, v.state, v.bound) for v in found] == [("latency_us", "pass", 1.05)]


def test_of_memory_the_least_of_all_runs_counts():
    runs = [
        ({"bytes": old, "blocks": 3.0}, {"bytes": new, "blocks": 4.0})
        for old, new in [(900, 700), (600, 601)]
    ]
    found = {v.figure: v for v in pairs.judge("idle_loop_bytes", runs)}
    assert (found["bytes"].old, found["bytes"].new, found["bytes"].state) == (600, 601, "pass")
    assert found["blocks"].state == "slower"


def test_old_and_new_begin_in_turns(monkeypatch):
    begun = []

    def measure(variant, name, seconds, hang, *options, environment):
        begun.append((environment["SIDE"], options))
        return {"cpu_us": 1.0}

    monkeypatch.setattr(pairs, "measure", measure)
    assert len(list(pairs.run("http", SIDES, 3, 0.1))) == 3
    assert [side for side, _ in begun] == ["old", "new", "new", "old", "old", "new"]
    assert {options for _, options in begun} == {("--latencies",)}


def document(**others):
    return {
        "environment": {
            "python": "3.13.9",
            "free_threaded": True,
            "system": "Linux 6.0",
            "cpu": "An Example Processor",
            "cores": 2,
            "load_average": [0.25],
            "date": "2026-01-02 03:04",
        },
        "plan": {"pairs": 15, "seconds": 0.3, "repeats": 2},
        "command": "python -m benchmarks compare",
        "old": "an old one",
        "new": "the tree",
    } | others


VERDICTS = [
    Verdict("http", "cpu_us", 10.0, 10.1, Interval(1.01, 1.005, 1.015), 1.02),
    Verdict("connect", "cpu_us", 10.0, 11.0, Interval(1.1, 1.05, 1.15), 1.02),
    exact("idle_loop_bytes", "blocks", 3.0, 3.0),
    Verdict("run_on", "instructions", why="callgrind: crashed"),
]


def test_the_table_has_the_verdict_on_each_figure():
    text = report.markdown(document(), VERDICTS)
    assert "| `http` | cpu_us | 10.0 | 10.1 | 1.0100 | 1.0050 to 1.0150 | 1.02 | pass |" in text
    assert "| `connect` | cpu_us | 10.0 | 11.0 | 1.1000 | 1.0500 to 1.1500 | 1.02 | **slower** |" in text
    assert "| `idle_loop_bytes` | blocks | 3.00 | 3.00 | 1.0000 | - | 1 | pass |" in text
    assert "| `run_on` | instructions | - | - | - | - | - | **failed** |" in text
    assert "4 figures: 2 pass, 1 slower, 1 failed." in text
    assert "- `run_on`: callgrind: crashed" in text
    assert "- old: an old one\n- new: the tree\n" in text
    assert "- open:" not in text


@pytest.mark.parametrize(("verdicts", "status"), [(VERDICTS, 1), (VERDICTS[:1], 0), ([], 1)])
def test_the_status_is_0_only_where_all_hold(tmp_path, verdicts, status):
    made = document(verdicts=[verdict.as_json() for verdict in verdicts])
    assert compare.write(made, verdicts, tmp_path / "out") == status
    assert [v["state"] for v in json.loads((tmp_path / "out/results.json").read_text())["verdicts"]] == [
        verdict.state for verdict in verdicts
    ]
    assert (tmp_path / "out/results.md").read_text().startswith("# New against old\n")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs `compare` with arguments; returns its plan instead of measuring."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def instead(old, new, plan):
        asked.append((old, new, plan))
        return document(verdicts=[]), VERDICTS[:1]

    monkeypatch.setattr(compare, "compare", instead)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", "compare", *arguments])
        return commands.main(), *asked[-1]

    return run


def test_by_default_the_tree_is_compared_with_the_old_one_in_all_rows(command):
    status, old, new, plan = command("--old", "v1")
    assert (status, old, new) == (0, "v1", ".")
    assert (plan.variants, plan.ways, plan.pairs) == (variants(), compare.WAYS, 15)


def test_rows_and_ways_can_be_chosen(command):
    _, _, new, plan = command("--old", "v1", "--new", "v2", "--rows", "http,sleep0_*", "--by", "instructions")
    assert new == "v2" and plan.ways == ("instructions",)
    assert "sleep0_1" in plan.variants and "connect" not in plan.variants


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "guessing"),
        ("--pairs", "5"),
        ("--repeats", "0"),
        ("--seconds", "0"),
        ("--rows", "no_such_row"),
        (),
    ],
)
def test_what_cannot_be_done_is_refused(command, arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        command(*arguments, *(("--old", "v1") if arguments else ()))
    assert raised.value.code == 2
    assert "error:" in capsys.readouterr().err
