"""imap(): order, bounds, early ends."""

import asyncio
import itertools
import threading

import pytest

from ..loop.support import PATIENCE
from .support import Patient


async def double(n):
    await asyncio.sleep(0)
    return 2 * n


def plain(n):
    return 2 * n


async def numbers(count):
    for n in range(count):
        await asyncio.sleep(0)
        yield n


@pytest.mark.parametrize("limit", [None, 1, 2, 7, 1000])
@pytest.mark.parametrize("fn", [double, plain])
def test_results_come_in_order(pool, run, fn, limit):
    async def main():
        assert [got async for got in pool.imap(fn, range(200), limit=limit)] == list(range(0, 400, 2))
        assert [got async for got in pool.imap(fn, numbers(50), limit=limit)] == list(range(0, 100, 2))
        assert [got async for got in pool.imap(fn, [], limit=limit)] == []

    run(main())


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_no_more_than_the_limit_is_under_way(pool, run, limit):
    """Counted from the moment an item is read to the moment its result is taken."""
    read, most = 0, 0

    def items():
        nonlocal read
        for n in range(200):
            read += 1
            yield n

    async def main():
        nonlocal most
        taken = 0
        async for _ in pool.imap(double, items(), limit=limit):
            taken += 1
            most = max(most, read - taken + 1)
        assert taken == 200

    run(main())
    assert most == limit


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_none(pool, run, limit):
    async def main():
        with pytest.raises(ValueError, match="limit"):
            async for _ in pool.imap(double, [1], limit=limit):
                pass

    run(main())


def test_an_endless_iterable(pool, run):
    async def main():
        got = []
        results = pool.imap(double, itertools.count())
        async for result in results:
            got.append(result)
            if len(got) == 100:
                break
        await results.aclose()
        assert got == list(range(0, 200, 2))

    run(main())


def test_an_early_end_cancels_what_is_under_way(pool, run):
    patients = [Patient() for _ in range(4)]

    async def job(n):
        return n if n is None else await patients[n]()

    async def main():
        results = pool.imap(job, [None, 0, 1, 2, 3], limit=5)
        assert await anext(results) is None
        for patient in patients:
            await asyncio.to_thread(patient.wait_for_start)
        await results.aclose()
        for patient in patients:
            await asyncio.to_thread(patient.wait_for_end)
            assert patient.log == ["cancelled"]

    run(main())


def test_an_error_ends_it_and_cancels_the_rest(pool, run):
    patient = Patient()

    async def job(n):
        if n == 2:
            await asyncio.to_thread(patient.wait_for_start)
            raise LookupError(n)
        return n if n < 2 else await patient()

    async def main():
        results = pool.imap(job, range(4), limit=4)
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(LookupError, match="2"):
            await anext(results)
        await asyncio.to_thread(patient.wait_for_end)
        assert patient.log == ["cancelled"]

    run(main())


def test_an_error_of_the_iterable(pool, run):
    def items():
        yield 1
        raise LookupError

    async def async_items():
        yield 1
        raise LookupError

    async def main():
        for iterable in (items(), async_items()):
            results = pool.imap(double, iterable, limit=1)
            assert await anext(results) == 2
            with pytest.raises(LookupError):
                await anext(results)

    run(main())


def test_an_object_that_is_not_iterable(pool, run):
    async def main():
        with pytest.raises(TypeError):
            async for _ in pool.imap(double, 3):
                pass

    run(main())


def test_a_consumer_that_is_cancelled(pool, run):
    patient = Patient()

    async def consume():
        async for _ in pool.imap(lambda n: patient(), [1]):
            pass

    async def main():
        task = asyncio.ensure_future(consume())
        await asyncio.to_thread(patient.wait_for_start)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert patient.log == ["cancelled"]

    run(main())


def test_several_at_once_and_nested(pool, run):
    async def inner(n):
        return sum([got async for got in pool.imap(double, range(n), limit=3)])

    async def consume(n):
        return [got async for got in pool.imap(inner, range(n))]

    async def main():
        results = await asyncio.gather(*(consume(20) for _ in range(3)))
        assert results == [[n * (n - 1) for n in range(20)]] * 3

    run(main())


def test_memory_does_not_grow_with_the_items(pool, run):
    """Each item is alive from its reading to the taking of its result, and no longer."""
    alive, most = 0, 0
    lock = threading.Lock()

    class Item:
        def __init__(self):
            nonlocal alive
            with lock:
                alive += 1

        def __del__(self):
            nonlocal alive
            with lock:
                alive -= 1

    def use(item):
        return type(item)

    async def main():
        nonlocal most
        async for _ in pool.imap(use, (Item() for _ in range(5_000)), limit=32):
            most = max(most, alive)

    run(main())
    # A worker may hold the last ones for a moment longer.
    assert most <= 32 + 2 * 17, most
    pool.shutdown(timeout=PATIENCE)
    assert alive == 0
