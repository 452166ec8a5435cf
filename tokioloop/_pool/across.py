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

    The coroutine runs there as a task, in a copy of the caller's context; it costs one message there and one back.
    As when a task awaits another one: if the caller is cancelled, the coroutine's task is cancelled, and the caller resumes
    when it has ended. RuntimeError if *loop* is closed, now or before the end.

    The caller's loop may be any, even *loop* itself. If *loop* is not a ``TokioLoop``, this is ``run_coroutine_threadsafe``: the
    caller does not wait for a coroutine that it cancels, and waits forever if *loop* is closed before the end.
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

    If the caller is cancelled, the job is cancelled too: a waiting one ends, a coroutine's task is cancelled and waited for, and a
    running function continues.
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
    """On a loop that is not ours. A cancellation does not cancel the job."""
    ended = asyncio.wrap_future(job)
    # Its exception counts as retrieved, even if it comes after the caller has left.
    ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait([ended])
    return ended.result()
