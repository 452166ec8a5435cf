"""Other threads that call into a loop while it is closed: each call ends, by being taken or by an error, and so does close()."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

import tokioloop

from .support import PATIENCE

THREADS = 3
ROUNDS = 30


class Collecting:
    """What is refused collects garbage on its way out: that stops every thread, those that wait for the loop too. In each round
    a few do so, which is slow."""

    left = 0

    def __init__(self, loop: tokioloop.TokioLoop) -> None:
        self.loop = loop

    def __call__(self, *_: Any) -> None:
        pass

    def __del__(self) -> None:
        if Collecting.left > 0 and self.loop.is_closed():
            Collecting.left -= 1
            gc.collect(0)


def _take(*_: Any) -> None:
    pass


def _call(loop: tokioloop.TokioLoop) -> None:
    loop.call_soon_threadsafe(Collecting(loop))


def _call_with_arguments(loop: tokioloop.TokioLoop) -> None:
    loop.call_soon_threadsafe(_take, *[Collecting(loop) for _ in range(3)])


def _call_and_cancel(loop: tokioloop.TokioLoop) -> None:
    loop.call_soon_threadsafe(Collecting(loop)).cancel()


def _stop(loop: tokioloop.TokioLoop) -> None:
    loop.stop()
    if loop.is_closed():
        raise RuntimeError


def _coroutine(loop: tokioloop.TokioLoop) -> None:
    coro = asyncio.sleep(0, Collecting(loop))
    try:
        asyncio.run_coroutine_threadsafe(coro, loop)
    except RuntimeError:
        coro.close()
        raise


def _run(loop: tokioloop.TokioLoop, bound: threading.Semaphore) -> None:
    """A run of a few turns."""
    loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)
    loop.run_forever()


def _rest(loop: tokioloop.TokioLoop, bound: threading.Semaphore) -> None:
    """The loop does not run: callers claim it for the moment."""
    bound.acquire(timeout=PATIENCE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("before", [_run, _rest])
@pytest.mark.parametrize("call", [_call, _call_with_arguments, _call_and_cancel, _stop, _coroutine])
def test_calls_from_three_threads_against_close(
    before: Callable[[tokioloop.TokioLoop, threading.Semaphore], None],
    call: Callable[[tokioloop.TokioLoop], None],
) -> None:
    for _ in range(ROUNDS):
        loop = tokioloop.TokioLoop()
        begin, bound = threading.Barrier(THREADS + 1), threading.Semaphore(0)
        refused = []

        def post(loop: Any = loop, begin: Any = begin, bound: Any = bound, refused: Any = refused) -> None:
            begin.wait(PATIENCE)
            try:
                for count in range(2_000):
                    call(loop)
                    if count == 10:
                        bound.release()
            except RuntimeError:
                refused.append(True)
            finally:
                bound.release()

        threads = [threading.Thread(target=post) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        Collecting.left = 1
        begin.wait(PATIENCE)
        before(loop, bound)
        loop.close()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert loop.is_closed()


@pytest.mark.parametrize("work", [int, asyncio.sleep], ids=["functions", "coroutines"])
def test_jobs_from_three_threads_against_shutdown(work: Any) -> None:
    for _ in range(ROUNDS // 3):
        pool = tokioloop.WorkerPool(2)
        begin, bound = threading.Barrier(THREADS + 1), threading.Semaphore(0)
        jobs: list[Any] = []

        def submit(pool: Any = pool, begin: Any = begin, bound: Any = bound, jobs: Any = jobs) -> None:
            begin.wait(PATIENCE)
            try:
                for count in range(2_000):
                    jobs.append(pool.submit(work, 0))
                    if count == 10:
                        bound.release()
            except RuntimeError:
                pass
            finally:
                bound.release()

        threads = [threading.Thread(target=submit) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        begin.wait(PATIENCE)
        bound.acquire(timeout=PATIENCE)
        pool.shutdown(timeout=PATIENCE)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert all(job.done() for job in jobs)
