"""A job is a concurrent.futures.Future: its states, its callbacks, and all that takes futures."""

import asyncio
import concurrent.futures
import logging
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, as_completed, wait

import pytest

import tokioloop
from tokioloop._pool.job import JobFuture

from ..loop.support import PATIENCE
from .support import Patient


def fail():
    raise LookupError("failed")


def test_a_job_is_a_future(pool):
    job = pool.submit(int)
    assert isinstance(job, concurrent.futures.Future)
    assert isinstance(job, JobFuture)
    assert isinstance(pool, concurrent.futures.Executor)
    assert job.result(PATIENCE) == 0


def test_states_of_a_function(one, blocked):
    waiting = one.submit(int, 7)
    assert blocked.job.running() and not blocked.job.done() and not blocked.job.cancelled()
    assert not waiting.running() and not waiting.done()
    assert "state=running" in repr(blocked.job)
    assert "state=pending" in repr(waiting)
    blocked.release()
    assert waiting.result(PATIENCE) == 7
    assert waiting.done() and not waiting.running() and not waiting.cancelled()
    assert waiting.exception() is None
    assert "state=finished returned int" in repr(waiting)


def test_states_of_a_coroutine(pool):
    patient = Patient()
    job = pool.submit(patient, "result")
    patient.wait_for_start()
    assert job.running() and not job.done()
    patient.let_go()
    assert job.result(PATIENCE) == "result"
    assert not job.running()


def test_states_of_a_failure(pool):
    job = pool.submit(fail)
    assert isinstance(job.exception(PATIENCE), LookupError)
    with pytest.raises(LookupError, match="failed"):
        job.result()
    assert job.done() and not job.cancelled()
    assert "state=finished raised LookupError" in repr(job)


def test_states_of_a_cancelled_job(one, blocked):
    job = one.submit(int)
    assert job.cancel()
    assert job.cancelled() and job.done() and not job.running()
    assert "state=cancelled" in repr(job)
    with pytest.raises(concurrent.futures.CancelledError):
        job.result()
    with pytest.raises(concurrent.futures.CancelledError):
        job.exception(PATIENCE)


def test_result_and_exception_time_out(one, blocked):
    job = one.submit(int)
    for timeout in (0, 0.0, 0.01, -1):
        with pytest.raises(TimeoutError):
            job.result(timeout)
        with pytest.raises(TimeoutError):
            job.exception(timeout=timeout)
    assert not job.done()


def test_several_threads_wait_for_one_job(one, blocked):
    job = one.submit(int, 3)
    got = []
    threads = [threading.Thread(target=lambda: got.append(job.result(PATIENCE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    blocked.release()
    for thread in threads:
        thread.join(PATIENCE)
    assert got == [3] * 8


def test_only_the_pool_ends_a_job(one, blocked):
    job = one.submit(int)
    for refused in (
        lambda: job.set_result(1),
        lambda: job.set_exception(ValueError()),
        job.set_running_or_notify_cancel,
    ):
        with pytest.raises(RuntimeError, match="only a job's pool"):
            refused()
    assert not job.done()
    with pytest.raises(TypeError):
        JobFuture()


def test_callbacks_are_called_in_order_once_with_the_job(one, blocked):
    job = one.submit(int)
    got = []
    for n in range(5):
        job.add_done_callback(lambda job, n=n: got.append((n, job, threading.current_thread())))
    job.add_done_callback(lambda job: done.set())
    done = threading.Event()
    assert got == []
    blocked.release()
    assert done.wait(PATIENCE)
    assert got == [(n, job, one.workers[0].thread) for n in range(5)]


def test_a_callback_of_an_ended_job_is_called_at_once(pool):
    job = pool.submit(int)
    job.result(PATIENCE)
    got = []
    job.add_done_callback(got.append)
    assert got == [job]


def test_a_callback_sees_the_end(pool):
    got = []
    done = threading.Event()

    def callback(job):
        got.append((job.done(), job.result(0), job.cancel()))
        done.set()

    release = threading.Event()
    job = pool.submit(lambda: release.wait(PATIENCE))
    job.add_done_callback(callback)
    release.set()
    assert done.wait(PATIENCE)
    assert got == [(True, True, False)]


def test_what_a_callback_raises_is_logged_and_the_next_is_called(one, blocked, caplog):
    job = one.submit(int)
    got = []
    job.add_done_callback(lambda job: 1 / 0)
    job.add_done_callback(got.append)
    with caplog.at_level(logging.ERROR, logger="concurrent.futures"):
        job.cancel()
        job.add_done_callback(lambda job: 1 / 0)
    assert got == [job]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 2


def test_an_interrupt_in_a_callback_added_too_late_reaches_the_caller(pool):
    """As in concurrent.futures: only Exceptions are logged."""
    job = pool.submit(int)
    job.result(PATIENCE)

    def interrupted(job):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.add_done_callback(interrupted)


@pytest.mark.parametrize("when", [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED])
def test_wait_for_what_has_ended(pool, when):
    jobs = {pool.submit(int, n) for n in range(10)}
    for job in jobs:
        job.result(PATIENCE)
    assert wait(jobs, PATIENCE, when) == (jobs, set())


def test_wait_for_the_first(one, blocked):
    waiting = one.submit(int)
    first = one.submit(int)
    first.cancel()
    done, not_done = wait([waiting, first, blocked.job], PATIENCE, FIRST_COMPLETED)
    assert done == {first} and not_done == {waiting, blocked.job}


def test_wait_for_the_first_exception():
    with tokioloop.WorkerPool(3) as pool:
        patient, barrier = Patient(), threading.Barrier(2)

        def late():
            barrier.wait(PATIENCE)
            raise LookupError

        jobs = [pool.submit(patient), pool.submit(late), pool.submit(int)]
        jobs[2].result(PATIENCE)
        patient.wait_for_start()
        waiter = threading.Thread(target=barrier.wait)
        waiter.start()
        done, not_done = wait(jobs, PATIENCE, FIRST_EXCEPTION)
        assert done == {jobs[1], jobs[2]} and not_done == {jobs[0]}
        waiter.join()
        patient.let_go()
        assert wait(jobs, PATIENCE) == (set(jobs), set())


def test_wait_times_out(one, blocked):
    assert wait([blocked.job], 0.01) == (set(), {blocked.job})


def test_wait_sees_each_kind_of_end(pool):
    """Each ends while ``wait`` waits and has the jobs' conditions."""
    for how in ("result", "error", "cancelled"):
        patient = Patient()

        async def act(patient=patient, how=how):
            await patient()
            if how == "error":
                raise LookupError

        job = pool.submit(act)
        patient.wait_for_start()
        event = threading.Event()
        got = []

        def waiter(job=job, event=event, got=got):
            event.set()
            got.append(wait([job], PATIENCE, FIRST_EXCEPTION))

        thread = threading.Thread(target=waiter)
        thread.start()
        event.wait(PATIENCE)
        if how == "cancelled":
            job.cancel()
        else:
            patient.let_go()
        thread.join(PATIENCE)
        assert got == [({job}, set())]


def test_as_completed(pool):
    jobs = [pool.submit(int, n) for n in range(200)]
    assert sorted(job.result() for job in as_completed(jobs, PATIENCE)) == list(range(200))


def test_as_completed_gives_what_ends_first_and_times_out(one, blocked):
    cancelled = one.submit(int)
    iterator = as_completed([blocked.job, cancelled], timeout=0.05)
    cancelled.cancel()
    assert next(iterator) is cancelled
    with pytest.raises(TimeoutError):
        next(iterator)


def test_wait_takes_jobs_and_other_futures(pool):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        both = {pool.submit(int), threads.submit(int)}
        assert wait(both, PATIENCE) == (both, set())


def test_wrap_future(pool, run):
    async def main():
        assert await asyncio.wrap_future(pool.submit(int, 5)) == 5
        with pytest.raises(LookupError):
            await asyncio.wrap_future(pool.submit(fail))
        patient = Patient()
        job = pool.submit(patient)
        wrapped = asyncio.wrap_future(job)
        await asyncio.to_thread(patient.wait_for_start)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        assert await asyncio.to_thread(wait, [job], PATIENCE) == ({job}, set())
        assert job.cancelled()

    run(main())
