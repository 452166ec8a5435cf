"""Jobs: the futures that pools return, with their blocking and rarely called methods."""

from concurrent.futures import Future
from concurrent.futures._base import LOGGER
from typing import Any, NoReturn

from .. import _tokioloop


class JobFuture[T](_tokioloop.Job, Future[T]):
    """The future of a job: a ``concurrent.futures.Future``, which ``wait``, ``as_completed`` and ``asyncio.wrap_future`` take.

    Any thread may use it. Unlike a thread pool's, a job whose coroutine runs can be cancelled: the future is cancelled
    at once, and the coroutine's task is cancelled on its own loop. A function that runs can't be cancelled. Callbacks are
    called in the thread that ends the job, most often a worker's, and must not block it.
    """

    __slots__ = ()

    def set_running_or_notify_cancel(self) -> NoReturn:
        """RuntimeError: only the pool does this."""
        raise RuntimeError("only a job's pool begins and ends it")

    def set_result(self, result: object) -> NoReturn:
        """RuntimeError: only the pool does this."""
        raise RuntimeError("only a job's pool begins and ends it")

    def set_exception(self, exception: object) -> NoReturn:
        """RuntimeError: only the pool does this."""
        raise RuntimeError("only a job's pool begins and ends it")


_tokioloop._set_job_class(JobFuture)


def wait_for(job: JobFuture[Any], timeout: float | None) -> None:
    """Block until the job has ended. TimeoutError after *timeout* seconds. Called by the native side."""
    condition = job._condition
    with condition:
        if not condition.wait_for(job.done, timeout):
            raise TimeoutError


def log_failed_callback(job: JobFuture[Any], error: BaseException) -> None:
    """Log an error of a callback of *job*, as ``concurrent.futures`` does. Called by the native side."""
    LOGGER.error("exception calling callback for %r", job, exc_info=error)
