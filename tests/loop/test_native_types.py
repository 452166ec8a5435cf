"""Native futures and tasks as types: what they derive from, that nothing of the base is left, and classes derived from them."""

import asyncio
import collections.abc
import gc
import weakref

import pytest

import tokioloop

from .support import python

BASES = [(asyncio.Future, tokioloop.Future), (asyncio.Task, tokioloop.Task)]
# Names that the bases inherit from object, or that the interpreter looks up on the type itself.
INHERITED = {"__new__", "__module__", "__doc__", "__getattribute__", "__weakref__", "__dict__"}


async def give(value=None):
    return value


async def wait(future):
    return await future


def test_the_loops_own_futures_and_tasks_are_native(loop, run):
    async def main():
        task = asyncio.current_task()
        assert type(task) is tokioloop.Task
        assert isinstance(task, asyncio.Task) and isinstance(task, asyncio.Future)
        future = loop.create_future()
        assert type(future) is tokioloop.Future
        assert isinstance(future, asyncio.Future) and not isinstance(future, asyncio.Task)
        future.set_result(None)
        for each in (task, future):
            assert asyncio.isfuture(each)
            assert asyncio.ensure_future(each) is each
            assert isinstance(each, collections.abc.Awaitable)
            assert not isinstance(each, collections.abc.Iterator)
        match task:
            case asyncio.Task():
                return "a task"

    assert run(main()) == "a task"


@pytest.mark.parametrize(("base", "native"), BASES, ids=["Future", "Task"])
def test_derived_from_asyncios_types(base, native):
    assert issubclass(native, base) and issubclass(native, asyncio.Future)
    assert native.__name__ == base.__name__
    assert native[int].__origin__ is native


@pytest.mark.parametrize(("base", "native"), BASES, ids=["Future", "Task"])
def test_everything_that_the_base_defines_is_overridden(base, native):
    defined = {name for kind in base.__mro__[:-1] for name in vars(kind)}
    assert defined - set(vars(native)) <= INHERITED
    for name in defined & set(vars(native)):
        assert vars(native)[name] is not vars(base).get(name), name


@pytest.mark.parametrize("kind", ["Future", "Task"])
def test_methods_of_the_base_called_unbound_never_crash(kind):
    """The base's fields of a native object are empty: its functions raise, or answer as for an object without content."""
    python(
        """
        import asyncio, contextlib, gc, io, sys, tokioloop

        kind = sys.argv[1]
        base, native = getattr(asyncio, kind), getattr(tokioloop, kind)

        async def sleep():
            await asyncio.sleep(0)

        ARGUMENTS = [(), (None,), (print,), (1,), (ValueError(),), ("name",), (1, 2)]

        def targets(loop):
            if kind == "Future":
                done = loop.create_future()
                done.set_result(5)
                return [loop.create_future(), done, native.__new__(native)]
            return [loop.create_task(sleep()), native.__new__(native)]

        async def main():
            loop = asyncio.get_running_loop()
            names = [name for each in base.__mro__[:-1] for name in vars(each)]
            for name in names:
                if name in ("__new__", "__init__"):
                    continue
                for target in targets(loop):
                    found = vars(base).get(name) or vars(asyncio.Future)[name]
                    for arguments in ARGUMENTS:
                        try:
                            if callable(found):
                                result = found(target, *arguments)
                                if name in ("__await__", "__iter__"):
                                    next(result), next(result)
                            elif hasattr(found, "__get__"):
                                found.__get__(target)
                                found.__set__(target, *arguments)
                        except (Exception, asyncio.CancelledError):
                            pass
                    with contextlib.suppress(RuntimeError, asyncio.CancelledError):
                        target.cancel()
                        await target
                    del target
                    gc.collect()

        with contextlib.redirect_stderr(io.StringIO()):
            tokioloop.run(main())
        print("alive")
        """,
        kind,
        PYTHONWARNINGS="ignore",
    )


@pytest.mark.parametrize("native", [tokioloop.Future, tokioloop.Task])
def test_objects_without_init_are_refused_by_everything(native):
    empty = native.__new__(native)
    for call in (
        lambda: empty.set_result(1),
        lambda: empty.cancel(),
        lambda: empty.add_done_callback(print),
        lambda: empty.result(),
        lambda: empty.exception(),
        lambda: empty.get_loop(),
        lambda: repr(empty),
        lambda: iter(empty),
        lambda: empty._callbacks,
    ):
        with pytest.raises((RuntimeError, asyncio.InvalidStateError)):
            call()
    assert not empty.done() and not empty.cancelled()


def test_init_is_called_once(loop):
    future = tokioloop.Future(loop=loop)
    with pytest.raises(RuntimeError, match="initialised already"):
        future.__init__(loop=loop)
    other = give()
    task = tokioloop.Task(give(5), loop=loop)
    with pytest.raises(RuntimeError, match="initialised already"):
        task.__init__(other, loop=loop)
    other.close()
    assert loop.run_until_complete(task) == 5


def test_a_loop_of_another_kind_is_refused():
    other = asyncio.new_event_loop()
    coro = give()
    try:
        with pytest.raises(TypeError, match="TokioLoop"):
            tokioloop.Future(loop=other)
        with pytest.raises(TypeError, match="TokioLoop"):
            tokioloop.Task(coro, loop=other)
    finally:
        coro.close()
        other.close()


def test_arguments_that_do_not_fit(loop):
    for arguments, options in [((), {}), ((5,), {"loop": loop}), ((), {"loop": loop, "unknown": 1})]:
        with pytest.raises(TypeError):
            tokioloop.Task(*arguments, **options)
    with pytest.raises(TypeError):
        tokioloop.Future(1, loop=loop)
    with pytest.raises(TypeError):
        loop.create_future().set_result()
    with pytest.raises(TypeError):
        loop.create_future().add_done_callback(print, unknown=1)
    with pytest.raises(TypeError):
        loop.create_future().add_done_callback()
    with pytest.raises(AttributeError):
        del loop.create_future()._log_traceback
    with pytest.raises(ValueError, match="can only be set to False"):
        loop.create_future()._log_traceback = True


def test_tasks_refuse_what_only_futures_may(loop, run):
    async def main():
        task = asyncio.current_task()
        with pytest.raises(RuntimeError, match="does not support set_result"):
            task.set_result(1)
        with pytest.raises(RuntimeError, match="does not support set_exception"):
            task.set_exception(ValueError())

    run(main())


class DerivedFuture(tokioloop.Future):
    __slots__ = ("extra",)
    calls = None

    def result(self):
        self.calls.append("result")
        return super().result()

    def cancel(self, msg=None):
        self.calls.append(("cancel", msg))
        return super().cancel(msg)

    def add_done_callback(self, fn, *, context=None):
        self.calls.append("add_done_callback")
        super().add_done_callback(fn, context=context)


def test_a_derived_future_is_asked_by_its_own_methods(loop, run):
    DerivedFuture.calls = calls = []

    async def main():
        future = DerivedFuture(loop=loop)
        future.extra = 5
        waiter = loop.create_task(wait(future))
        await asyncio.sleep(0)
        assert calls == ["add_done_callback"]
        future.set_result(7)
        assert await waiter == 7
        assert "result" in calls
        future = DerivedFuture(loop=loop)
        waiter = loop.create_task(wait(future))
        await asyncio.sleep(0)
        waiter.cancel("enough")
        assert ("cancel", "enough") in calls
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await waiter

    run(main())


class DerivedTask(tokioloop.Task):
    cancelled_with = None
    gone = None

    def __init__(self, coro, **options):
        self.extra = "attribute"
        super().__init__(coro, **options)

    def cancel(self, msg=None):
        self.cancelled_with = msg
        return super().cancel(msg)

    def __del__(self):
        self.gone.append(self.extra)
        super().__del__()


def test_a_derived_task_runs_waits_and_is_waited_for(loop, run):
    DerivedTask.gone = gone = []
    loop.set_task_factory(lambda loop, coro, **options: DerivedTask(coro, loop=loop, **options))

    async def main():
        assert type(asyncio.current_task()) is DerivedTask
        task = loop.create_task(wait(loop.create_future()), name="derived")
        outer = loop.create_task(wait(task))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.get_name() == "derived" and task in asyncio.all_tasks()
        outer.cancel("from outside")
        with pytest.raises(asyncio.CancelledError, match="from outside"):
            await outer
        assert task.cancelled_with == "from outside" and task.cancelled()
        return weakref.ref(task)

    reference = run(main())
    loop.close()
    assert reference() is None
    assert "attribute" in gone


def test_a_derived_class_that_saves_itself_lives_on(loop, run):
    saved = []

    class Phoenix(tokioloop.Task):
        def __del__(self):
            saved.append(self)

    async def main():
        task = Phoenix(wait(loop.create_future()), loop=loop)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    gc.collect()
    (task,) = saved
    assert task.cancelled() and task.get_name().startswith("Task-")
    assert "Phoenix cancelled" in repr(task)


def test_all_tasks_asked_by_what_a_dying_task_takes_along(loop, run):
    """Neither a weak reference's callback nor an attribute's finaliser finds the dying task."""
    seen = []

    class Asks:
        def __del__(self):
            seen.append(asyncio.all_tasks(loop))

    class Holder(tokioloop.Task):
        pass

    async def main():
        future = loop.create_future()
        task = Holder(wait(future), loop=loop)
        task._log_destroy_pending = False
        task.attribute = Asks()
        reference = weakref.ref(task, lambda _: seen.append(asyncio.all_tasks(loop)))
        await asyncio.sleep(0)
        ((wakeup, _),) = future._callbacks
        assert future.remove_done_callback(wakeup) == 1
        del wakeup, _, task
        return reference

    reference = run(main())
    assert reference() is None
    assert len(seen) == 2
    assert all(not isinstance(task, Holder) for tasks in seen for task in tasks)


def test_asyncios_registers_and_init_called_on_native_tasks_never_crash():
    """Their entries in asyncio's own lists must not stay when the object is freed."""
    python(
        """
        import asyncio, gc, tokioloop
        from asyncio import tasks

        async def sleep():
            await asyncio.sleep(0)

        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(1000):
                task = loop.create_task(sleep())
                for name in "_register_task", "_register_eager_task":
                    getattr(tasks, name)(task)
                await task
                del task
            for _ in range(100):
                task = loop.create_task(sleep())
                asyncio.Task.__init__(task, sleep(), loop=loop)
                await asyncio.sleep(0)
                await task
                del task
            gc.collect()
            for _ in range(3):
                await asyncio.sleep(0)
            tasks._eager_tasks.clear()
            assert {type(task) for task in asyncio.all_tasks()} <= {asyncio.Task, tokioloop.Task}

        tokioloop.run(main())
        """
    )
