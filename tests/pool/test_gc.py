"""Dropped objects are freed: jobs, their cycles, loops, and pools that were never shut down."""

import asyncio
import gc
import threading
import weakref

import pytest

import tokioloop
from tokioloop._pool.job import JobFuture

from ..loop.support import PATIENCE, collected
from .support import Patient


class Value:
    pass


async def coroutine(value):
    await asyncio.sleep(0)
    return value


def plain(value):
    return value


def jobs_alive():
    gc.collect()
    return sum(type(thing) is JobFuture for thing in gc.get_objects())


@pytest.mark.parametrize("fn", [plain, coroutine])
def test_a_job_and_what_it_holds_go(one, fn):
    value = Value()
    job = one.submit(fn, value)
    assert job.result(PATIENCE) is value
    one.submit(int).result(PATIENCE)
    gone = [weakref.ref(value), weakref.ref(job)]
    del value, job
    assert all(collected(reference) for reference in gone)


def test_arguments_go_when_the_job_is_done(one):
    value = Value()
    job = one.submit(id, value)
    job.result(PATIENCE)
    one.submit(int).result(PATIENCE)
    gone = weakref.ref(value)
    del value
    assert collected(gone)


def test_arguments_go_when_the_job_is_cancelled(one):
    release = threading.Event()
    one.submit(release.wait, PATIENCE)
    value = Value()
    job = one.submit(id, value)
    job.cancel()
    gone = weakref.ref(value)
    del value
    assert collected(gone)
    release.set()


def test_a_job_in_a_cycle_with_its_callback(one):
    release = threading.Event()
    one.submit(release.wait, PATIENCE)
    job = one.submit(int)
    job.add_done_callback(lambda done, job=job: None)
    job.itself = job
    gone = weakref.ref(job)
    release.set()
    job.result(PATIENCE)
    one.submit(int).result(PATIENCE)
    del job
    assert collected(gone)


def test_a_job_whose_result_is_itself(one):
    box = []
    release = threading.Event()

    def wait_and_return():
        assert release.wait(PATIENCE)
        return box.pop()

    box.append(one.submit(wait_and_return))
    job = box[0]
    release.set()
    assert job.result(PATIENCE) is job
    one.submit(int).result(PATIENCE)
    gone = weakref.ref(job)
    del job
    assert collected(gone)


def test_many_jobs_leave_none_behind():
    with tokioloop.WorkerPool(2) as pool:
        before = jobs_alive()
        for fn in (plain, coroutine):
            for job in [pool.submit(fn, n) for n in range(2000)]:
                job.result(PATIENCE)
        for job in [pool.submit(coroutine, n) for n in range(2000)]:
            job.cancel()
        job = None
    assert jobs_alive() == before


def test_pools_and_loops_go_after_shutdown():
    gone = []
    for _ in range(5):
        with tokioloop.WorkerPool(2) as pool:
            pool.submit(coroutine, 1).result(PATIENCE)
            gone += [weakref.ref(pool), *map(weakref.ref, pool.loops)]
        del pool
    assert all(collected(reference) for reference in gone)
    assert not [loop for loop in tokioloop.loops() if loop in [reference() for reference in gone]]


def test_a_pool_that_is_dropped_ends():
    """As with a ThreadPoolExecutor: the submitted jobs are done, then its threads end."""
    pool = tokioloop.WorkerPool(2)
    threads = [worker.thread for worker in pool.workers]
    jobs = [pool.submit(coroutine, n) for n in range(100)]
    gone = weakref.ref(pool)
    del pool
    assert collected(gone)
    assert [job.result(PATIENCE) for job in jobs] == list(range(100))
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_pool_that_is_dropped_while_a_coroutine_runs():
    pool = tokioloop.WorkerPool(1)
    patient = Patient()
    job, thread = pool.submit(patient, 4), pool.workers[0].thread
    patient.wait_for_start()
    del pool
    gc.collect()
    patient.let_go()
    assert job.result(PATIENCE) == 4
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_collecting_while_jobs_come_and_go(pool):
    """The collector walks jobs in every state."""
    stop = threading.Event()

    def collect():
        # Back to back, collections would leave the other threads hardly an instruction between two stops.
        while not stop.wait(0.001):
            gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    for n in range(20):
        jobs = [pool.submit((plain, coroutine)[i % 2], Value()) for i in range(100)]
        for job in jobs[:: 1 + n % 5]:
            job.add_done_callback(lambda done, job=job: None)
            job.cancel()
        for job in jobs:
            job.cancelled() or job.exception(PATIENCE)
    stop.set()
    thread.join(PATIENCE)
