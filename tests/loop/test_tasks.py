"""create_task and task factories: names, contexts, eager start."""

import asyncio
import contextvars

import pytest

variable = contextvars.ContextVar("variable", default="unset")


async def read():
    return variable.get()


def test_name_and_context(loop, run):
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    task = loop.create_task(read(), name="named", context=context)
    assert task.get_name() == "named"
    assert task.get_context() is context
    assert run(asyncio.wait_for(task, 5)) == "given"


def test_a_task_takes_a_copy_of_the_current_context(loop, run):
    async def main():
        variable.set("outer")
        task = loop.create_task(read())
        variable.set("changed")
        return await task

    assert run(main()) == "outer"


def test_the_factory_gets_loop_coroutine_and_options(loop, run):
    calls = []

    def factory(loop, coro, **options):
        calls.append((loop, options))
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    context = contextvars.copy_context()
    task = loop.create_task(read(), name="named", context=context)
    assert task.get_name() == "named"
    assert calls[0][0] is loop
    assert calls[0][1]["context"] is context
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    run(asyncio.wait_for(task, 5))


def test_eager_tasks_run_at_once(loop, run):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        order = []

        async def child():
            order.append("child")
            return 5

        task = asyncio.create_task(child(), name="eager")
        order.append("parent")
        assert task.done() and task.get_name() == "eager"
        return order, await task

    assert run(main()) == (["child", "parent"], 5)


def test_eager_tasks_that_wait_go_on_later(loop, run):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001 * (n % 3), n)) for n in range(100)]
        return [task.result() for task in tasks]

    assert run(main()) == list(range(100))


def test_a_factory_that_fails(loop):
    def factory(loop, coro, **options):
        coro.close()
        raise LookupError("no tasks today")

    loop.set_task_factory(factory)
    with pytest.raises(LookupError, match="no tasks today"):
        loop.create_task(read())


def test_an_object_that_is_not_a_factory(loop):
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory("factory")


def test_an_object_that_is_not_a_coroutine(loop):
    with pytest.raises(TypeError):
        loop.create_task(5)
    coro = read()
    with pytest.raises(TypeError):
        loop.create_task(coro, "positional")
    with pytest.raises(TypeError):
        loop.create_task(coro, unknown=1)
    coro.close()


def test_many_tasks(loop, run):
    async def main():
        return await asyncio.gather(*(asyncio.sleep(0, n) for n in range(5000)))

    assert run(main()) == list(range(5000))


def test_a_future_wakes_its_waiters_in_order(loop, run):
    async def main():
        future = loop.create_future()
        order = []

        async def wait(n):
            await future
            order.append(n)

        tasks = [asyncio.create_task(wait(n)) for n in range(10)]
        await asyncio.sleep(0)
        future.set_result(None)
        await asyncio.gather(*tasks)
        return order

    assert run(main()) == list(range(10))


def test_cancelling_a_task_that_waits_for_a_socket_many_times(loop, run, pair):
    near, far = pair

    async def main():
        for _ in range(200):
            task = asyncio.create_task(loop.sock_recv(near, 10))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        far.send(b"still there")
        return await loop.sock_recv(near, 100)

    assert run(main()) == b"still there"
