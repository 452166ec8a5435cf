"""Timers: never early, in order, and cancelled ones do not pile up."""

import asyncio
import gc
import math
import resource

import pytest


def test_never_early(loop):
    early = []
    left = 300

    def check(when):
        nonlocal left
        if loop.time() < when:
            early.append(loop.time() - when)
        left -= 1
        if not left:
            loop.stop()

    now = loop.time()
    for n in range(300):
        when = now + n * 0.000123457
        loop.call_at(when, check, when)
    loop.run_forever()
    assert early == []


def test_equal_deadlines_run_in_the_order_they_were_set(loop):
    got = []
    when = loop.time() + 0.01
    for n in range(500):
        loop.call_at(when, got.append, n)
    loop.call_at(when, loop.stop)
    loop.run_forever()
    assert got == list(range(500))


def test_earlier_deadlines_run_first_whatever_the_order_of_setting(loop):
    got = []
    now = loop.time()
    for n in (5, 1, 4, 2, 3, 0):
        loop.call_at(now + n / 10_000, got.append, n)
    loop.call_at(now + 0.002, loop.stop)
    loop.run_forever()
    assert got == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("delay", [0, -1, -1e300, -math.inf, 1e-12, False])
def test_what_is_due_at_once(loop, delay):
    loop.call_later(delay, loop.stop)
    loop.run_forever()
    assert not loop.is_running()


@pytest.mark.parametrize("delay", [math.inf, 1e300, 1e12, 1e9, 2**62])
def test_what_is_not_due_in_our_time(loop, turn, delay):
    got = []
    timer = loop.call_later(delay, got.append, 1)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert got == [] and not timer.cancelled()
    timer.cancel()
    turn()


def test_a_far_timer_does_not_hide_a_near_one(loop):
    loop.call_later(math.inf, print)
    loop.call_at(1e18, print)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert not loop.is_running()


@pytest.mark.parametrize("delay", [None, "1", 1j, object()])
def test_a_delay_that_is_not_a_number(loop, delay):
    with pytest.raises(TypeError):
        loop.call_later(delay, print)
    with pytest.raises(TypeError):
        loop.call_at(delay, print)


def test_an_object_that_fails_to_be_a_number(loop):
    class Bad:
        def __float__(self):
            raise LookupError("no")

    with pytest.raises(LookupError):
        loop.call_later(Bad(), print)


def test_cancelled_timers_do_not_pile_up(loop):
    class Payload:
        alive = 0

        def __init__(self):
            Payload.alive += 1

        def __del__(self):
            Payload.alive -= 1

        def __call__(self):
            pass

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    live = [loop.call_later(1000, print) for _ in range(10)]
    for n in range(100_000):
        loop.call_later(500 + n, Payload(), Payload()).cancel()
    assert Payload.alive == 0
    # A timer is above 100 bytes: kept ones would be 10 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
    assert not any(timer.cancelled() for timer in live)


def test_cancelling_in_waves_keeps_the_live_ones(loop):
    got = []
    now = loop.time()
    kept = []
    for n in range(5000):
        timer = loop.call_at(now + n * 1e-7, got.append, n)
        if n % 7:
            timer.cancel()
        else:
            kept.append(n)
    loop.call_at(now + 0.001, loop.stop)
    loop.run_forever()
    assert got == kept


def test_a_timer_cancelled_by_an_earlier_one_of_the_same_turn(loop):
    got = []
    when = loop.time()
    loop.call_at(when, lambda: timer.cancel())
    timer = loop.call_at(when, got.append, 1)
    loop.call_at(when, loop.stop)
    loop.run_forever()
    assert got == []


def test_only_cancelled_timers_are_left(loop):
    timers = [loop.call_later(0.0001 * n, print) for n in range(1, 20)]
    for timer in timers:
        timer.cancel()
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert not any(timer._scheduled for timer in timers)


def test_a_timer_that_sets_itself_again(loop):
    count = 0

    def again():
        nonlocal count
        count += 1
        if count == 1000:
            loop.stop()
        else:
            loop.call_later(0, again)

    again()
    loop.run_forever()
    assert count == 1000


def test_when_is_what_was_asked_for(loop):
    assert loop.call_at(123.456, print).when() == 123.456
    before = loop.time()
    when = loop.call_later(5, print).when()
    assert before + 5 <= when <= loop.time() + 5


def test_cancelling_from_the_destructor_of_a_cancelled_timer(loop):
    class Chain:
        def __init__(self, timer):
            self.timer = timer

        def __del__(self):
            self.timer.cancel()

        def __call__(self):
            pass

    timer = loop.call_later(100, print)
    for _ in range(500):
        timer = loop.call_later(100, Chain(timer))
    timer.cancel()
    gc.collect()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert timer.cancelled()


def test_short_sleeps_do_not_keep_the_loop_turning(loop, run):
    async def main():
        for delay in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10):
            await asyncio.sleep(delay)

    before = loop._metrics()["turns"]
    run(main())
    assert loop._metrics()["turns"] - before <= 20
