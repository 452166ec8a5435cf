"""Native futures and tasks from threads that do not run their loop: reading is safe, changing is refused or routed."""

import asyncio
import concurrent.futures
import io
import threading
from contextvars import copy_context

import pytest

import tokioloop

from .conftest import Elsewhere
from .support import PATIENCE


async def wait(future):
    return await future


class Targets:
    """A future, and a task that waits for it, of a loop that runs in another thread."""

    def __init__(self, there):
        self.there = there

        async def make():
            self.future = there.loop.create_future()
            self.task = asyncio.create_task(wait(self.future), name="waits")
            await asyncio.sleep(0)

        there.wait(make())

    def end(self):
        self.there.call(self.future.cancel)
        self.there.call(self.task.cancel)


@pytest.fixture
def targets(elsewhere):
    targets = Targets(elsewhere)
    yield targets
    targets.end()


CHANGES = {
    "cancel": lambda each: each.cancel(),
    "cancel with a message": lambda each: each.cancel("why"),
    "add_done_callback": lambda each: each.add_done_callback(print),
    "add_done_callback in a context": lambda each: each.add_done_callback(print, context=copy_context()),
    "remove_done_callback": lambda each: each.remove_done_callback(print),
    "_asyncio_future_blocking": lambda each: setattr(each, "_asyncio_future_blocking", True),
    "_cancel_message": lambda each: setattr(each, "_cancel_message", "x"),
}
OF_A_FUTURE = {
    "set_result": lambda each: each.set_result(1),
    "set_exception": lambda each: each.set_exception(ValueError("x")),
}
OF_A_TASK = {
    "uncancel": lambda each: each.uncancel(),
    "get_stack": lambda each: each.get_stack(),
    "print_stack": lambda each: each.print_stack(file=io.StringIO()),
}


@pytest.mark.parametrize("name", CHANGES | OF_A_FUTURE)
def test_changing_a_future_is_refused_and_the_safe_call_named(name, targets):
    change = (CHANGES | OF_A_FUTURE)[name]
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        change(targets.future)
    assert not targets.future.done() and targets.future._cancel_message is None


@pytest.mark.parametrize("name", CHANGES | OF_A_TASK)
def test_changing_a_task_is_refused_and_the_safe_call_named(name, targets):
    change = (CHANGES | OF_A_TASK)[name]
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        change(targets.task)
    assert not targets.task.done() and targets.task.cancelling() == 0


def test_waking_a_task_is_refused(targets):
    ((wakeup, _),) = targets.future._callbacks
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        wakeup(targets.future)


def test_the_named_way_is_safe(targets):
    targets.there.loop.call_soon_threadsafe(targets.future.set_result, 5)
    assert targets.there.wait(wait(targets.task)) == 5


def test_looking_is_safe_from_anywhere(targets):
    there, future, task = targets.there, targets.future, targets.task
    assert "pending" in repr(future) and "name='waits'" in repr(task) and "wait_for=<Future" in repr(task)
    for each in (future, task):
        assert not each.done() and not each.cancelled()
        assert each.get_loop() is there.loop and each._loop is there.loop
        assert each._state == "PENDING" and each._exception is None and each._result is None
        assert not each._log_traceback and each._source_traceback is None
        with pytest.raises(asyncio.InvalidStateError):
            each.result()
        with pytest.raises(asyncio.InvalidStateError):
            each.exception()
    assert task.get_name() == "waits"
    task.set_name("renamed")
    assert task.get_name() == "renamed" and there.call(task.get_name) == "renamed"
    assert task.get_coro() is task._coro and task.get_coro().__name__ == "wait"
    assert task._fut_waiter is future and future._callbacks[0][0].__self__ is task
    assert task.get_context() is future._callbacks[0][1]
    assert not task._must_cancel and task._log_destroy_pending
    there.call(future.set_exception, LookupError("told"))
    with pytest.raises(LookupError, match="told"):
        there.wait(wait(task))
    for each in (future, task):
        assert each.done() and isinstance(each.exception(), LookupError)
        with pytest.raises(LookupError, match="told"):
            each.result()
    assert "exception=LookupError('told')" in repr(task)


def test_repr_from_another_thread_while_callbacks_come_and_go(targets):
    """asyncio's own function looks at the callbacks twice, and fails where they are gone the second time."""
    there, over, errors = targets.there, threading.Event(), []
    shown = [targets.future]

    async def churn():
        while not over.is_set():
            future = shown[0] = there.loop.create_future()
            future.add_done_callback(print)
            future.remove_done_callback(print)
            await asyncio.sleep(0)

    def look():
        try:
            for _ in range(2000):
                assert repr(shown[0]).startswith("<Future pending")
        except BaseException as error:
            errors.append(error)

    shown = [targets.future]
    churning = asyncio.run_coroutine_threadsafe(churn(), there.loop)
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE)
    over.set()
    churning.result(PATIENCE)
    assert errors == []


def test_a_future_of_asyncios_own_that_is_waited_for_is_not_looked_into(elsewhere):
    class Touchy(asyncio.Future):
        def __repr__(self):
            raise LookupError("looked into")

    async def make():
        task = asyncio.create_task(wait(Touchy()))
        await asyncio.sleep(0)
        return task

    task = elsewhere.wait(make())
    assert "Touchy object at" in repr(task)
    elsewhere.call(task.cancel)


def test_repr_of_a_future_is_the_same_from_anywhere(targets):
    for end in (lambda future: None, lambda future: future.set_result([1])):
        targets.there.call(end, targets.future)
        assert repr(targets.future) == targets.there.call(repr, targets.future)


def test_a_foreign_future_awaited_in_another_loop_is_refused(loop, run, targets):
    async def main():
        for each in (targets.future, targets.task):
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await each
            with pytest.raises((RuntimeError, ValueError)):
                await asyncio.gather(each, loop.create_future())

    run(main())
    assert not targets.future.done() and not targets.task.done()


@pytest.fixture
def routing():
    there = Elsewhere.__new__(Elsewhere)
    there.loop = tokioloop.TokioLoop(cross_thread="route")
    started = threading.Event()
    there.loop.call_soon(started.set)
    there.thread = threading.Thread(target=there.loop.run_forever)
    there.thread.start()
    assert started.wait(PATIENCE)
    yield there
    there.end()


def test_changes_are_routed_where_that_was_asked_for(routing):
    targets = Targets(routing)
    done = threading.Event()
    called = []
    targets.future.add_done_callback(lambda future: (called.append(threading.current_thread()), done.set()))
    targets.future.set_result("from afar")
    assert done.wait(PATIENCE)
    assert called == [routing.thread]
    assert routing.wait(wait(targets.task)) == "from afar"


def test_cancelling_and_failing_are_routed(routing):
    targets = Targets(routing)
    assert targets.task.cancel("routed") is True
    with pytest.raises(concurrent.futures.CancelledError):
        routing.wait(wait(targets.task))
    future = routing.call(routing.loop.create_future)
    future.set_exception(LookupError("routed"))
    with pytest.raises(LookupError, match="routed"):
        routing.wait(wait(future))


def test_what_must_answer_at_once_is_refused_even_then(routing):
    targets = Targets(routing)
    for change in (*OF_A_TASK.values(), lambda task: task.remove_done_callback(print)):
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            change(targets.task)
    targets.end()


def test_while_the_loop_does_not_run_any_thread_may_change(loop):
    future = loop.create_future()
    task = loop.create_task(wait(future))
    thread = threading.Thread(target=future.set_result, args=(9,))
    thread.start()
    thread.join()
    assert loop.run_until_complete(task) == 9


def test_the_frames_of_a_loop_bound_elsewhere_are_not_looked_at(elsewhere):
    """Its own thread might run it at any moment."""
    targets = Targets(elsewhere)
    task = targets.task
    elsewhere.loop.stop()
    elsewhere.thread.join(PATIENCE)
    with pytest.raises(RuntimeError):
        task.get_stack()
    assert "coro=<wait()>" in repr(task)
    task._log_destroy_pending = False
    elsewhere.thread = threading.Thread(target=elsewhere.loop.run_forever)
    elsewhere.thread.start()
    targets.end()


@pytest.mark.parametrize("value", ["other", "", "RAISE"])
def test_an_unknown_choice(value):
    with pytest.raises(ValueError, match="cross_thread must be"):
        tokioloop.TokioLoop(cross_thread=value)
