"""shutdown() and aclose(): what still runs, what is cancelled, in what order, and that every job ends."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import threading

import pytest

import tokioloop

from ..loop.support import PATIENCE
from .support import Blocked, Patient


def alive(pool):
    return [worker.name for worker in pool.workers if worker.thread.is_alive()]


@pytest.fixture
def fresh():
    pools = []

    def fresh(threads=2, **options):
        pools.append(tokioloop.WorkerPool(threads, **options))
        return pools[-1]

    yield fresh
    for pool in pools:
        pool.shutdown(timeout=PATIENCE)


def test_what_was_submitted_is_done(fresh):
    pool = fresh()
    got = []

    async def slow(n):
        await asyncio.sleep(0.001)
        got.append(n)

    jobs = [pool.submit(slow, n) for n in range(100)] + [pool.submit(got.append, n) for n in range(100, 200)]
    pool.shutdown()
    assert all(job.done() and not job.cancelled() for job in jobs)
    assert sorted(got) == list(range(200)) and alive(pool) == []
    assert all(worker.loop.is_closed() for worker in pool.workers)


def test_again_and_after_the_end(fresh):
    pool = fresh()
    for options in ({}, {"wait": False}, {"cancel_jobs": True}, {"timeout": 0}, {"cancel_futures": True}):
        pool.shutdown(**options)
        pool.shutdown(**options)
    assert alive(pool) == []


def test_from_several_threads(fresh):
    pool = fresh()
    patient = Patient()
    job = pool.submit(patient, 1)
    patient.wait_for_start()
    threads = [threading.Thread(target=pool.shutdown) for _ in range(5)]
    for thread in threads:
        thread.start()
    patient.let_go()
    for thread in threads:
        thread.join(PATIENCE)
    assert job.result(0) == 1 and alive(pool) == []


def test_without_waiting(fresh):
    pool = fresh(1)
    blocked = Blocked(pool)
    behind = pool.submit(int)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(int)
    assert alive(pool)
    blocked.release()
    assert behind.result(PATIENCE) == 0
    pool.shutdown()
    assert alive(pool) == []


def test_cancel_jobs(fresh):
    pool = fresh(1)
    patients = [Patient() for _ in range(20)]
    running = [pool.submit(patient) for patient in patients]
    for patient in patients:
        patient.wait_for_start()
    blocked = Blocked(pool)
    waiting = [pool.submit(int) for _ in range(40)]
    ended = threading.Thread(target=pool.shutdown, kwargs={"cancel_jobs": True})
    ended.start()
    assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
    assert all(job.cancelled() for job in waiting)
    assert not any(job.done() for job in running), "a coroutine ends by itself"
    blocked.release()
    ended.join(PATIENCE)
    assert blocked.job.result(0) == "released"
    assert all(job.cancelled() for job in running)
    assert [patient.log for patient in patients] == [["cancelled"]] * 20


def test_cancel_futures(fresh):
    """As in concurrent.futures: only what was not begun."""
    pool = fresh(1)
    patient = Patient()
    running = pool.submit(patient, 5)
    patient.wait_for_start()
    blocked = Blocked(pool)
    waiting = [pool.submit(int) for _ in range(40)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(job.cancelled() for job in waiting)
    blocked.release()
    patient.let_go()
    pool.shutdown()
    assert running.result(0) == 5


def test_a_coroutine_that_cleans_up_has_the_time(fresh):
    pool = fresh(1)
    patient = Patient()
    log = []

    async def careful():
        try:
            await patient()
        finally:
            for _ in range(50):
                await asyncio.sleep(0)
            log.append("cleaned")

    job = pool.submit(careful)
    patient.wait_for_start()
    pool.shutdown(cancel_jobs=True)
    assert job.cancelled() and log == ["cleaned"]


def test_a_timeout_cancels_what_is_left(fresh):
    pool = fresh()
    patient = Patient()
    job = pool.submit(patient)
    patient.wait_for_start()
    pool.shutdown(timeout=0.01)
    assert job.cancelled() and patient.log == ["cancelled"] and alive(pool) == []


def test_a_function_that_does_not_end_is_left_behind(fresh):
    pool = fresh(1)
    blocked = Blocked(pool)
    behind, pinned = pool.submit(int), pool.submit(int, worker=0)
    with pytest.warns(RuntimeWarning, match="left behind: tokioloop-worker-0"):
        pool.shutdown(timeout=0)
    assert blocked.job.cancelled() and behind.cancelled() and pinned.cancelled()
    blocked.release()
    pool.workers[0].thread.join(PATIENCE)
    assert alive(pool) == []


def test_a_coroutine_that_refuses_is_left_behind(fresh):
    pool = fresh(1)
    started, free = threading.Event(), threading.Event()

    async def refuses():
        started.set()
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)

    job = pool.submit(refuses)
    assert started.wait(PATIENCE)
    with pytest.warns(RuntimeWarning, match="left behind"):
        pool.shutdown(timeout=0)
    assert job.cancelled()
    free.set()
    pool.workers[0].thread.join(PATIENCE)
    assert alive(pool) == []


def test_a_setup_that_does_not_end_is_left_behind(fresh):
    go = threading.Event()
    pool = fresh(1, setup=lambda: go.wait(PATIENCE))
    job = pool.submit(int)
    with pytest.warns(RuntimeWarning, match="left behind"):
        pool.shutdown(timeout=0)
    assert job.cancelled()
    go.set()
    pool.workers[0].thread.join(PATIENCE)
    assert alive(pool) == []


def test_a_worker_does_not_wait_for_itself(fresh):
    pool = fresh()
    with pytest.raises(RuntimeError, match="own pool"):
        pool.submit(pool.shutdown).result(PATIENCE)
    with pytest.raises(RuntimeError, match="own pool"):
        pool.submit(pool.aclose).result(PATIENCE)
    assert pool.submit(int).result(PATIENCE) == 0, "it is open still"
    pool.submit(pool.shutdown, wait=False).result(PATIENCE)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


def test_a_worker_of_another_pool_may_wait(fresh):
    pool, other = fresh(), fresh()
    pool.submit(other.shutdown).result(PATIENCE)
    assert alive(other) == []


def test_a_job_that_submits_during_the_end_is_refused(fresh):
    pool = fresh()
    patient = Patient()

    async def job():
        await patient()
        await pool.run(int)

    running = pool.submit(job)
    patient.wait_for_start()
    pool.shutdown(wait=False)
    patient.let_go()
    assert isinstance(running.exception(PATIENCE), RuntimeError)


@pytest.mark.parametrize("cancel_jobs", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_every_job_of_a_racing_submitter_ends(count, cancel_jobs):
    """Accepted or refused, never lost; functions and coroutines, pinned and not, from threads and from jobs."""
    for _ in range(10):
        pool = tokioloop.WorkerPool(count)
        jobs = [[] for _ in range(4)]
        begun = threading.Barrier(5)

        async def coroutine(pool=pool):
            await asyncio.sleep(0)
            return pool.submit(int)

        def submitter(mine, pool=pool, begun=begun, coroutine=coroutine):
            begun.wait(PATIENCE)
            try:
                for n in range(100_000):
                    fn = (int, coroutine, lambda: pool.submit(int))[n % 3]
                    mine.append(pool.submit(fn, worker=(None, 0)[n % 2]))
            except RuntimeError as error:
                assert "after shutdown" in str(error)  # noqa: PT017

        threads = [threading.Thread(target=submitter, args=(mine,)) for mine in jobs]
        for thread in threads:
            thread.start()
        begun.wait(PATIENCE)
        pool.shutdown(cancel_jobs=cancel_jobs, timeout=PATIENCE)
        for thread in threads:
            thread.join(PATIENCE)
        for job in itertools.chain(*jobs):
            assert job.done()
            if not job.cancelled() and not isinstance(job.exception(), RuntimeError | None):
                inner = job.result()
                assert inner == 0 or inner.done()
        assert alive(pool) == []


def test_aclose(fresh, run):
    async def main():
        pool = fresh()
        patient = Patient()
        async with pool:
            job = pool.submit(patient, 3)
            await asyncio.to_thread(patient.wait_for_start)
            patient.let_go()
        assert job.result(0) == 3 and alive(pool) == []
        await pool.aclose()

    run(main())


def test_aclose_with_a_timeout_and_with_cancel_jobs(fresh, run):
    async def main():
        for options in ({"timeout": 0.01}, {"cancel_jobs": True}):
            pool, patient = fresh(), Patient()
            job = pool.submit(patient)
            await asyncio.to_thread(patient.wait_for_start)
            await pool.aclose(**options)
            assert job.cancelled() and patient.log == ["cancelled"] and alive(pool) == []

    run(main())


def test_aclose_that_is_cancelled_cancels_the_jobs(fresh, run):
    async def main():
        pool, patient = fresh(), Patient()
        job = pool.submit(patient)
        await asyncio.to_thread(patient.wait_for_start)
        closing = asyncio.ensure_future(pool.aclose())
        while "closing" not in repr(pool):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert job.cancelled() and patient.log == ["cancelled"] and alive(pool) == []

    run(main())


def test_aclose_leaves_behind_what_does_not_end(fresh, run):
    async def main():
        pool = fresh(1)
        blocked = Blocked(pool)
        with pytest.warns(RuntimeWarning, match="left behind"):
            await pool.aclose(timeout=0)
        assert blocked.job.cancelled()
        blocked.release()

    run(main())
