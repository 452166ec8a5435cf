"""Ratios from pairs, and their intervals."""

import math
import random

import pytest

from benchmarks.compare.statistics import Interval, of_latencies, of_pairs


def noisy(ratio, count, spread, seed):
    """Pairs whose sides share a slowdown, and otherwise differ by chance."""
    chance = random.Random(seed)
    for _ in range(count):
        slow = math.exp(chance.gauss(0, 0.2))
        yield slow * math.exp(chance.gauss(0, spread)), ratio * slow * math.exp(chance.gauss(0, spread))


def test_equal_pairs_have_no_width():
    assert of_pairs([(2.0, 3.0)] * 5) == Interval(*[pytest.approx(1.5)] * 3)


def test_what_slows_both_sides_of_a_pair_cancels_out():
    assert of_pairs([(1.0, 1.1), (10.0, 11.0), (3.0, 3.3)]).high == pytest.approx(1.1)


def test_old_and_new_the_other_way_round_give_the_inverse():
    pairs = list(noisy(1.1, 15, 0.05, 1))
    there, back = of_pairs(pairs), of_pairs([(new, old) for old, new in pairs])
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.low == pytest.approx(1 / back.high, rel=1e-3)


def test_the_interval_holds_the_truth_in_nine_of_ten_runs_and_more():
    held = 0
    for seed in range(100):
        interval = of_pairs(list(noisy(1.03, 15, 0.02, seed)), seed)
        assert interval.low <= interval.ratio <= interval.high
        held += interval.low <= 1.03 <= interval.high
    # 95 in theory; with 15 pairs a percentile bootstrap is a little narrow.
    assert 86 <= held <= 100


def test_more_pairs_make_it_narrower():
    few, many = (of_pairs(list(noisy(1.0, count, 0.03, 3))) for count in (8, 128))
    assert (many.high - many.low) < (few.high - few.low) / 2


def test_the_same_pairs_give_the_same_interval():
    pairs = list(noisy(1.0, 15, 0.03, 4))
    assert of_pairs(pairs) == of_pairs(pairs)


@pytest.mark.parametrize("pairs", [[], [(0.0, 1.0)], [(1.0, 0.0)]])
def test_no_pairs_and_no_time_have_no_ratio(pairs):
    with pytest.raises(ValueError, match="pairs"):
        of_pairs(pairs)


def latencies(scale, seed, count=400):
    chance = random.Random(seed)
    return [(scale * chance.lognormvariate(5, 0.3), 1) for _ in range(count)]


def test_latencies_that_are_a_tenth_longer_are_found_to_be():
    pairs = [(latencies(1.0, seed), latencies(1.1, seed)) for seed in range(15)]
    for quantile in (0.5, 0.99):
        found = of_latencies(pairs, quantile)
        assert found.ratio == pytest.approx(1.1, rel=0.01)
        assert found.low <= found.ratio <= found.high


def test_latencies_are_pooled_and_not_their_quantiles():
    # One run of fifteen has all of the long ones: they are under one in a hundred of all, so p99 does not change.
    short = [(100.0, 100)]
    pairs = [(short, short)] * 14 + [(short, [(100.0, 91), (10_000.0, 9)])]
    assert of_latencies(pairs, 0.99).ratio == 1.0
    assert of_latencies(pairs[-1:], 0.99).ratio == pytest.approx(100, rel=0.01)


def test_how_often_a_latency_was_seen_counts():
    assert of_latencies([([(10.0, 99), (500.0, 1)], [(10.0, 1), (500.0, 99)])], 0.5).ratio == pytest.approx(
        50, rel=0.01
    )


@pytest.mark.parametrize("pairs", [[], [([], [(1.0, 1)])]])
def test_no_latencies_have_no_quantile(pairs):
    with pytest.raises(ValueError, match="latencies"):
        of_latencies(pairs, 0.5)
