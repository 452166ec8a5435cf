"""Work across loops: run_on, and how a coroutine awaits a job."""

import asyncio
from asyncio import CancelledError
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from .. import _tokioloop
from .._loop.public import public
from ..loop import TokioLoop
from .job import JobFuture


@public
async def run_on[T](loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> T:
    """Run *coro* on another thread's *loop* and return its result, or raise what it raised.

    The coroutine runs there as a task, in a copy of the caller's context; it crosses over in one message and its end in another.
    As when a task awaits another one: if the caller is cancelled, the coroutine is asked to cancel itself, and the caller goes
    on when it has ended. RuntimeError if *loop* is closed, or is before the end.

    The caller's loop may be any, and *loop* itself too. If *loop* is no ``TokioLoop``, this is ``run_coroutine_threadsafe``: the
    caller does not wait for a coroutine that it cancels, and waits for ever if *loop* is closed before the end.
    """
    if not isinstance(loop, TokioLoop):
        return await asyncio.wrap_future(_run_on_foreign(loop, coro))
    try:
        job = _tokioloop._run_on(loop, coro)
    except BaseException:
        coro.close()
        raise
    return await outcome(job)


def _run_on_foreign[T](loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> Future[T]:
    try:
        return asyncio.run_coroutine_threadsafe(coro, loop)
    except BaseException:
        coro.close()
        raise


async def outcome[T](job: JobFuture[T]) -> T:
    """Return the job's result or raise its exception, on any loop.

    If the caller is cancelled, so is the job: one that waits ends, a coroutine is asked to end and waited for, and a
    function that runs is left alone.
    """
    while True:
        waiting: asyncio.Future[T] | None = _tokioloop._outcome_of(job)
        try:
            return await waiting if waiting else await _outcome_elsewhere(job)
        except CancelledError:
            if job.done() or not job._ask_to_cancel():
                # It was the job that was cancelled, or it can't be.
                raise


async def _outcome_elsewhere[T](job: JobFuture[T]) -> T:
    """On a loop that is not ours. A cancellation leaves the job alone."""
    ended = asyncio.wrap_future(job)
    # Its exception counts as seen, also where it comes after the caller has gone.
    ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait([ended])
    return ended.result()
