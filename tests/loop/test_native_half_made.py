"""A native task that another thread has while its `__init__` runs: it is found empty or whole, and begun once."""

import asyncio
import contextlib
import contextvars
import threading

import pytest

import tokioloop

ROUNDS = 200


async def nothing():
    return 1


@pytest.fixture
def loop():
    loop = tokioloop.new_event_loop()
    yield loop
    loop.close()


def look(task):
    """Every question that a thread may ask. The loop does not run, so that each has an answer or none yet."""
    seen = []
    with contextlib.suppress(RuntimeError):
        seen.append(task.get_loop())
        # A thread that finds the loop finds the rest.
        coro, context, name = task.get_coro(), task.get_context(), task.get_name()
        assert coro is not None
        assert isinstance(context, contextvars.Context)
        assert name == "named"
    assert task._source_traceback is None or task.get_loop() is not None
    return seen


@pytest.mark.parametrize("debug", [False, True])
def test_a_thread_that_finds_the_loop_finds_the_rest(loop, debug):
    loop.set_debug(debug)
    errors = []

    def ask(task, start, over):
        start.wait()
        try:
            while not look(task) and not over.is_set():
                pass
        except BaseException as error:
            errors.append(error)

    for _ in range(ROUNDS if not debug else ROUNDS // 10):
        task = tokioloop.Task.__new__(tokioloop.Task)
        start, over = threading.Barrier(2), threading.Event()
        thread = threading.Thread(target=ask, args=(task, start, over))
        thread.start()
        start.wait()
        try:
            task.__init__(nothing(), loop=loop, name="named")
        finally:
            over.set()
            thread.join()
        assert look(task) == [loop]
        assert loop.run_until_complete(task) == 1
    assert errors == []


def test_of_two_threads_one_begins_a_task(loop):
    for _ in range(ROUNDS):
        task = tokioloop.Task.__new__(tokioloop.Task)
        start = threading.Barrier(2)
        coros = [nothing(), nothing()]
        refused = []

        def begin(coro, task=task, start=start, refused=refused):
            start.wait()
            try:
                task.__init__(coro, loop=loop)
            except RuntimeError:
                refused.append(coro)

        threads = [threading.Thread(target=begin, args=(coro,)) for coro in coros]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert task.get_coro() in coros and task.get_coro() is not refused[0]
        assert task._log_destroy_pending
        assert loop.run_until_complete(task) == 1
        refused[0].close()
        assert len(asyncio.all_tasks(loop)) == 0


def test_what_could_not_be_begun_may_be_tried_again(loop):
    task = tokioloop.Task.__new__(tokioloop.Task)
    with pytest.raises(TypeError, match="coroutine was expected"):
        task.__init__(None, loop=loop)
    with pytest.raises(RuntimeError, match="not initialized"):
        task.get_loop()
    task.__init__(nothing(), loop=loop)
    assert loop.run_until_complete(task) == 1


def test_what_the_loop_made_is_begun(loop):
    future = loop.create_future()
    with pytest.raises(RuntimeError, match="initialised already"):
        future.__init__(loop=loop)
    task = loop.create_task(nothing())
    again = nothing()
    with pytest.raises(RuntimeError, match="initialised already"):
        task.__init__(again, loop=loop)
    again.close()
    assert loop.run_until_complete(task) == 1


def test_the_report_of_a_pending_task_may_be_put_off_before_it_begins(loop):
    task = tokioloop.Task.__new__(tokioloop.Task)
    task._log_destroy_pending = False
    assert not task._log_destroy_pending
    task._log_destroy_pending = True
    assert task._log_destroy_pending
    task.__init__(nothing(), loop=loop)
    task._log_destroy_pending = False
    assert not task._log_destroy_pending
    assert loop.run_until_complete(task) == 1
