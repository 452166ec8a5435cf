"""Running until done, closing, async generators, collection."""

import asyncio
import gc
import warnings
import weakref

import pytest

import tokioloop


def test_result_and_error_of_a_coroutine(loop):
    async def good():
        return 5

    async def bad():
        raise ValueError("bad")

    assert loop.run_until_complete(good()) == 5
    with pytest.raises(ValueError, match="bad"):
        loop.run_until_complete(bad())


def test_future_and_awaitable(loop):
    future = loop.create_future()
    loop.call_soon(future.set_result, 3)
    assert loop.run_until_complete(future) == 3

    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 4

    assert loop.run_until_complete(Awaitable()) == 4


def test_refuses_objects_that_are_not_awaitable(loop):
    with pytest.raises(TypeError, match="An asyncio.Future, a coroutine or an awaitable is required"):
        loop.run_until_complete("blah")


def test_refuses_a_future_of_another_loop(loop):
    other = tokioloop.TokioLoop()
    try:
        with pytest.raises(ValueError, match="loop argument must agree with|belongs to a different loop"):
            loop.run_until_complete(other.create_future())
    finally:
        other.close()


def test_stop_before_the_future_is_done(loop):
    async def stopper():
        loop.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    task = loop.create_task(stopper())
    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    assert task.done()


def test_second_run_is_refused(loop):
    other = tokioloop.TokioLoop()

    async def main():
        for runner, text in (
            (loop, "This event loop is already running"),
            (other, "Cannot run the event loop while another loop is running"),
        ):
            future = runner.create_future()
            with pytest.raises(RuntimeError, match=f"^{text}$"):
                runner.run_until_complete(future)
            with pytest.raises(RuntimeError, match=f"^{text}$"):
                runner.run_forever()

    try:
        loop.run_until_complete(main())
    finally:
        other.close()


def test_closed_loop_refuses_to_run(loop):
    loop.close()
    assert loop.is_closed()
    future = asyncio.Future(loop=loop)
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        loop.run_until_complete(future)
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        loop.call_soon(print)
    loop.close()


def test_running_loop_refuses_to_close(loop):
    async def main():
        with pytest.raises(RuntimeError, match="^Cannot close a running event loop$"):
            loop.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


def test_base_exception_of_the_main_task_is_raised_once(loop, contexts):
    async def main():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert contexts == []


def test_unclosed_loop_warns_and_closes():
    loop = tokioloop.TokioLoop()
    closed = []
    loop.call_soon(closed.append, 1)
    with pytest.warns(ResourceWarning, match="unclosed event loop <TokioLoop running=False closed=False"):
        del loop
        gc.collect()


def test_closed_loop_is_silent_and_collected_in_a_cycle():
    loop = tokioloop.TokioLoop()
    loop.me = loop
    ref = weakref.ref(loop)
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del loop
        gc.collect()
    assert ref() is None


def test_subclass_with_its_own_constructor():
    class Mine(tokioloop.TokioLoop):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, *args, context=context)

    loop = Mine("m")
    try:
        assert loop.name == "m"
        assert loop.run_until_complete(asyncio.sleep(0, "x")) == "x"
        assert isinstance(loop, asyncio.AbstractEventLoop)
    finally:
        loop.close()


def test_new_event_loop_makes_distinct_loops():
    one, two = tokioloop.new_event_loop(), tokioloop.new_event_loop()
    try:
        assert one is not two
        assert type(one) is type(two)
    finally:
        one.close()
        two.close()


async def numbers(closed):
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        closed.append(True)


def test_shutdown_asyncgens_closes_open_generators(loop):
    closed = []

    async def main():
        generators = [numbers(closed) for _ in range(3)]
        for generator in generators:
            assert await anext(generator) == 1
        await loop.shutdown_asyncgens()
        assert closed == [True] * 3
        for generator in generators:
            with pytest.raises(StopAsyncIteration):
                await anext(generator)

    loop.run_until_complete(main())


def test_dropped_generator_is_closed_by_the_loop(loop):
    closed = []

    async def main():
        generator = numbers(closed)
        await anext(generator)
        del generator
        gc.collect()
        while not closed:
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert closed == [True]


def test_generator_that_fails_to_close_is_reported(loop, contexts):
    error = ZeroDivisionError()

    async def broken():
        try:
            yield 1
        finally:
            raise error

    generator = broken()

    async def main():
        await anext(generator)
        await loop.shutdown_asyncgens()

    loop.run_until_complete(main())
    [context] = contexts
    assert context["exception"] is error
    assert context["asyncgen"] is generator
    assert context["message"] == f"an error occurred during closing of asynchronous generator {generator!r}"


def test_generator_started_after_shutdown_warns(loop):
    async def main():
        await loop.shutdown_asyncgens()
        generator = numbers([])
        with pytest.warns(ResourceWarning, match=r"was scheduled after loop\.shutdown_asyncgens\(\) call"):
            await anext(generator)
        await generator.aclose()

    loop.run_until_complete(main())
