"""current_task and all_tasks: every way of asking gets the right answer, from any thread."""

import asyncio
import sys
import threading

import pytest

from .support import PATIENCE, python


async def wait(future):
    return await future


WAYS = """
import asyncio, asyncio.tasks
from asyncio import all_tasks, current_task
from asyncio.tasks import all_tasks as tasks_all, current_task as tasks_current
import _asyncio
c_current = _asyncio.current_task
c_all = getattr(_asyncio, "all_tasks", all_tasks)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_imports_made_before_or_after_ours(when):
    python(
        (WAYS + "import tokioloop\n" if when == "before" else "import tokioloop\n" + WAYS)
        + """
async def child(future):
    await future

async def main():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = asyncio.create_task(child(future))
    await asyncio.sleep(0)
    me = asyncio.current_task()
    assert type(me) is tokioloop.Task
    for ask in (asyncio.current_task, asyncio.tasks.current_task, current_task, tasks_current, c_current):
        assert ask() is me and ask(loop) is me and ask(loop=loop) is me and ask(None) is me
    for ask in (asyncio.all_tasks, asyncio.tasks.all_tasks, all_tasks, tasks_all, c_all):
        assert ask() == ask(loop) == ask(loop=loop) == {me, task}
    future.set_result(None)
    await task
    assert all_tasks() == {me}

tokioloop.run(main())

async def theirs():
    assert type(current_task()) is asyncio.Task and current_task() in all_tasks()

asyncio.run(theirs())
for ask in (current_task, all_tasks):
    try:
        ask()
    except RuntimeError as error:
        assert "no running event loop" in str(error)
    else:
        raise AssertionError(ask)
"""
    )


# Threads that read while a loop is busy wait for the GIL, where there is one, some milliseconds each time.
LOOKS = 30 if sys._is_gil_enabled() else 1000


def test_wrong_arguments_are_refused_as_ever(loop, run):
    async def main():
        for arguments, options in [((1, 2), {}), ((), {"unknown": 1}), ((loop,), {"loop": loop})]:
            with pytest.raises(TypeError):
                asyncio.current_task(*arguments, **options)
            with pytest.raises(TypeError):
                asyncio.all_tasks(*arguments, **options)

    run(main())


def test_all_tasks_of_a_loop_that_does_not_run(loop):
    future = loop.create_future()
    task = loop.create_task(wait(future))
    assert asyncio.all_tasks(loop) == {task}
    assert asyncio.current_task(loop) is None
    future.set_result(None)
    loop.run_until_complete(task)
    assert asyncio.all_tasks(loop) == set()


def test_each_loop_has_its_own(loop, elsewhere):
    async def there():
        return asyncio.current_task(), asyncio.all_tasks(), asyncio.all_tasks(loop)

    task = loop.create_task(wait(loop.create_future()))
    current, own, others = elsewhere.wait(there())
    assert own == {current} and others == {task}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_asked_from_another_thread_while_tasks_come_and_go(elsewhere):
    """A task that lives all the time is in every snapshot, and every task found belongs to the loop."""
    over = threading.Event()
    steady = elsewhere.call(lambda: asyncio.ensure_future(wait(elsewhere.loop.create_future())))
    turns = []

    async def churn():
        while not over.is_set():
            tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(50)]
            await asyncio.gather(*tasks)
            turns.append(len(tasks))

    future = asyncio.run_coroutine_threadsafe(churn(), elsewhere.loop)
    errors = []

    def look():
        try:
            for _ in range(LOOKS):
                tasks = asyncio.all_tasks(elsewhere.loop)
                assert steady in tasks
                assert all(task.get_loop() is elsewhere.loop for task in tasks)
                current = asyncio.current_task(elsewhere.loop)
                assert current is None or isinstance(current, asyncio.Task)
                assert all(repr(task).startswith("<Task ") for task in tasks)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE)
    over.set()
    future.result(PATIENCE)
    elsewhere.call(steady.cancel)
    assert not errors and turns


def test_the_current_task_seen_from_another_thread(elsewhere):
    inside, go_on = threading.Event(), threading.Event()

    async def body():
        inside.set()
        go_on.wait(PATIENCE)
        return asyncio.current_task()

    future = asyncio.run_coroutine_threadsafe(body(), elsewhere.loop)
    assert inside.wait(PATIENCE)
    seen = asyncio.current_task(elsewhere.loop)
    go_on.set()
    assert future.result(PATIENCE) is seen
