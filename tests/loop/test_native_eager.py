"""Tasks that start at once, and the current task at each point of tasks inside tasks, ours and asyncio's."""

import asyncio
import contextvars
import inspect

import pytest

import tokioloop

variable = contextvars.ContextVar("variable", default="unset")


async def give(value=None):
    return value


async def wait(future):
    return await future


def test_the_loops_own_create_task_takes_eager_start(loop, run):
    async def main():
        began = []

        async def body():
            began.append(asyncio.current_task())
            await asyncio.sleep(0)
            return "later"

        task = loop.create_task(body(), eager_start=True)
        assert began == [task] and not task.done()
        assert task in asyncio.all_tasks()
        assert await task == "later"
        done = loop.create_task(give(5), eager_start=True)
        assert done.done() and done.result() == 5 and done.get_coro() is None
        assert done not in asyncio.all_tasks()
        assert not loop.create_task(give(), eager_start=False).done()

    run(main())


def test_not_eager_while_the_loop_does_not_run(loop):
    task = tokioloop.Task(give(3), loop=loop, eager_start=True)
    assert not task.done()
    assert loop.run_until_complete(task) == 3


def test_the_eager_factory_makes_native_tasks(loop, run):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        task = asyncio.create_task(give(1), name="eager")
        assert type(task) is tokioloop.Task and task.done() and task.get_name() == "eager"
        assert await asyncio.gather(*(give(n) for n in range(5))) == list(range(5))

    run(main())


def test_how_an_eager_start_ends(loop, run):
    async def fails():
        raise LookupError("at once")

    async def cancels():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def main():
        task = tokioloop.Task(fails(), loop=loop, eager_start=True)
        assert task.done() and isinstance(task.exception(), LookupError)
        task = tokioloop.Task(cancels(), loop=loop, eager_start=True)
        with pytest.raises(asyncio.CancelledError):
            await task
        future = loop.create_future()
        task = tokioloop.Task(wait(future), loop=loop, eager_start=True)
        assert task._fut_waiter is future
        future.set_result(2)
        assert await task == 2

    run(main())


def test_an_eager_start_runs_in_its_context(loop, run):
    async def sets():
        variable.set("inner")
        return variable.get()

    async def main():
        assert tokioloop.Task(sets(), loop=loop, eager_start=True).result() == "inner"
        assert variable.get() == "unset"
        context = contextvars.copy_context()
        tokioloop.Task(sets(), loop=loop, eager_start=True, context=context)
        assert context[variable] == "inner"

    run(main())


def test_an_eager_start_that_interrupts_leaves_the_outer_task_current(loop, run):
    async def interrupts():
        raise SystemExit(3)

    async def main():
        me = asyncio.current_task()
        with pytest.raises(SystemExit):
            tokioloop.Task(interrupts(), loop=loop, eager_start=True)
        assert asyncio.current_task() is me

    run(main())


def kinds():
    return [("ours", tokioloop.Task), ("theirs", asyncio.Task)]


@pytest.mark.parametrize("order", ["ours-theirs", "theirs-ours", "ours-ours", "theirs-theirs"])
def test_the_current_task_of_nested_eager_starts(order, loop, run):
    classes = dict(kinds())
    outer_class, inner_class = (classes[name] for name in order.split("-"))

    async def inner():
        seen.append(("inner", asyncio.current_task()))
        await asyncio.sleep(0)
        seen.append(("inner later", asyncio.current_task()))

    async def outer():
        seen.append(("outer", asyncio.current_task()))
        task = inner_class(inner(), loop=loop, eager_start=True)
        made.append(task)
        seen.append(("outer after", asyncio.current_task()))
        await task
        seen.append(("outer later", asyncio.current_task()))

    seen, made = [], []

    async def main():
        me = asyncio.current_task()
        task = outer_class(outer(), loop=loop, eager_start=True)
        assert asyncio.current_task() is me
        assert {me, task, made[0]} <= asyncio.all_tasks()
        await task
        assert asyncio.current_task() is me
        inner_task = made[0]
        assert seen == [
            ("outer", task),
            ("inner", inner_task),
            ("outer after", task),
            ("inner later", inner_task),
            ("outer later", task),
        ]

    run(main())


def test_no_task_is_current_in_a_callback(loop, run):
    async def main():
        future = loop.create_future()
        loop.call_soon(lambda: future.set_result(asyncio.current_task()))
        assert await future is None
        done = loop.create_future()
        future = loop.create_future()
        future.add_done_callback(lambda _: done.set_result(asyncio.current_task()))
        future.set_result(None)
        assert await done is None

    run(main())


def test_an_eager_start_in_a_callback(loop, run):
    async def main():
        future = loop.create_future()

        async def body():
            return asyncio.current_task()

        def callback():
            task = tokioloop.Task(body(), loop=loop, eager_start=True)
            future.set_result((task, task.result(), asyncio.current_task()))

        loop.call_soon(callback)
        task, inside, after = await future
        assert inside is task and after is None

    run(main())


def test_a_thousand_eager_starts_inside_one_another(loop, run):
    async def nest(depth):
        if depth:
            me = asyncio.current_task()
            assert await tokioloop.Task(nest(depth - 1), loop=loop, eager_start=True) == depth - 1
            assert asyncio.current_task() is me
        return depth

    run(nest(50))


def test_factories_get_the_arguments_of_create_task(loop, run):
    calls = []

    def factory(loop, coro, **options):
        calls.append(options)
        return tokioloop.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)

    async def main():
        task = loop.create_task(give(1), name="named", context=contextvars.copy_context())
        assert task.get_name() == "named" and await task == 1
        assert inspect.iscoroutine(task.get_coro())

    run(main())
    assert "context" in calls[-1]
