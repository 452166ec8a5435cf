"""Cancellation, of jobs that wait, begin, run and have ended, from every side."""

import asyncio
import concurrent.futures
import functools
import threading

import pytest

from ..loop.support import PATIENCE
from .support import Blocked, Patient


def test_a_job_that_waits_is_never_begun(one, blocked):
    got = []
    jobs = [one.submit(got.append, n) for n in range(10)]
    assert all(job.cancel() for job in jobs[::2])
    assert all(job.cancelled() for job in jobs[::2])
    blocked.release()
    for job in jobs[1::2]:
        job.result(PATIENCE)
    assert got == [1, 3, 5, 7, 9]


def test_a_coroutine_function_that_waits_is_never_called(one, blocked):
    """So there is no coroutine that was never awaited."""
    patient = Patient()
    job = one.submit(patient)
    assert job.cancel() and job.cancel()
    blocked.release()
    one.shutdown()
    assert not patient.started.is_set()


def test_a_function_that_runs_is_not_cancelled(one, blocked):
    assert not blocked.job.cancel()
    assert blocked.job.running()
    blocked.release()
    assert blocked.job.result(PATIENCE) == "released"
    assert not blocked.job.cancel()


def test_a_coroutine_that_runs(one):
    patient = Patient()
    job = one.submit(patient)
    patient.wait_for_start()
    one.submit(int).result(PATIENCE)
    got = []
    job.add_done_callback(lambda job: got.append(threading.current_thread()))
    assert job.cancel()
    assert job.cancelled() and got == [threading.current_thread()], "callbacks run at once"
    assert job.cancel()
    patient.wait_for_end()
    one.submit(int).result(PATIENCE)
    assert patient.log == ["cancelled"]


def test_during_the_first_step(one):
    """The cancellation is kept until the coroutine can be reached."""
    inside, go = threading.Event(), threading.Event()
    patient = Patient()

    async def slow_to_start():
        inside.set()
        assert go.wait(PATIENCE)
        await patient()

    job = one.submit(slow_to_start)
    assert inside.wait(PATIENCE)
    assert job.cancel() and job.cancelled()
    go.set()
    patient.wait_for_end()
    assert patient.log == ["cancelled"]


def test_during_a_first_step_that_is_the_last(one):
    inside, go = threading.Event(), threading.Event()
    got = []

    async def single():
        inside.set()
        assert go.wait(PATIENCE)
        got.append("ended")

    job = one.submit(single)
    assert inside.wait(PATIENCE)
    assert job.cancel() and job.cancelled()
    go.set()
    one.submit(int).result(PATIENCE)
    assert got == ["ended"]


def test_from_the_job_itself(one):
    box, ready = [], threading.Event()
    log = []

    async def suicidal():
        assert await asyncio.to_thread(ready.wait, PATIENCE)
        assert box[0].cancel()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    box.append(one.submit(suicidal))
    ready.set()
    with pytest.raises(concurrent.futures.CancelledError):
        box[0].result(PATIENCE)
    one.shutdown()
    assert log == ["cancelled"]


def test_from_a_function_that_is_the_job(one, blocked):
    box = []
    box.append(one.submit(lambda: box[0].cancel()))
    blocked.release()
    assert box[0].result(PATIENCE) is False


def test_from_callbacks(one, blocked):
    first, second, third = (one.submit(int) for _ in range(3))
    first.add_done_callback(lambda job: second.cancel())
    second.add_done_callback(lambda job: third.cancel())
    third.add_done_callback(lambda job: (first.cancel(), second.cancel()))
    first.cancel()
    assert first.cancelled() and second.cancelled() and third.cancelled()


def test_after_the_end(pool):
    job = pool.submit(int)
    assert job.result(PATIENCE) == 0
    assert not job.cancel() and not job.cancelled()


def test_a_coroutine_that_suppresses_it(one):
    """Its future stays cancelled; its worker goes on."""
    patient = Patient(stubborn=True)
    job = one.submit(patient)
    patient.wait_for_start()
    assert job.cancel()
    patient.wait_for_end()
    assert one.submit(int).result(PATIENCE) == 0
    assert job.cancelled() and patient.log == ["cancelled"]


def test_one_side_only_wins(one):
    """From several threads at once: the job ends once, with the same result for all."""
    for _ in range(50):
        patient = Patient()
        job = one.submit(patient)
        barrier = threading.Barrier(4)
        ends, answers = [], []
        job.add_done_callback(ends.append)

        def cancel(barrier=barrier, answers=answers, job=job):
            barrier.wait(PATIENCE)
            answers.append(job.cancel())

        threads = [threading.Thread(target=cancel) for _ in range(3)]
        for thread in threads:
            thread.start()
        patient.wait_for_start()
        barrier.wait(PATIENCE)
        patient.let_go()
        for thread in threads:
            thread.join()
        concurrent.futures.wait([job], PATIENCE)
        assert len(set(answers)) == 1 and answers[0] == job.cancelled() and ends == [job]
        patient.wait_for_end()


def test_the_caller_waits_for_the_coroutines_cleanup(pool, run):
    patient = Patient()
    cleaning, go = threading.Event(), threading.Event()

    async def careful():
        try:
            await patient()
        finally:
            cleaning.set()
            await asyncio.to_thread(go.wait, PATIENCE)
            patient.log.append("cleaned")

    async def main():
        task = asyncio.ensure_future(pool.run(careful))
        await asyncio.to_thread(patient.wait_for_start)
        task.cancel()
        await asyncio.to_thread(cleaning.wait, PATIENCE)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert patient.log == ["cancelled", "cleaned"]

    run(main())


def test_a_caller_whose_coroutine_suppresses_it_gets_the_result(pool, run):
    """As when a task awaits another task."""

    async def main():
        patient = Patient(stubborn=True)
        task = asyncio.ensure_future(pool.run(patient))
        await asyncio.to_thread(patient.wait_for_start)
        task.cancel()
        assert await task == "stubborn"

    run(main())


def test_a_caller_whose_coroutine_fails_at_it_gets_the_error(pool, run):
    patient = Patient()

    async def fails():
        try:
            await patient()
        finally:
            raise LookupError

    async def main():
        task = asyncio.ensure_future(pool.run(fails))
        await asyncio.to_thread(patient.wait_for_start)
        task.cancel()
        with pytest.raises(LookupError):
            await task

    run(main())


def test_timeout_around_run(pool, run):
    async def main():
        patient = Patient()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.run(patient)
        if patient.started.is_set():
            assert patient.log == ["cancelled"]

    run(main())


def test_a_caller_leaves_a_function_that_runs(one, run):
    blocked = Blocked(one)

    async def main():
        inside, go = threading.Event(), threading.Event()

        def function():
            inside.set()
            assert go.wait(PATIENCE)

        task = asyncio.ensure_future(one.run(function))
        blocked.release()
        await asyncio.to_thread(inside.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    run(main())
    assert one.submit(int).result(PATIENCE) == 0


def test_a_caller_leaves_a_function_whose_coroutine_then_is_cancelled(one, run):
    patient = Patient()

    async def main():
        inside, go = threading.Event(), threading.Event()

        def function():
            inside.set()
            assert go.wait(PATIENCE)
            return patient()

        task = asyncio.ensure_future(one.run(function))
        await asyncio.to_thread(inside.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await asyncio.to_thread(patient.wait_for_end)
        assert patient.log == ["cancelled"]

    run(main())


def test_a_caller_whose_job_waits_is_cancelled_at_once(one, blocked, run):
    async def main():
        got = []
        task = asyncio.ensure_future(one.run(got.append, 1))
        while not one.stats().waiting:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == [] and blocked.job.running()

    run(main())


def test_task_group_cancels_its_other_jobs(pool, run):
    patient = Patient()

    async def fails():
        await asyncio.to_thread(patient.wait_for_start)
        raise LookupError

    async def main():
        async def both():
            async with asyncio.TaskGroup() as group:
                group.create_task(pool.run(patient))
                group.create_task(pool.run(fails))

        with pytest.raises(ExceptionGroup):
            await both()
        assert patient.log == ["cancelled"]

    run(main())


def test_a_coroutine_function_can_be_cancelled_at_every_moment(pool):
    """Even while a worker is calling it, when there is no coroutine yet."""

    async def stay(number):
        await asyncio.Event().wait()

    class Stays:
        async def stay(self, number):
            await asyncio.Event().wait()

    functions = [stay, Stays().stay, functools.partial(stay)]
    for number in range(3000):
        job = pool.submit(functions[number % 3], number)
        assert job.cancel()
        assert job.cancelled()
