"""run_on: a coroutine on another thread's loop, its result, exception and cancellation brought back."""

import asyncio
import threading

import pytest

import tokioloop
from tokioloop import run_on

from ..loop.support import PATIENCE
from .support import Patient

KINDS = pytest.mark.parametrize(
    "loop_there",
    [tokioloop.TokioLoop, asyncio.SelectorEventLoop],
    indirect=True,
    ids=["to-ours", "to-asyncio"],
)


async def where():
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), threading.get_ident()


async def raise_at_once(error):
    raise error


async def raise_later(error):
    await asyncio.sleep(0)
    raise error


@KINDS
def test_a_result(loop_there, run):
    async def main():
        loop, thread = await run_on(loop_there, where())
        assert loop is loop_there and thread != threading.get_ident()
        value = object()
        assert await run_on(loop_there, asyncio.sleep(0, value)) is value

    run(main())


@KINDS
@pytest.mark.parametrize("fn", [raise_at_once, raise_later])
def test_an_exception_is_the_same_object(loop_there, run, fn):
    async def main():
        error = LookupError("text")
        with pytest.raises(LookupError) as caught:
            await run_on(loop_there, fn(error))
        assert caught.value is error

    run(main())


@KINDS
def test_cancelled_over_there(loop_there, run):
    async def cancel_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def main():
        for coro in (cancel_itself(), raise_at_once(asyncio.CancelledError())):
            with pytest.raises(asyncio.CancelledError):
                await run_on(loop_there, coro)
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_cancelled_over_here(loop_there, run):
    patient = Patient()

    async def main():
        task = asyncio.ensure_future(run_on(loop_there, patient()))
        await asyncio.to_thread(patient.wait_for_start)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert patient.log == ["cancelled"], "the caller waited for it"

    run(main())


def test_a_coroutine_that_suppresses_cancellation(loop_there, run):
    patient = Patient(stubborn=True)

    async def main():
        task = asyncio.ensure_future(run_on(loop_there, patient()))
        await asyncio.to_thread(patient.wait_for_start)
        task.cancel()
        assert await task == "stubborn"

    run(main())


def test_timeout(loop_there, run):
    patient = Patient()

    async def wait_for_it():
        async with asyncio.timeout(0.01):
            await run_on(loop_there, patient())

    async def main():
        with pytest.raises(TimeoutError):
            await wait_for_it()

    run(main())
    assert patient.log in ([], ["cancelled"])


@pytest.mark.parametrize("kind", [tokioloop.TokioLoop, asyncio.SelectorEventLoop])
def test_a_closed_loop(run, kind):
    """Nothing is left behind that was never awaited."""
    closed = kind()
    closed.close()

    async def main():
        with pytest.raises(RuntimeError, match="closed"):
            await run_on(closed, where())

    run(main())


def test_a_loop_closed_before_it_ran(run):
    """The coroutine was accepted, and never begins."""
    loop = tokioloop.TokioLoop()

    async def main():
        coro = where()
        task = asyncio.ensure_future(run_on(loop, coro))
        await asyncio.sleep(0)
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            await task
        coro.close()

    run(main())


def test_a_loop_that_is_stopped_and_goes_on(run):
    loop = tokioloop.TokioLoop()

    async def main():
        task = asyncio.ensure_future(run_on(loop, where()))
        await asyncio.sleep(0)
        assert not task.done()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        assert (await task)[0] is loop
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join)
        loop.close()

    run(main())


def test_the_callers_own_loop(run):
    async def main():
        loop = asyncio.get_running_loop()
        assert await run_on(loop, where()) == (loop, threading.get_ident())
        with pytest.raises(LookupError):
            await run_on(loop, raise_at_once(LookupError()))

    run(main())


def test_an_object_that_is_not_a_coroutine(loop_there, run):
    async def main():
        for wrong in (3, None, where):
            with pytest.raises((TypeError, AttributeError)):
                await run_on(loop_there, wrong)

    run(main())


@KINDS
def test_thousands_in_flight(loop_there, run):
    async def there(n):
        await asyncio.sleep(0)
        return n

    async def main():
        results = await asyncio.gather(*(run_on(loop_there, there(n)) for n in range(3000)))
        assert results == list(range(3000))

    run(main())


def test_the_order_of_one_caller_is_kept(loop_there, run):
    got = []

    async def note(n):
        got.append(n)

    async def main():
        await asyncio.gather(*(run_on(loop_there, note(n)) for n in range(1000)))
        assert got == list(range(1000))

    run(main())


def test_round_trips_between_four_loops():
    """Each hop is a call within a call, so answers come back through all of them."""
    with tokioloop.WorkerPool(4) as pool:
        loops = pool.loops

        async def hop(left):
            if not left:
                return 0
            return 1 + await run_on(loops[left % 4], hop(left - 1))

        jobs = [pool.submit(hop, 100, worker=n % 4) for n in range(40)]
        assert [job.result(PATIENCE) for job in jobs] == [100] * 40


def test_cancellation_crosses_several_loops():
    with tokioloop.WorkerPool(4) as pool:
        loops, patient, cleaned = pool.loops, Patient(), []

        async def hop(left):
            if not left:
                return await patient()
            try:
                return await run_on(loops[left % 4], hop(left - 1))
            finally:
                cleaned.append(left)

        job = pool.submit(hop, 8)
        patient.wait_for_start()
        job.cancel()
        patient.wait_for_end()
        pool.shutdown()
        assert cleaned == list(range(1, 9)) and patient.log == ["cancelled"]


def test_into_a_pools_worker(pool, run):
    async def main():
        for worker in pool.workers:
            assert (await run_on(worker.loop, where()))[0] is worker.loop

    run(main())


def test_both_loops_call_each_other(run, loop_there):
    async def main():
        here = asyncio.get_running_loop()

        async def back():
            return await run_on(here, where())

        results = await asyncio.gather(*(run_on(loop_there, back()) for _ in range(200)))
        assert results == [(here, threading.get_ident())] * 200

    run(main())


def test_many_threads_into_one_loop(loop_there):
    answers = []

    async def main(n):
        async def there(i):
            await asyncio.sleep(0)
            return n, i

        return await asyncio.gather(*(run_on(loop_there, there(i)) for i in range(200)))

    def work(n):
        answers.append(tokioloop.run(main(n)) == [(n, i) for i in range(200)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 6


def test_a_loop_that_is_closed_before_the_end_ends_the_call():
    began = threading.Event()
    other = tokioloop.TokioLoop()
    # It gets the report of the task that is never finished.
    other.set_exception_handler(lambda loop, context: None)

    def run():
        other.run_forever()
        other.close()

    thread = threading.Thread(target=run)
    thread.start()

    async def stay():
        began.set()
        await asyncio.Event().wait()

    async def main():
        calling = asyncio.ensure_future(tokioloop.run_on(other, stay()))
        await asyncio.to_thread(began.wait)
        other.call_soon_threadsafe(other.stop)
        with pytest.raises(RuntimeError, match="closed before"):
            await calling

    tokioloop.run(main())
    thread.join()
