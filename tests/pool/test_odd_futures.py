"""Errors of what a job's coroutine waits for, and of what makes its task: they are the program's, and neither its worker's end nor
its loop's."""

import asyncio
import contextvars
import logging
import threading

import pytest

from tokioloop import _tokioloop

from ..loop.support import PATIENCE


class Odd:
    """A future of a type of its own, whose ``cancel`` raises."""

    _asyncio_future_blocking = False

    def __init__(self, error):
        self._loop = asyncio.get_running_loop()
        self._error = error

    def get_loop(self):
        return self._loop

    def add_done_callback(self, callback, *, context=None):
        self._waiting = callback, context

    def cancel(self, msg=None):
        raise self._error

    def done(self):
        return False

    def result(self):
        return None

    def end(self):
        """Resume the waiting coroutine. Any thread."""
        callback, context = self._waiting
        self._loop.call_soon_threadsafe(callback, self, context=context)

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self


class Waiter:
    """A coroutine function whose coroutine waits for an odd future."""

    def __init__(self, error):
        self.error, self.begun = error, threading.Event()

    async def __call__(self):
        self.odd = Odd(self.error)
        asyncio.get_running_loop().call_soon(self.begun.set)
        await self.odd


def on(event_loop, value="on"):
    """Whether a loop in another thread still runs calls."""
    return _tokioloop._run_on(event_loop, asyncio.sleep(0, value)).result(PATIENCE) == value


def set_factory(event_loop, factory):
    done = threading.Event()
    event_loop.call_soon_threadsafe(lambda: (event_loop.set_task_factory(factory), done.set()))
    assert done.wait(PATIENCE)


ERRORS = [ValueError("of the program"), asyncio.CancelledError(), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_cancel_that_raises_ends_no_worker(one, caplog, error):
    waiter = Waiter(error)
    with caplog.at_level(logging.ERROR):
        job = one.submit(waiter)
        assert waiter.begun.wait(PATIENCE)
        assert job.cancel() and job.cancelled()
        assert one.submit(int).result(PATIENCE) == 0
    assert "Exception in the cancellation of a task" in caplog.text
    waiter.odd.end()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_cancel_that_raises_ends_no_other_loop(loop_there, caplog, error):
    waiter = Waiter(error)
    with caplog.at_level(logging.ERROR):
        job = _tokioloop._run_on(loop_there, waiter())
        assert waiter.begun.wait(PATIENCE)
        assert job.cancel()
        assert on(loop_there)
    assert "Exception in the cancellation of a task" in caplog.text
    waiter.odd.end()


@pytest.mark.parametrize("made", [7, None, ValueError("of the program"), GeneratorExit()], ids=repr)
def test_a_task_factory_that_makes_no_task(loop_there, made):
    def factory(event_loop, coro, **kwargs):
        coro.close()
        if isinstance(made, BaseException):
            raise made
        return made

    assert on(loop_there)
    set_factory(loop_there, factory)
    job = _tokioloop._run_on(loop_there, asyncio.sleep(0))
    error = job.exception(PATIENCE)
    if isinstance(made, BaseException):
        assert error is made
    else:
        assert isinstance(error, (TypeError, AttributeError))
    set_factory(loop_there, None)
    assert on(loop_there)


def test_a_result_that_says_nonsense_of_itself(one):
    """The object itself is asked whether it is a coroutine."""

    class Liar:
        @property
        def __class__(self):
            raise ValueError("of the program")

        def __await__(self):
            raise AssertionError

    job = one.submit(Liar)
    assert str(job.exception(PATIENCE)) == "of the program"
    assert one.submit(int).result(PATIENCE) == 0


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_callback_of_a_job_that_raises(one, blocked, caplog, error):
    def fail(job):
        raise error

    with caplog.at_level(logging.ERROR):
        blocked.job.add_done_callback(fail)
        told = threading.Event()
        blocked.job.add_done_callback(lambda job: told.set())
        blocked.release()
        assert blocked.job.result(PATIENCE) == "released"
        assert told.wait(PATIENCE)
        assert one.submit(int).result(PATIENCE) == 0
    assert type(error).__name__ in caplog.text


def refuse(*_, **__):
    raise ValueError("of the program")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("get_loop", refuse),
        ("get_loop", lambda self: 7),
        ("get_loop", lambda self: None),
        ("get_loop", lambda self: asyncio.new_event_loop),
        ("add_done_callback", refuse),
        ("add_done_callback", lambda self: None),
        ("_asyncio_future_blocking", property(refuse)),
        ("_asyncio_future_blocking", property(refuse, refuse)),
        ("__repr__", refuse),
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_future_that_lies_is_its_jobs_error(one, name, value, times):
    class Lying(Odd):
        def add_done_callback(self, callback, *, context=None):
            asyncio.get_running_loop().call_soon(callback, self, context=context)

    setattr(Lying, name, value)

    async def wait():
        for _ in range(times):
            await Lying(ValueError())

    job = one.submit(wait)
    error = job.exception(PATIENCE)
    assert error is None if name == "__repr__" else isinstance(error, Exception)
    assert one.submit(int).result(PATIENCE) == 0


class OddTask:
    """A task factory's task, never done, with *methods* in place of its own."""

    def __init__(self, coro, **methods):
        coro.close()
        for name, value in methods.items():
            setattr(self, name, value)

    def done(self):
        return False

    def add_done_callback(self, callback, *, context=None):
        pass


@pytest.mark.parametrize(
    "methods",
    [
        {},
        {"add_done_callback": refuse},
        {"done": refuse},
        {"done": lambda: True, "cancelled": refuse},
        {"done": lambda: True, "cancelled": lambda: False, "exception": refuse},
        {"done": lambda: 7, "cancelled": lambda: False, "exception": lambda: None, "result": refuse},
    ],
    ids=lambda methods: "-".join(methods) or "deaf",
)
def test_a_task_of_the_programs_own_type(one, methods):
    """The job ends, with the error where there is one, and the worker does not wait for it at its end."""

    def once(event_loop, coro, **options):
        event_loop.set_task_factory(None)
        return OddTask(coro, **methods)

    async def prepare():
        asyncio.get_running_loop().set_task_factory(once)

    one.submit(prepare).result(PATIENCE)
    error = one.submit(asyncio.sleep, 0).exception(PATIENCE)
    assert isinstance(error, RuntimeError if not methods else ValueError)
    assert one.submit(int).result(PATIENCE) == 0


def test_a_coroutine_that_waits_and_raises_when_it_is_closed(one, blocked):
    """The future of the cancelled job ends all the same."""

    class Sticky:
        def __await__(self):
            yield

        def send(self, value):
            raise AssertionError

        def throw(self, *args):
            raise AssertionError

        def close(self):
            raise ValueError("of the program")

    loop_of_job = one.submit(asyncio.get_running_loop, worker=0)
    told = threading.Event()
    blocked.release()
    event_loop = loop_of_job.result(PATIENCE)
    inside, go = threading.Event(), threading.Event()
    event_loop.call_soon_threadsafe(lambda: (inside.set(), go.wait(PATIENCE)))
    assert inside.wait(PATIENCE)
    job = _tokioloop._run_on(event_loop, Sticky())
    job.add_done_callback(lambda job: told.set())
    with pytest.raises(ValueError, match="of the program"):
        job.cancel()
    assert job.cancelled() and told.is_set()
    go.set()


def test_a_cancel_runs_in_the_context_of_its_caller(one):
    seen = []
    var = contextvars.ContextVar("var", default="nobody's")

    class Noting(Odd):
        def cancel(self, msg=None):
            seen.append(var.get())
            cancelled.set()
            return True

    begun, cancelled = threading.Event(), threading.Event()

    async def wait():
        wait.odd = Noting(None)
        asyncio.get_running_loop().call_soon(begun.set)
        await wait.odd

    job = one.submit(wait)
    assert begun.wait(PATIENCE)
    var.set("the caller's")
    assert job.cancel()
    assert cancelled.wait(PATIENCE)
    assert seen == ["the caller's"]
    wait.odd.end()
