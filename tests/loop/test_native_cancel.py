"""Cancelling native tasks: requests counted, messages, moments, and asyncio's tools that are built on it."""

import asyncio
import contextlib

import pytest

import tokioloop


async def give(value=None):
    return value


async def wait(future):
    return await future


def test_requests_are_counted_and_taken_back(loop, run):
    async def body():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            me = asyncio.current_task()
            assert me.cancelling() == 2
            assert me.uncancel() == 1
            assert me.uncancel() == 0
            assert me.uncancel() == 0
            await asyncio.sleep(0)
            return "went on"

    async def main():
        task = loop.create_task(body())
        await asyncio.sleep(0)
        assert task.cancelling() == 0
        assert task.cancel() and task.cancel()
        assert task.cancelling() == 2 and "cancelling" in repr(task)
        assert await task == "went on"
        assert not task.cancelled() and not task.cancel()

    run(main())


def test_a_request_taken_back_before_it_was_delivered(loop, run):
    async def main():
        task = loop.create_task(give("done"))
        task.cancel()
        assert task._must_cancel
        task.uncancel()
        assert not task._must_cancel
        assert await task == "done"

    run(main())


@pytest.mark.parametrize("message", [None, "why", ("a", 1)])
def test_the_message_reaches_the_awaiting_task(message, loop, run):
    async def main():
        task = loop.create_task(wait(loop.create_future()))
        await asyncio.sleep(0)
        task.cancel(msg=message)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == (() if message is None else (message,))
        future = loop.create_future()
        assert future.cancel(message)
        assert future._cancel_message == message
        with pytest.raises(asyncio.CancelledError) as caught:
            future.result()
        assert caught.value.args == (() if message is None else (message,))
        with pytest.raises(asyncio.CancelledError):
            future.exception()

    run(main())


def test_cancelled_before_its_first_step(loop, run):
    began = []

    async def body():
        began.append(True)

    async def main():
        task = loop.create_task(body())
        task.cancel("early")
        with pytest.raises(asyncio.CancelledError, match="early"):
            await task
        assert not began

    run(main())


def test_cancelled_in_its_own_step(loop, run):
    async def returns():
        asyncio.current_task().cancel("myself")
        return 1

    async def waits():
        asyncio.current_task().cancel("myself")
        await asyncio.sleep(10)

    async def main():
        for body in (returns, waits):
            task = loop.create_task(body())
            with pytest.raises(asyncio.CancelledError, match="myself"):
                await task
            assert task.cancelled()

    run(main())


def test_a_future_that_refuses_is_cancelled_in_the_next_step(loop, run):
    class Stubborn(tokioloop.Future):
        def cancel(self, msg=None):
            return False

    async def main():
        future = Stubborn(loop=loop)
        task = loop.create_task(wait(future))
        await asyncio.sleep(0)
        task.cancel("later")
        assert task._must_cancel and task._fut_waiter is future
        future.set_result("too late")
        with pytest.raises(asyncio.CancelledError, match="later"):
            await task

    run(main())


def test_a_task_that_suppresses_its_cancellation_goes_on(loop, run):
    async def body():
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await loop.create_future()
        return "stubborn"

    async def main():
        task = loop.create_task(body())
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        assert await task == "stubborn"

    run(main())


def test_the_traceback_of_the_cancellation_shows_where_it_struck(loop, run):
    async def inner_place():
        await loop.create_future()

    async def main():
        task = loop.create_task(inner_place())
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            names = []
            while error:
                traceback = error.__traceback__
                while traceback:
                    names.append(traceback.tb_frame.f_code.co_name)
                    traceback = traceback.tb_next
                error = error.__context__
            assert "inner_place" in names

    run(main())


def test_a_cancelled_future_wakes_all_its_waiters(loop, run):
    async def main():
        future = loop.create_future()
        tasks = [loop.create_task(wait(future)) for _ in range(3)]
        await asyncio.sleep(0)
        assert future.cancel("all") and not future.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3

    run(main())


def test_timeout(loop, run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await loop.create_future()
        assert asyncio.current_task().cancelling() == 0
        async with asyncio.timeout(None) as scope:
            scope.reschedule(loop.time() + 100)
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.001)
        assert await asyncio.wait_for(give(3), 10) == 3

    run(main())


def test_a_timeout_does_not_hide_another_cancellation(loop, run):
    async def body():
        async with asyncio.timeout(0):
            asyncio.current_task().cancel("stronger")
            await asyncio.sleep(1)

    async def main():
        task = loop.create_task(body())
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_task_groups(loop, run):
    async def fails():
        await asyncio.sleep(0)
        raise LookupError("one of them")

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(give(n)) for n in range(10)]
        assert [task.result() for task in tasks] == list(range(10))
        stays = []

        async def group_that_fails():
            async with asyncio.TaskGroup() as group:
                stays.append(group.create_task(wait(loop.create_future())))
                group.create_task(fails())

        with pytest.raises(ExceptionGroup) as caught:
            await group_that_fails()
        assert caught.group_contains(LookupError) and stays[0].cancelled()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_gather_shield_wait_and_as_completed(loop, run):
    async def main():
        assert await asyncio.gather(give(1), give(2), loop.create_task(give(3))) == [1, 2, 3]
        inner = loop.create_task(wait(loop.create_future()))
        outer = asyncio.ensure_future(asyncio.shield(inner))
        await asyncio.sleep(0)
        outer.cancel()
        await asyncio.sleep(0)
        assert outer.cancelled() and not inner.done()
        gathered = asyncio.gather(inner, give())
        await asyncio.sleep(0)
        gathered.cancel("the whole")
        with pytest.raises(asyncio.CancelledError):
            await gathered
        assert inner.cancelled()
        futures = [loop.create_future() for _ in range(3)]
        futures[1].set_result("first")
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        assert done == {futures[1]} and len(pending) == 2
        for future in pending:
            future.set_result("later")
        got = [await each for each in asyncio.as_completed(futures)]
        assert sorted(got) == ["first", "later", "later"]

    run(main())


def test_a_runner_cancels_the_remaining_tasks_and_interrupts_its_main_task():
    ended = []

    async def stays():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(asyncio.current_task().get_name())

    async def main():
        task = asyncio.create_task(stays(), name="left behind")
        await asyncio.sleep(0)
        assert not task.done()
        return type(asyncio.current_task())

    with asyncio.Runner(loop_factory=tokioloop.TokioLoop) as runner:
        assert runner.run(main()) is tokioloop.Task
        assert ended == []
    assert ended == ["left behind"]
    assert tokioloop.run(main()) is tokioloop.Task
