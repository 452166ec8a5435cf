"""Jobs: the futures that pools give, and what of them blocks or is seldom called."""

from concurrent.futures import Future
from concurrent.futures._base import LOGGER
from typing import Any, NoReturn

from .. import _tokioloop


class JobFuture[T](_tokioloop.Job, Future[T]):
    """The future of a job: a ``concurrent.futures.Future``, which ``wait``, ``as_completed`` and ``asyncio.wrap_future`` take.

    Any thread may use it. Unlike a thread pool's, a job whose coroutine runs can be cancelled: the future is cancelled
    at once, and the coroutine is asked to cancel itself on its own loop. A function that runs can't be cancelled. Callbacks are
    called in the thread that ends the job, most often a worker's, and must not block it.
    """

    __slots__ = ()

    def set_running_or_notify_cancel(self) -> NoReturn:
        """RuntimeError: only the pool does this."""
        raise RuntimeError("a job is begun and ended by its pool alone")

    def set_result(self, result: object) -> NoReturn:
        """RuntimeError: only the pool does this."""
        raise RuntimeError("a job is begun and ended by its pool alone")

    def set_exception(self, exception: object) -> NoReturn:
        """RuntimeError: only the pool does this."""
        raise RuntimeError("a job is begun and ended by its pool alone")


_tokioloop._set_job_class(JobFuture)


def wait_for(job: JobFuture[Any], timeout: float | None) -> None:
    """Block until the job has ended. TimeoutError after *timeout* seconds. Called by native."""
    condition = job._condition
    with condition:
        if not condition.wait_for(job.done, timeout):
            raise TimeoutError


def log_failed_callback(job: JobFuture[Any], error: BaseException) -> None:
    """Log what a callback of *job* raised, as ``concurrent.futures`` does. Called by native."""
    LOGGER.error("exception calling callback for %r", job, exc_info=error)
