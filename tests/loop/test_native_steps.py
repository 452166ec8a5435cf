"""The steps of native tasks: names, contexts, callbacks, what may be awaited, what may not, and debug mode."""

import asyncio
import contextvars
import logging

import pytest

import tokioloop

variable = contextvars.ContextVar("variable", default="unset")


async def give(value=None):
    return value


async def wait(future):
    return await future


def test_names_count_upwards(loop, run):
    async def main():
        tasks = [loop.create_task(give()) for _ in range(50)]
        numbers = [int(task.get_name().removeprefix("Task-")) for task in tasks]
        assert numbers == sorted(set(numbers))
        await asyncio.gather(*tasks)
        task = loop.create_task(give(), name=5)
        assert task.get_name() == "5"
        task.set_name(("a", 1))
        assert task.get_name() == "('a', 1)"
        await task

    run(main())


def test_each_step_runs_in_the_context_of_its_task(loop, run):
    async def body():
        seen = [variable.get()]
        variable.set("inner")
        await asyncio.sleep(0)
        seen.append(variable.get())
        await loop.create_future()
        return seen

    async def main():
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        task = loop.create_task(body(), context=context)
        assert task.get_context() is context
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert context[variable] == "inner" and variable.get() == "unset"
        task._fut_waiter.set_result(None)
        assert await task == ["given", "inner"]

    run(main())


def test_callbacks_run_in_order_in_their_contexts_and_once(loop, run):
    async def main():
        future = loop.create_future()
        calls = []
        given = contextvars.copy_context()
        given.run(variable.set, "given")

        def note(name):
            return lambda done: calls.append((name, variable.get(), done is future))

        third = note("third")
        variable.set("first")
        future.add_done_callback(note("first"))
        variable.set("second")
        future.add_done_callback(note("second"), context=given)
        for _ in range(3):
            future.add_done_callback(third)
        assert len(future._callbacks) == 5
        assert future.remove_done_callback(third) == 3
        future.add_done_callback(third)
        future.set_result(None)
        assert calls == [], "never at once"
        await asyncio.sleep(0)
        assert calls == [("first", "first", True), ("second", "given", True), ("third", "second", True)]
        assert future._callbacks is None
        future.add_done_callback(note("after"))
        await asyncio.sleep(0)
        assert calls[-1][0] == "after"

    run(main())


def test_removing_the_first_keeps_the_order_of_the_rest(loop, run):
    async def main():
        future = loop.create_future()
        calls = []
        callbacks = [lambda _, n=n: calls.append(n) for n in range(5)]
        for callback in callbacks:
            future.add_done_callback(callback)
        assert future.remove_done_callback(callbacks[0]) == 1
        assert future.remove_done_callback(print) == 0
        future.set_result(None)
        await asyncio.sleep(0)
        assert calls == [1, 2, 3, 4]

    run(main())


def test_a_callback_compared_with_code_that_changes_the_list(loop, run):
    async def main():
        future = loop.create_future()

        class Tricky:
            def __call__(self, future):
                pass

            def __eq__(self, other):
                # Once only: each comparison would start the others, on asyncio's loop too.
                first = not seen
                seen.append(other)
                if first:
                    assert future.remove_done_callback(self) == 1
                return False

            __hash__ = None

        seen = []
        for _ in range(5):
            future.add_done_callback(Tricky())
        assert future.remove_done_callback(print) == 0
        assert len(future._callbacks) == 4
        future.cancel()

    run(main())


@pytest.mark.parametrize("value", [None, 5, (1, 2), LookupError("a value"), StopIteration(3)])
def test_any_value_is_a_result(value, loop, run):
    async def main():
        future = loop.create_future()
        task = loop.create_task(wait(future))
        await asyncio.sleep(0)
        future.set_result(value)
        assert await task is value
        assert await loop.create_task(give(value)) is value
        assert (await task, future.result()) == (value, value)

    run(main())


def test_exceptions_as_they_are_set(loop, run):
    async def main():
        future = loop.create_future()
        with pytest.raises(TypeError, match="invalid exception"):
            future.set_exception(5)
        future.set_exception(LookupError)
        assert isinstance(future.exception(), LookupError)
        with pytest.raises(asyncio.InvalidStateError):
            future.set_result(1)
        with pytest.raises(asyncio.InvalidStateError):
            future.set_exception(ValueError())
        future = loop.create_future()
        future.set_exception(StopIteration(1))
        assert isinstance(future.exception(), RuntimeError)
        with pytest.raises(asyncio.InvalidStateError):
            loop.create_future().result()
        with pytest.raises(asyncio.InvalidStateError):
            loop.create_future().exception()

    run(main())


class Foreign:
    """A future of no known kind: everything goes by its attributes."""

    _asyncio_future_blocking = False

    def __init__(self, loop):
        self.loop, self.callbacks = loop, []

    def get_loop(self):
        return self.loop

    def add_done_callback(self, fn, *, context=None):
        self.callbacks.append((fn, context))

    def result(self):
        return "foreign"

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self
        return self.result()


def test_futures_of_other_kinds_are_awaited(loop, run):
    async def main():
        foreign = Foreign(loop)
        task = loop.create_task(wait(foreign))
        await asyncio.sleep(0)
        ((wakeup, context),) = foreign.callbacks
        assert context is task.get_context() and not foreign._asyncio_future_blocking
        loop.call_soon(wakeup, foreign, context=context)
        assert await task == "foreign"
        base = asyncio.Future(loop=loop)
        loop.call_soon(base.set_result, "asyncio's")
        assert await base == "asyncio's"
        theirs = asyncio.Task(wait(loop.create_task(give("through both"))), loop=loop)
        assert await theirs == "through both"
        assert await loop.run_in_executor(None, int) == 0

    run(main())


def test_awaiting_by_hand(loop, run):
    async def main():
        future = loop.create_future()
        steps = future.__await__()
        assert steps.send(None) is future and future._asyncio_future_blocking
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            steps.send(None)
        with pytest.raises(LookupError):
            steps.throw(LookupError)
        future = loop.create_future()
        future.set_result(7)
        with pytest.raises(StopIteration) as stopped:
            next(iter(future))
        assert stopped.value.value == 7
        future.__await__().close()

    run(main())


def test_a_yield_that_no_task_understands(loop, run):
    class Yields:
        def __init__(self, value):
            self.value = value

        def __await__(self):
            return (yield self.value)

    async def bad(value):
        await Yields(value)

    async def itself():
        await asyncio.current_task()

    other = tokioloop.TokioLoop()
    cases = [
        (bad(5), "Task got bad yield: 5"),
        (bad(loop.create_future()), "yield was used instead of yield from"),
        (bad(n for n in ()), "yield was used instead of yield from for generator"),
        (itself(), "Task cannot await on itself"),
        (wait(other.create_future()), "attached to a different loop"),
        (wait(asyncio.Future(loop=other)), "attached to a different loop"),
    ]

    async def main():
        for coro, text in cases:
            with pytest.raises(RuntimeError, match=text):
                await loop.create_task(coro)

    run(main())
    other.close()


def test_an_awaitable_that_fails_fails_in_the_coroutine(loop, run, contexts):
    """Otherwise nothing would ever step the task again."""

    class NoText:
        def __repr__(self):
            raise LookupError("no text")

        def __await__(self):
            return (yield self)

    class NoCallbacks(Foreign):
        def add_done_callback(self, fn, *, context=None):
            raise LookupError("no callbacks")

    async def main():
        for awaitable in (NoText(), NoCallbacks(loop)):
            with pytest.raises(LookupError, match="no "):
                await loop.create_task(wait(awaitable))

    run(main())
    assert contexts == []


def test_a_step_inside_a_step_is_refused(loop, run):
    async def main():
        future = loop.create_future()
        task = loop.create_task(wait(future))
        await asyncio.sleep(0)
        ((wakeup, _),) = future._callbacks
        with pytest.raises(RuntimeError, match="Cannot enter into task .* while another task"):
            wakeup(future)
        future.set_result(1)
        assert await task == 1
        with pytest.raises(RuntimeError, match="Cannot enter into task"):
            wakeup(future)

    run(main())


def test_a_wake_up_outside_of_a_run_is_refused(loop, run, turn):
    future = loop.create_future()
    task = loop.create_task(wait(future))
    turn()
    ((wakeup, _),) = future._callbacks
    with pytest.raises(RuntimeError, match="does not run"):
        wakeup(future)
    future.set_result(3)
    assert run(wait(task)) == 3


def test_the_exception_that_must_leave_the_loop_leaves_it(loop):
    async def interrupted():
        raise KeyboardInterrupt

    task = loop.create_task(interrupted())
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert isinstance(task.exception(), KeyboardInterrupt)


def test_the_stack_of_a_task(loop, run, capsys):
    async def inner():
        await loop.create_future()

    async def main():
        task = loop.create_task(inner())
        await asyncio.sleep(0)
        (frame,) = task.get_stack()
        assert frame.f_code.co_name == "inner"
        assert task.get_stack(limit=0) == []
        task.print_stack()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.get_stack() == []

    run(main())
    assert "inner" in capsys.readouterr().err


def test_debug_mode_shows_where_things_were_made_and_the_slow_task(loop, run, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0

    async def slow():
        await asyncio.sleep(0)

    async def main():
        future = loop.create_future()
        assert future._source_traceback[-1].name == "main"
        task = loop.create_task(slow(), name="the slow one")
        assert task._source_traceback[-1].name == "main"
        assert "created at" in repr(task)
        await task
        future.set_result(None)
        await future

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    told = [record.getMessage() for record in caplog.records]
    assert any("the slow one" in text and "took" in text for text in told), told


def test_a_task_of_asyncios_own_type_beside_ours(loop, run):
    async def main():
        theirs = asyncio.Task(wait(loop.create_future()), loop=loop, name="theirs")
        ours = loop.create_task(wait(theirs), name="ours")
        await asyncio.sleep(0)
        assert {theirs, ours} <= asyncio.all_tasks()
        ours.cancel("both")
        with pytest.raises(asyncio.CancelledError):
            await ours
        assert theirs.cancelled() and type(theirs) is asyncio.Task

    run(main())


def test_a_callback_is_removed_by_identity_whatever_its_eq_returns(loop):
    class Unequal:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other):
            raise ValueError("not to be asked of itself")

        def __call__(self, future):
            raise AssertionError("was removed")

    future = loop.create_future()
    callback = Unequal()
    future.add_done_callback(callback)
    assert future.remove_done_callback(callback) == 1
    future.set_result(None)
    loop.call_soon(loop.stop)
    loop.run_forever()
