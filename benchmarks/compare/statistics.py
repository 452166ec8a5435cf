"""Estimates a ratio from pairs of measurements, with an interval."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

#: This many resamples give the ends of an interval to a fraction of its width.
RESAMPLES = 4000
#: Fewer for latencies, since each resample adds up histograms.
RESAMPLES_OF_LATENCIES = 1000
CONFIDENCE = 0.95
#: Buckets of latency within a factor of two; each is half a percent wide.
PER_DOUBLING = 140

#: Latencies in microseconds and how often each was seen.
type Latencies = Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio of new to old, and the interval that holds it in 95 of 100 such runs."""

    ratio: float
    low: float
    high: float


def of_pairs(pairs: Sequence[tuple[float, float]], seed: int = 0) -> Interval:
    """The geometric mean of each pair's own ratio, new over old. Raises ValueError without pairs, or where a figure is 0."""
    if not pairs or not all(old > 0 and new > 0 for old, new in pairs):
        raise ValueError("a ratio needs pairs of figures above 0")
    ratios = [math.log(new / old) for old, new in pairs]
    found = _bootstrap(len(pairs), lambda chosen: math.fsum(ratios[i] for i in chosen), RESAMPLES, seed)
    return Interval(*(math.exp(value / len(pairs)) for value in found))


def of_latencies(pairs: Sequence[tuple[Latencies, Latencies]], quantile: float, seed: int = 0) -> Interval:
    """The quantile of all new runs' latencies together over that of all old ones'; resamples draw whole pairs.

    Raises ValueError without pairs, or where a run has no latencies.
    """
    if not pairs or not all(sum(count for _, count in side) for pair in pairs for side in pair):
        raise ValueError("a quantile needs latencies")
    buckets = [tuple(map(_bucketed, pair)) for pair in pairs]
    least = min(min(side) for pair in buckets for side in pair)
    size = max(max(side) for pair in buckets for side in pair) - least + 1
    dense = [tuple(_dense(side, least, size) for side in pair) for pair in buckets]

    def ratio(chosen: Sequence[int]) -> float:
        old, new = (
            _quantile(
                [sum(column) for column in zip(*(dense[i][side] for i in chosen), strict=True)], quantile
            )
            for side in (0, 1)
        )
        return (new - old) / PER_DOUBLING

    found = _bootstrap(len(pairs), ratio, RESAMPLES_OF_LATENCIES, seed)
    return Interval(*(2.0**value for value in found))


def _bootstrap(
    count: int, statistic: Callable[[Sequence[int]], float], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The statistic of all, and its percentiles over resamples of as many, drawn with replacement."""
    chance = random.Random(seed)
    drawn = sorted(statistic(chance.choices(range(count), k=count)) for _ in range(resamples))
    tail = round((1 - CONFIDENCE) / 2 * resamples)
    return statistic(range(count)), drawn[tail], drawn[-1 - tail]


def _bucketed(latencies: Latencies) -> dict[int, int]:
    buckets: dict[int, int] = {}
    for value, count in latencies:
        place = round(math.log2(max(value, 1e-3)) * PER_DOUBLING)
        buckets[place] = buckets.get(place, 0) + count
    return buckets


def _dense(buckets: dict[int, int], least: int, size: int) -> list[int]:
    counts = [0] * size
    for place, count in buckets.items():
        counts[place - least] = count
    return counts


def _quantile(counts: Sequence[int], quantile: float) -> int:
    """The first bucket that, with all before it, has the wanted share."""
    below = list(accumulate(counts))
    return bisect_left(below, quantile * below[-1])
