"""Jobs that wait with a worker that can't do them are done by another, unless they are pinned."""

import asyncio
import threading

import pytest

import tokioloop

from ..loop.support import PATIENCE
from .support import Blocked, Patient


def index():
    return tokioloop.current_worker().index


def test_jobs_behind_a_blocked_worker(pool):
    blocked = Blocked(pool)
    assert {pool.submit(index).result(PATIENCE) for _ in range(100)} == {1}
    blocked.release()


def test_jobs_that_a_worker_had_taken(pool):
    """They come in one batch with the job that blocks, so they wait in that worker's own queue."""
    gates = [Blocked(pool, worker=0), Blocked(pool, worker=1)]
    inside, go = threading.Event(), threading.Event()

    def block():
        inside.set()
        assert go.wait(PATIENCE)
        return index()

    blocker = pool.submit(block)
    behind = [pool.submit(index) for _ in range(10)]
    gates[0].release()
    assert inside.wait(PATIENCE)
    gates[1].release()
    assert [job.result(PATIENCE) for job in behind] == [1] * 10
    go.set()
    assert blocker.result(PATIENCE) == 0
    assert pool.stats().workers[1].stolen >= 1


def test_what_a_worker_submits_itself_is_stolen(pool):
    other = Blocked(pool, worker=1)

    def submit_and_wait():
        jobs = [pool.submit(index) for _ in range(50)]
        other.release()
        return [job.result(PATIENCE) for job in jobs]

    assert pool.submit(submit_and_wait, worker=0).result(2 * PATIENCE) == [1] * 50


def test_pinned_jobs_are_not_stolen(pool):
    blocked = Blocked(pool, worker=0)
    pinned = [pool.submit(index, worker=0) for _ in range(50)]
    assert [pool.submit(index).result(PATIENCE) for _ in range(50)] == [1] * 50
    assert not any(job.done() for job in pinned)
    blocked.release()
    assert [job.result(PATIENCE) for job in pinned] == [0] * 50


def test_a_coroutine_stays_where_it_began(pool):
    """Its worker is blocked while it could go on; the other one, idle, leaves it alone."""
    patient = Patient()

    async def where():
        before = index()
        await patient()
        return before, index()

    job = pool.submit(where)
    patient.wait_for_start()
    blocked = Blocked(
        pool, worker=pool.workers.index(next(w for w in pool.workers if w.loop is patient._loop))
    )
    patient.let_go()
    assert pool.submit(int).result(PATIENCE) == 0
    assert not job.done()
    blocked.release()
    before, after = job.result(PATIENCE)
    assert before == after


@pytest.mark.parametrize("count", [2, 4, 8])
def test_as_many_functions_at_once_as_workers(count):
    """Each waits for all: they end only if every worker takes one, whatever batches they were taken in."""
    with tokioloop.WorkerPool(count) as pool:
        for _ in range(100):
            barrier = threading.Barrier(count)
            jobs = [pool.submit(barrier.wait, PATIENCE) for _ in range(count)]
            assert sorted(job.result(PATIENCE) for job in jobs) == list(range(count))


def test_coroutines_that_wait_for_each_other_on_one_worker(one):
    """A coroutine that waits does not keep its worker from beginning the next."""
    arrived = []
    everybody = asyncio.Event()

    async def meet():
        arrived.append(1)
        if len(arrived) == 100:
            everybody.set()
        await everybody.wait()
        return len(arrived)

    jobs = [one.submit(meet) for _ in range(100)]
    assert [job.result(PATIENCE) for job in jobs] == [100] * 100


def test_a_stream_of_jobs_does_not_starve_a_coroutine(one):
    """The worker begins some jobs each turn, and what it began before has its turns too."""
    ended = threading.Event()

    async def slow():
        for _ in range(1000):
            await asyncio.sleep(0)
        ended.set()

    def again():
        if not ended.is_set():
            one.submit(again)

    one.submit(again)
    one.submit(slow).result(PATIENCE)


def test_a_worker_that_feeds_itself_does_not_starve_jobs_from_outside(one):
    ended = threading.Event()

    def again():
        if not ended.is_set():
            one.submit(again)
            one.submit(int)

    one.submit(again)
    one.submit(ended.set).result(PATIENCE)
