"""Every exception of a job reaches its waiters, and the worker goes on."""

import asyncio
import concurrent.futures
import traceback

import pytest

from ..loop.support import PATIENCE


class Odd(BaseException):
    pass


ERRORS = [LookupError, Odd, SystemExit, KeyboardInterrupt, GeneratorExit, StopAsyncIteration, TimeoutError]


async def raise_at_once(error):
    raise error


async def raise_later(error):
    await asyncio.sleep(0)
    raise error


def raise_plainly(error):
    raise error


KINDS = [raise_plainly, raise_at_once, raise_later]


@pytest.fixture
def said(pool, caplog):
    """The reports of the workers' loops and of asyncio's log."""
    contexts = []
    for loop in pool.loops:
        loop.call_soon_threadsafe(loop.set_exception_handler, lambda loop, context: contexts.append(context))
    yield contexts
    assert contexts == [] and caplog.records == []


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fn", KINDS)
def test_an_error_reaches_only_the_future(pool, said, fn, error):
    raised = error("text")
    for worker in (0, 1):
        job = pool.submit(fn, raised, worker=worker)
        assert job.exception(PATIENCE) is raised
        with pytest.raises(error, match="text"):
            job.result()
        assert pool.submit(int, worker=worker).result(PATIENCE) == 0, "the worker goes on"


# Thrown into a coroutine, GeneratorExit closes what that awaits: asyncio can't pass it on.
@pytest.mark.parametrize("error", [error for error in ERRORS if error is not GeneratorExit])
@pytest.mark.parametrize("fn", KINDS)
def test_an_error_reaches_the_awaiting_task(pool, said, run, fn, error):
    async def main():
        raised = error("text")
        try:
            await pool.run(fn, raised)
        except error as caught:
            return caught is raised
        return False

    assert run(main())


@pytest.mark.parametrize("fn", KINDS)
def test_the_traceback_shows_where(pool, fn):
    job = pool.submit(fn, LookupError())
    with pytest.raises(LookupError) as caught:
        job.result(PATIENCE)
    assert fn.__name__ in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_stop_iteration_of_a_function(pool, run):
    raised = StopIteration(3)
    assert pool.submit(raise_plainly, raised).exception(PATIENCE) is raised

    async def main():
        with pytest.raises(RuntimeError) as caught:
            await pool.run(raise_plainly, StopIteration(3))
        assert isinstance(caught.value.__cause__, StopIteration)

    run(main())


@pytest.mark.parametrize("fn", [raise_at_once, raise_later])
def test_stop_iteration_of_a_coroutine(pool, fn):
    assert isinstance(pool.submit(fn, StopIteration()).exception(PATIENCE), RuntimeError)


@pytest.mark.parametrize("fn", KINDS)
def test_a_job_that_raises_asyncios_cancelled_error_is_cancelled(pool, run, fn):
    job = pool.submit(fn, asyncio.CancelledError())
    with pytest.raises(concurrent.futures.CancelledError):
        job.result(PATIENCE)
    assert job.cancelled()

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await pool.run(fn, asyncio.CancelledError())
        assert asyncio.current_task().cancelling() == 0

    run(main())


@pytest.mark.parametrize("fn", KINDS)
def test_a_job_that_raises_the_other_cancelled_error_failed(pool, fn):
    raised = concurrent.futures.CancelledError()
    job = pool.submit(fn, raised)
    assert job.exception(PATIENCE) is raised
    assert not job.cancelled()


def test_the_same_error_may_be_raised_by_several(pool):
    error = LookupError()
    jobs = [pool.submit(raise_plainly, error) for _ in range(100)]
    assert [job.exception(PATIENCE) for job in jobs] == [error] * 100


def test_an_error_that_is_never_retrieved_is_silent(pool, said):
    """As in concurrent.futures."""
    for fn in KINDS:
        pool.submit(fn, LookupError())
    pool.shutdown()


def test_context_and_cause_come_along(pool):
    def chained():
        try:
            raise LookupError("first")
        except LookupError as first:
            raise ValueError("second") from first

    error = pool.submit(chained).exception(PATIENCE)
    assert isinstance(error.__cause__, LookupError)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_errors_that_belong_to_no_job_are_reported(one, error):
    """The worker goes on."""
    told = []

    def fail():
        raise error("nobody's")

    def prepare():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        loop.call_soon(fail)

    async def late():
        await asyncio.sleep(0)
        raise error("a job's")

    one.submit(prepare).result(PATIENCE)
    with pytest.raises(error, match="a job's"):
        one.submit(late).result(PATIENCE)
    assert one.submit(int, "3").result(PATIENCE) == 3
    [context] = told
    assert isinstance(context["exception"], error) and "goes on" in context["message"]
