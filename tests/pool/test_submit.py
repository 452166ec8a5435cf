"""submit(): what it takes, from where, and what it refuses."""

import asyncio
import functools
import threading
import time

import pytest

import tokioloop

from ..loop.support import PATIENCE
from .support import Blocked


async def double(n):
    await asyncio.sleep(0)
    return 2 * n


class Callable:
    def __call__(this, /, *args, **kwargs):
        return args, kwargs

    async def method(self, n):
        return n + 1


async def with_keywords(*args, **kwargs):
    return args, kwargs


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (int, (), 0),
        (max, (1, 5, 3, 2), 5),
        (lambda *args: args, tuple(range(10)), tuple(range(10))),
        (double, (4,), 8),
        (lambda n: double(n), (4,), 8),
        (functools.partial(double, 4), (), 8),
        (functools.partial(divmod, 7), (2,), (3, 1)),
        (Callable(), (1, 2), ((1, 2), {})),
        (Callable().method, (1,), 2),
        ([1, 2].count, (1,), 1),
        (str.upper, ("a",), "A"),
    ],
)
def test_what_can_be_submitted(pool, fn, args, expected):
    assert pool.submit(fn, *args).result(PATIENCE) == expected
    assert pool.submit(fn, *args, worker=1).result(PATIENCE) == expected


@pytest.mark.parametrize("fn", [Callable(), with_keywords])
def test_keywords_go_to_the_function(pool, fn):
    assert pool.submit(fn, 1, fn=2, self=3, x=4).result(PATIENCE) == ((1,), {"fn": 2, "self": 3, "x": 4})
    assert pool.submit(fn, x=1, worker=1).result(PATIENCE) == ((), {"x": 1})
    assert pool.submit(fn, worker=None).result(PATIENCE) == ((), {})


async def go_on():
    await asyncio.sleep(0)


def make(n):
    return go_on()


@pytest.mark.parametrize(
    ("fn", "shown"),
    [(time.sleep, "<Handle sleep(0)"), (make, "<Handle make(0)"), (double, "<Handle double(0)")],
)
def test_slow_jobs_are_logged_in_debug_mode(one, caplog, fn, shown):
    def debug():
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0

    one.submit(debug).result(PATIENCE)
    one.submit(fn, 0).result(PATIENCE)
    # What is logged of one job is, when the next one runs.
    one.submit(int).result(PATIENCE)
    messages = [record.getMessage() for record in caplog.records]
    assert any(f"Executing {shown}" in message for message in messages), messages


def test_a_job_runs_on_a_workers_loop(pool):
    async def where():
        return asyncio.get_running_loop(), threading.current_thread(), asyncio.current_task() is not None

    for index, worker in enumerate(pool.workers):
        loop, thread, task = pool.submit(where, worker=index).result(PATIENCE)
        assert loop is worker.loop is pool.loops[index]
        assert thread is worker.thread and thread.name == worker.name
        assert task
        assert pool.submit(asyncio.get_running_loop, worker=index).result(PATIENCE) is loop
        assert pool.submit(tokioloop.current_worker, worker=index).result(PATIENCE) is worker
        assert pool.submit(asyncio.current_task, worker=index).result(PATIENCE) is None


def test_current_worker_elsewhere():
    with pytest.raises(RuntimeError, match="not a worker"):
        tokioloop.current_worker()


def test_awaitables_that_are_not_coroutines_are_results(pool):
    class Awaitable:
        def __await__(self):
            yield

    awaitable = Awaitable()
    assert pool.submit(lambda: awaitable).result(PATIENCE) is awaitable

    def generator():
        yield 1

    assert list(pool.submit(generator).result(PATIENCE)) == [1]


@pytest.mark.parametrize("worker", [2, 3, 1 << 40])
def test_a_worker_that_is_none(pool, worker):
    with pytest.raises(IndexError):
        pool.submit(int, worker=worker)


@pytest.mark.parametrize("worker", ["0", 1.5])
def test_a_worker_of_the_wrong_kind(pool, worker):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        pool.submit(int, worker=worker)


def test_bad_arguments(pool):
    with pytest.raises(TypeError, match="fn"):
        pool.submit()
    with pytest.raises(TypeError):
        pool.submit(fn=int)
    with pytest.raises(TypeError, match="not callable"):
        pool.submit(3).result(PATIENCE)
    with pytest.raises(TypeError):
        pool.submit(double).result(PATIENCE)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_a_number_of_threads_that_is_none(threads):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        tokioloop.WorkerPool(threads)


def test_names():
    with tokioloop.WorkerPool(2, name="crew") as pool:
        assert [worker.name for worker in pool.workers] == ["crew-0", "crew-1"]
        assert "workers=2 open" in repr(pool)
    assert "closing" in repr(pool)


def test_from_many_threads(pool):
    def producer(n, got):
        jobs = [pool.submit(double, n * 1000 + i) for i in range(300)]
        got.append([job.result(PATIENCE) for job in jobs] == [2 * (n * 1000 + i) for i in range(300)])

    got = []
    threads = [threading.Thread(target=producer, args=(n, got)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True] * 6


def test_from_workers(pool):
    async def tree(depth):
        if not depth:
            return 1
        left, right = await asyncio.gather(pool.run(tree, depth - 1), pool.run(tree, depth - 1))
        return left + right

    assert pool.submit(tree, 8).result(PATIENCE) == 256


def test_from_another_pools_worker(pool):
    with tokioloop.WorkerPool(2) as other:

        async def there(n):
            return await pool.run(double, n)

        assert list(other.map(there, range(50), timeout=PATIENCE)) == [2 * n for n in range(50)]


def test_pinned_jobs_keep_their_order(pool):
    got = {0: [], 1: []}
    for n in range(500):
        for worker in (0, 1):
            last = pool.submit(got[worker].append, n, worker=worker)
    last.result(PATIENCE)
    pool.submit(int, worker=0).result(PATIENCE)
    assert got == {0: list(range(500)), 1: list(range(500))}


def test_one_worker_begins_in_order(one):
    got = []
    for n in range(500):
        one.submit(got.append, n)
    one.submit(int).result(PATIENCE)
    assert got == list(range(500))


def test_run(pool, run):
    async def main():
        assert await pool.run(double, 4) == 8
        assert await pool.run(divmod, 7, 2, worker=1) == (3, 1)
        assert await pool.run(with_keywords, 1, x=2) == ((1,), {"x": 2})
        assert await asyncio.gather(*(pool.run(double, n) for n in range(300))) == [2 * n for n in range(300)]
        with pytest.raises(IndexError):
            await pool.run(int, worker=2)

    run(main())


def test_map(pool):
    assert list(pool.map(double, range(100))) == [2 * n for n in range(100)]
    assert list(pool.map(max, [1, 5], [4, 2], timeout=PATIENCE)) == [4, 5]


def test_map_times_out_and_cancels(one):
    blocked = Blocked(one)
    results = one.map(int, [1, 2], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    blocked.release()


def test_stats(one, blocked):
    waiting = [one.submit(int) for _ in range(10)]
    stats = one.stats()
    assert stats.waiting == 10 and stats.workers[0].begun == 1
    blocked.release()
    for job in waiting:
        job.result(PATIENCE)
    assert one.stats().waiting == 0 and one.stats().workers[0].begun == 11


def test_after_shutdown(pool, run):
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int, worker=0)

    async def main():
        with pytest.raises(RuntimeError, match="after shutdown"):
            await pool.run(int)

    run(main())


@pytest.mark.parametrize("worker", [-1, 2, 1 << 40])
def test_no_such_worker(pool, worker):
    with pytest.raises(IndexError, match="from 0 to 1"):
        pool.submit(int, worker=worker)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(threads):
    with pytest.raises(ValueError, match="at least 1"):
        tokioloop.WorkerPool(threads)


def test_a_derived_class_may_have_other_arguments():
    class Database(tokioloop.WorkerPool):
        def __init__(self, address, size):
            self.address = address
            super().__init__(size, name=address)

    class Forgetful(tokioloop.WorkerPool):
        def __init__(self):
            pass

    with Database("database", 3) as pool:
        assert [worker.name for worker in pool.workers] == ["database-0", "database-1", "database-2"]
        assert pool.submit(int, "7").result(PATIENCE) == 7
    with pytest.raises(RuntimeError, match="__init__"):
        Forgetful().submit(int)
    with pytest.raises(RuntimeError, match="already"):
        pool.__init__("again", 1)
