"""The growth series: the sizes that can be measured, and the charts."""

import asyncio
import re

import pytest

from benchmarks import growth, growth_chart
from benchmarks.growth import Means
from benchmarks.rows import split, variants
from benchmarks.rows.growth import SERIES
from benchmarks.summary import Summary

PLENTY = Means(descriptors=100_000, memory=64 << 30)
ECHO = SERIES[0]


def test_every_size_runs_where_there_is_enough():
    names, left_out = growth.possible(PLENTY, quick=False)
    assert left_out == []
    assert "growth_echo:10000" in names and "growth_tasks_running:1000000" in names


def test_sizes_beyond_the_limits_of_descriptors_and_memory_are_left_out_and_named():
    names, left_out = growth.possible(Means(descriptors=4096, memory=2 << 30), quick=False)
    assert "growth_echo:1000" in names and "growth_echo:10000" not in names
    assert "growth_timer_fire:1000000" in names and "growth_tasks_pending:1000000" not in names
    assert any(
        "10,000 connections: not possible" in line and "4,096 descriptors" in line for line in left_out
    )
    assert len(left_out) == 3


def test_a_quick_run_leaves_out_the_largest_size():
    names, left_out = growth.possible(PLENTY, quick=True)
    assert len(names) == sum(len(series.sizes) - 1 for series in SERIES)
    assert len(left_out) == len(SERIES)


def test_growth_rows_are_found_by_name_and_are_not_in_the_tables():
    assert split("growth_echo:100")[0].load[-1] == "100"
    assert not any(name.startswith("growth_") for name in variants())


@pytest.mark.parametrize(
    "series", [series for series in SERIES if series is not ECHO], ids=lambda series: series.name
)
def test_a_small_size_is_measured(series):
    row = series.row("small", "small", 10)
    assert row.special is not None
    found = row.special(asyncio.SelectorEventLoop, 1_000)
    assert found["ops"] >= 1_000 and found["cpu_us"] > 0


def test_a_power_of_ten_is_as_wide_as_another_and_height_is_the_figure(results):
    found = results()
    for size, value in ((1, 4.0), (10, 2.0), (100, 1.0)):
        found.measured(f"growth_echo:{size}", tokioloop=value)
    svg = growth_chart.charts(Summary(found.document))["growth_echo.svg"]
    [points] = re.findall(r'<polyline class="tokioloop" points="([^"]*)"', svg)
    (x1, y1), (x2, y2), (x3, y3) = [map(float, point.split(",")) for point in points.split()]
    assert x2 - x1 == pytest.approx(x3 - x2)
    zero = growth_chart.HEIGHT - growth_chart.BOTTOM
    assert (zero - y1) == pytest.approx(2 * (zero - y2), abs=0.2) == pytest.approx(4 * (zero - y3), abs=0.3)


@pytest.mark.parametrize(("size", "label"), [(1, "1"), (100, "100"), (1_000, "1k"), (1_000_000, "1M")])
def test_sizes_are_labelled_shortly(size, label):
    assert growth_chart.short(size) == label
