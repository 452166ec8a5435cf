"""The document: made-up results give these tables, the shortfalls first."""

import json
import re
from xml.etree import ElementTree

import pytest

from benchmarks import performance
from benchmarks.rows.why import why


@pytest.fixture
def written(results, tmp_path):
    """Writes the given results and growth of each run, and returns the document's path and text."""

    def write(*runs):
        paths = []
        for number, (found, growth) in enumerate(runs):
            directory = tmp_path / str(number)
            directory.mkdir(exist_ok=True)
            (directory / "results.json").write_text(json.dumps(found.document))
            if growth:
                (directory / "growth.json").write_text(json.dumps(growth.document))
            paths.append(directory / "results.json")
        out = tmp_path / "docs" / "performance.md"
        performance.write(performance.load(paths), out)
        return out, out.read_text()

    return write


@pytest.fixture
def run(results):
    found = results()
    found.measured("echo_protocol", over_floor=1.5, asyncio=30.0, uvloop=12.5, tokioloop=25.0, floor=10.0)
    found.measured("http", over_floor=1.1, asyncio=44.0, uvloop=33.0, tokioloop=22.0, floor=20.0)
    found.measured("call_soon_chain", asyncio=3.0, uvloop=1.0, rloop=0.125, tokioloop=0.25)
    found.measured("gather_100k", asyncio=8.0, uvloop=6.0, tokioloop=5.0)
    found.measured("new_loop_bytes", figure="bytes", uvloop=350000.0, tokioloop=777.0)
    return found


@pytest.fixture
def growth(results):
    found = results()
    for size, uvloop, tokioloop in ((1, 20.0, 16.0), (10, 10.0, 9.0), (1000, 6.0, 4.0)):
        found.measured(f"growth_echo:{size}", uvloop=uvloop, tokioloop=tokioloop)
    found.document["left_out"] = [
        "echo, 10,000 connections: not possible: a process may have 1,024 descriptors"
    ]
    return found


def section(text, heading):
    """The text below a heading, up to the next one of its level or higher."""
    level = heading.split(" ")[0]
    [start] = [match.end() for match in re.finditer(rf"^{re.escape(heading)}.*$", text, re.MULTILINE)]
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start:], re.MULTILINE)
    return text[start : start + end.start()] if end else text[start:]


def cells(text, row):
    [line] = [line for line in text.splitlines() if line.startswith(f"| `{row}`")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_shortfalls_come_first_with_the_figure_reached_and_the_reason(written, run):
    _, text = written((run, None))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## What falls short", "## The runs", "## All rows, 3.13t"]
    short = section(text, "## What falls short")
    assert "### 3.13t: 3 of 5 rows" in short
    assert cells(short, "echo_protocol")[1:] == [
        "uvloop / 1.05; floor x 1.06",
        "0.500x; x 1.500",
        why("echo_protocol"),
    ]
    assert cells(short, "call_soon_chain")[1:3] == ["no worse than rloop", "2.000 of its figure"]
    assert "collector" in cells(short, "gather_100k")[3]
    assert "`http`" not in short


def test_all_rows_are_in_their_group_with_all_columns(written, run):
    _, text = written((run, None))
    network = section(text, "### Network")
    head = next(line for line in network.splitlines() if line.startswith("| Row"))
    assert head == (
        "| Row, us CPU | asyncio | uvloop | tokioloop | floor | to uvloop | over the floor | target | reached |"
    )
    assert cells(network, "echo_protocol")[1:] == [
        *("30.0", "12.5", "25.0", "10.0", "0.50x", "+50%", "uvloop / 1.05, floor x 1.06", "**no**"),
    ]
    assert cells(network, "http")[1:] == [
        *("44.0", "33.0", "22.0", "20.0", "1.50x", "+10%", "uvloop / 1.15, floor x 1.2", "yes"),
    ]
    # A column for each loop that has a figure in the group, and no other.
    assert "| rloop |" not in network
    assert "| rloop |" in section(text, "### Scheduling")
    assert cells(section(text, "### Loops"), "new_loop_bytes")[1:4] == ["350,000", "777", "450.45x"]


def test_a_target_that_could_not_be_judged_is_marked(written, results):
    _, text = written((results().measured("connect", tokioloop=5.0, floor=4.0), None))
    assert cells(section(text, "### Network"), "connect")[-5:] == [
        *("4.00", "-", "+25%", "uvloop / 1.05, floor x 1.06", "**no**"),
    ]
    _, text = written((results().measured("connect", tokioloop=4.0, floor=4.0), None))
    assert cells(section(text, "### Network"), "connect")[-1] == "not measured"


def test_the_run_says_where_when_and_with_what_it_was_made(written, run):
    _, text = written((run, None))
    about = section(text, "## The runs")
    for part in (
        "CPython 3.13.9 (free-threaded)",
        "An Example Processor",
        "2026-01-02 03:04",
        "2 rounds of 0.5 s",
    ):
        assert part in about
    assert "- uvloop: 0.77" in about
    assert "- zuvloop: left out: no module" in about


def test_two_interpreters_share_one_document(written, run, growth, results):
    other = results(python="3.14.1").measured("echo_protocol", over_floor=1.0, uvloop=11.0, tokioloop=10.0)
    _, text = written((other, None), (run, growth))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[2:] == ["## All rows, 3.13t", "## How cost grows, 3.13t", "## All rows, 3.14t"]
    assert "### 3.14t: 0 of 1 rows\n\nNone.\n" in text
    assert cells(section(text, "## All rows, 3.14t"), "echo_protocol")[1:4] == ["11.0", "10.0", "1.10x"]


def test_one_interpreter_twice_is_refused(written, run):
    with pytest.raises(ValueError, match="two runs of 3.13t"):
        written((run, None), (run, None))


def test_growth_is_shown_by_size_with_the_sizes_left_out(written, run, growth):
    _, text = written((run, growth))
    found = section(text, "## How cost grows, 3.13t")
    assert "| connections | 1 | 10 | 1,000 | grown |" in found
    assert "| uvloop | 20.0 | 10.0 | 6.00 | x0.30 |" in found
    assert "| tokioloop | 16.0 | 9.00 | 4.00 | x0.25 |" in found
    assert "a process may have 1,024 descriptors" in found
    assert "timers pending" not in found


def test_every_chart_is_a_file_that_is_read_in_light_and_dark(written, run, growth):
    out, text = written((run, growth))
    linked = re.findall(r"!\[[^]]*]\(([^)]*)\)", text)
    assert "performance/3.13t/network.svg" in linked and "performance/3.13t/growth_echo.svg" in linked
    there = {str(path.relative_to(out.parent)) for path in out.parent.rglob("*.svg")}
    assert set(linked) == there
    for name in linked:
        chart = (out.parent / name).read_text()
        ElementTree.fromstring(chart)
        assert "prefers-color-scheme:dark" in chart
        assert re.findall(r"href|src=|url\(|@import", chart) == []


def test_charts_that_are_no_longer_used_are_deleted(written, run):
    out, _ = written((run, None))
    stale = out.with_suffix("") / "3.12" / "network.svg"
    stale.parent.mkdir()
    stale.write_text("<svg/>")
    written((run, None))
    assert not stale.exists()
    assert (out.with_suffix("") / "3.13t" / "network.svg").exists()


def test_a_failure_is_named_in_place_of_its_figure(written, run):
    run.failed("connect", "tokioloop", "a | b\nc").failed("connect", "uvloop", "hung for 20 s")
    _, text = written((run, None))
    assert cells(section(text, "## What falls short"), "connect")[2] == "failed: a \\| b c"
    assert cells(section(text, "### Network"), "connect")[-1] == "**failed**"
    assert "- `connect` on uvloop: hung for 20 s" in text
