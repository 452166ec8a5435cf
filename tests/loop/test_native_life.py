"""The life of native futures and tasks: weak references, cycles, leaks, and reports about those destroyed too early."""

import asyncio
import contextlib
import gc
import os
import resource
import sysconfig
import weakref
from pathlib import Path

import pytest

import tokioloop

from .support import collected, python


async def give(value=None):
    return value


async def fail(error):
    raise error


async def wait(future):
    return await future


@pytest.fixture
def no_collector():
    """References that are counted right need no collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_weak_references_die_with_their_objects(loop, run, no_collector):
    called = []

    async def main():
        future = loop.create_future()
        task = loop.create_task(give())
        await task
        references = [weakref.ref(future, called.append), weakref.ref(task, called.append)]
        assert references[0]() is future and references[1]() is task
        del future, task
        assert [reference() for reference in references] == [None, None]
        assert len(called) == 2
        assert weakref.WeakSet([loop.create_future()]) is not None

    run(main())


def test_a_done_task_releases_everything_without_the_collector(loop, run, no_collector):
    class Local:
        pass

    async def body():
        local = Local()
        references.append(weakref.ref(local))
        await asyncio.sleep(0)

    references = []

    async def main():
        task = loop.create_task(body())
        references.append(weakref.ref(task))
        await task

    run(main())
    # One more turn, in which the last callback is released.
    run(give())
    assert [reference() for reference in references] == [None, None]


def test_a_pending_task_and_its_loop_are_collected_together():
    other = tokioloop.TokioLoop()
    told = []
    other.set_exception_handler(lambda loop, context: told.append(context["message"]))
    future = other.create_future()
    task = other.create_task(wait(future))
    future.add_done_callback(lambda _, held=(future, task, other): None)
    references = [weakref.ref(task), weakref.ref(future), weakref.ref(other)]
    other.stop()
    other.run_forever()
    other.close()
    del other, future, task
    assert all(collected(reference) for reference in references)
    assert told == ["Task was destroyed but it is pending!"]


def test_a_future_and_its_callback_are_collected(loop):
    future = loop.create_future()

    class Callback:
        def __init__(self, future):
            self.future = future

        def __call__(self, future):
            pass

    for _ in range(3):
        future.add_done_callback(Callback(future))
    reference = weakref.ref(future)
    del future
    assert collected(reference)


def test_a_future_that_is_its_own_result_is_collected(loop):
    future = loop.create_future()
    future.set_result([future])
    reference = weakref.ref(future)
    del future
    assert collected(reference)


def test_an_exception_and_the_frame_that_holds_its_task_are_collected(loop, run):
    async def body():
        # The traceback holds the frame, the frame the task.
        me = asyncio.current_task()
        raise LookupError("held", me)

    async def main():
        task = loop.create_task(body())
        with pytest.raises(LookupError, match="held"):
            await task
        return weakref.ref(task)

    reference = run(main())
    assert collected(reference)


def test_an_abandoned_ring_of_tasks_is_collected_and_reported(loop, run, contexts):
    async def main():
        ring = []

        async def one(n):
            await ring[n]

        futures = [loop.create_future() for _ in range(3)]
        ring.extend(futures)
        tasks = [loop.create_task(one(n)) for n in range(3)]
        await asyncio.sleep(0)
        references = [weakref.ref(task) for task in tasks]
        return references

    references = run(main())
    assert all(collected(reference) for reference in references)
    assert [context["message"] for context in contexts] == ["Task was destroyed but it is pending!"] * 3
    # The reports have revived the tasks; from 3.14 on such tasks are among all tasks, as asyncio's are.
    contexts.clear()
    gc.collect()
    assert asyncio.all_tasks(loop) == set()


def test_destroyed_while_pending_is_not_reported_where_that_is_switched_off(loop, run, contexts):
    async def main():
        task = loop.create_task(wait(loop.create_future()))
        assert task._log_destroy_pending
        task._log_destroy_pending = False
        await asyncio.sleep(0)

    run(main())
    gc.collect()
    assert contexts == []


def test_an_exception_never_retrieved_is_reported_once_and_with_its_place(loop, run, contexts, no_collector):
    async def main():
        future = loop.create_future()
        error = LookupError("unseen")
        future.set_exception(error)
        assert future._log_traceback
        del future
        assert contexts[0]["message"] == "Future exception was never retrieved"
        assert contexts[0]["exception"] is error
        task = loop.create_task(fail(error))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        assert contexts[1]["message"] == "Task exception was never retrieved"
        assert len(contexts) == 2

    run(main())
    contexts.clear()


class Seer:
    """Retrieves the exception in its own finaliser, as asyncio's StreamReaderProtocol does."""

    def __init__(self, future, weight):
        self.future, self.weight = future, bytes(weight)

    def __del__(self):
        self.future.exception()


@pytest.mark.skipif(
    sysconfig.get_config_var("Py_GIL_DISABLED") != 1,
    reason="with the GIL the collector's order decides, as for asyncio's own futures",
)
def test_the_collector_lets_other_finalizers_retrieve_the_exception(loop, run, contexts):
    """The collector's order is unknown: of many pairs some would be finalised in the wrong one."""

    async def main():
        for weight in range(0, 400, 4):
            future = loop.create_future()
            error = LookupError("seen late")
            error.seer = Seer(future, weight)
            future.set_exception(error)
            del future, error
            await asyncio.sleep(0)
            if weight % 40 == 0:
                gc.collect()

    run(main())
    gc.collect()
    assert contexts == []


def test_the_collector_reports_errors_never_retrieved(loop, run, contexts):
    async def main():
        future = loop.create_future()
        error = LookupError("unseen")
        error.future = future
        future.set_exception(error)
        del future, error
        gc.collect()
        assert [str(context["exception"]) for context in contexts] == ["unseen"]

    run(main())
    gc.collect()
    assert len(contexts) == 1
    contexts.clear()


@pytest.mark.parametrize("look", ["result", "exception", "await", "cancel", "switched off"])
def test_a_retrieved_exception_is_not_reported(look, loop, run, contexts):
    async def main():
        future = loop.create_future()
        future.set_exception(LookupError("seen"))
        if look == "exception":
            future.exception()
        elif look == "cancel":
            future.cancel()
        elif look == "switched off":
            future._log_traceback = False
        else:
            with pytest.raises(LookupError):
                future.result() if look == "result" else await future
        assert not future._log_traceback

    run(main())
    gc.collect()
    assert contexts == []


ENDS = ["result", "exception", "cancelled", "pending", "eager", "nested", "callbacks", "subclass"]


class Derived(tokioloop.Task):
    pass


async def end(loop, how):
    """Makes a future and a task that end in this way."""
    future = loop.create_future()
    if how == "eager":
        task = tokioloop.Task(give(), loop=loop, eager_start=True)
    elif how == "subclass":
        task = Derived(give(), loop=loop, name="named")
    else:
        task = loop.create_task(wait(future))
    task._log_destroy_pending = False
    if how != "pending":
        await asyncio.sleep(0)
    if how in ("result", "nested"):
        future.set_result(object())
        if how == "nested":
            await asyncio.gather(task, asyncio.shield(future))
    elif how == "exception":
        future.set_exception(LookupError())
    elif how == "cancelled":
        task.cancel("message")
    elif how == "callbacks":
        for _ in range(3):
            future.add_done_callback(lambda _: None)
        future.remove_done_callback(print)
        future.cancel()
    if how == "pending":
        return
    with contextlib.suppress(LookupError, asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ENDS)
def test_ten_thousand_of_each_end_leave_nothing(how, loop, run):
    async def many(count):
        for _ in range(count):
            await end(loop, how)
        await asyncio.sleep(0)

    def left():
        for _ in range(3):
            gc.collect()
        kinds = (tokioloop.Future, tokioloop.Task)
        live = sum(isinstance(each, kinds) for each in gc.get_objects())
        return live, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    # 3.14t's allocator takes some rounds to come to rest, with asyncio's tasks too; a leak never does.
    for _ in range(3):
        run(many(10_000))
    run(give())
    live, rss = left()
    run(many(10_000))
    run(give())
    live_after, rss_after = left()
    assert live_after <= live
    assert rss_after < rss + (4 << 20), "memory grew"


def test_a_long_chain_of_waiting_tasks_goes_at_once():
    """Each holds the next: taken apart link by link, not in one recursion per link that ends the stack."""
    python(
        """
        import asyncio, gc, tokioloop

        async def link(before):
            await before

        async def main():
            loop = asyncio.get_running_loop()
            first = last = loop.create_future()
            for n in range(20_000):
                last = loop.create_task(link(last))
                if n % 100 == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.set_result(1)
            await last

        tokioloop.run(main())
        gc.collect()
        """
    )


def test_a_fork_leaves_the_child_its_tasks(loop, run):
    async def main():
        task = loop.create_task(wait(loop.create_future()))
        await asyncio.sleep(0)
        child = os.fork()
        if child == 0:
            os._exit(0 if task in asyncio.all_tasks(loop) and not task.done() else 1)
        _, status = os.waitpid(child, 0)
        task.cancel()
        return status

    assert run(main()) == 0


def test_all_tasks_finds_no_task_that_the_collector_is_taking_apart(loop, run):
    """It closes their coroutines: a task that came back to life meanwhile would be stepped at the same time."""
    found = []

    class Asks:
        """Finalised first: it calls all_tasks() in the middle of a collection."""

        def __del__(self):
            found.append(asyncio.all_tasks(loop))

    async def main():
        for _ in range(20):
            future = loop.create_future()
            ring = [future, Asks()]
            future.add_done_callback(lambda _, ring=ring: None)
            task = loop.create_task(wait(future))
            task._log_destroy_pending = False
            ring.append(task)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del future, ring, task
        gc.collect()
        return asyncio.all_tasks()

    left = run(main())
    assert len(found) == 20
    assert all(tasks <= left for tasks in found)


def test_destroyed_at_the_interpreters_end_is_reported_as_on_asyncios_loop():
    """Nothing can be imported then, and pyo3 does not attach threads."""
    done = python(
        """
        import asyncio, tokioloop

        async def wait():
            await future

        async def main():
            global future, task
            future = loop.create_future()
            future.task = task = loop.create_task(wait(), name="left")
            await asyncio.sleep(0)

        loop = tokioloop.TokioLoop()
        loop.run_until_complete(main())
        loop.close()
        """
    )
    assert "Task was destroyed but it is pending!" in done.stderr
    assert "name='left'" in done.stderr
