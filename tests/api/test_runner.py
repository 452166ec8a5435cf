"""asyncio.Runner over this loop, signals included, beside asyncio's own loop: both must behave the same."""

import asyncio
import contextvars
import os
import signal
import sys
import threading

import pytest

import tokioloop

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(params=[tokioloop.new_event_loop, asyncio.SelectorEventLoop], ids=["tokioloop", "asyncio"])
def factory(request):
    return request.param


@pytest.fixture
def runner(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


@pytest.fixture(autouse=True)
def default_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interrupt_soon(factory):
    """Interrupt the loop while it waits: from another thread, at any moment.

    asyncio's own loop may miss that (it has no wakeup descriptor unless it has signal handlers), so there the loop itself
    does it.
    """
    threads = []

    def soon():
        if factory is asyncio.SelectorEventLoop:
            asyncio.get_running_loop().call_soon(interrupt)
        else:
            threads.append(threading.Thread(target=interrupt))
            threads[-1].start()

    yield soon
    for thread in threads:
        thread.join()


async def forever():
    await asyncio.get_running_loop().create_future()


# ---- Ctrl-C -----------------------------------------------------------------------------------------


def test_the_first_interrupt_cancels_main_once(runner, interrupt_soon):
    log = []

    async def main():
        interrupt_soon()
        try:
            await forever()
        except asyncio.CancelledError:
            log.append(("cancelled", asyncio.current_task().cancelling()))
            await asyncio.sleep(0)
            log.append("cleaned up")
            raise

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == [("cancelled", 1), "cleaned up"]


def test_the_second_interrupt_raises_while_the_loop_waits(runner, interrupt_soon):
    log = []

    async def main():
        interrupt_soon()
        try:
            await forever()
        except asyncio.CancelledError:
            log.append("cancelled")
            interrupt_soon()
            await forever()
            log.append("never")

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["cancelled"]


def test_the_second_interrupt_raises_in_running_code(runner):
    log = []

    async def main():
        interrupt()
        log.append("still running")
        try:
            interrupt()
            for _ in range(1000):
                pass
            log.append("never")
        except KeyboardInterrupt:
            log.append("interrupted")
            raise

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["still running", "interrupted"]


def test_an_interrupt_of_a_busy_loop(runner):
    async def main():
        def busy():
            loop.call_soon(busy)

        loop = asyncio.get_running_loop()
        busy()
        loop.call_soon(interrupt)
        await forever()

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())


def test_an_interrupt_of_a_computation_cancels_at_the_next_wait(runner):
    log = []

    async def main():
        interrupt()
        log.append(sum(range(10)))
        await asyncio.sleep(0)
        log.append("never")

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == [45]


def test_main_may_answer_an_interrupt_with_a_result(runner):
    async def main():
        interrupt()
        try:
            await forever()
        except asyncio.CancelledError:
            return "an answer"

    assert runner.run(main()) == "an answer"


def test_main_may_answer_an_interrupt_with_an_error(runner):
    async def main():
        interrupt()
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError("an answer") from None

    with pytest.raises(LookupError, match="an answer"):
        runner.run(main())


def test_a_cancellation_of_other_origin_is_not_an_interrupt(runner):
    async def main():
        asyncio.current_task().cancel()
        await forever()

    with pytest.raises(asyncio.CancelledError):
        runner.run(main())


def test_every_run_counts_its_own_interrupts(runner):
    async def main():
        interrupt()
        await forever()

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert runner.run(asyncio.sleep(0, "in order")) == "in order"


def test_other_tasks_are_not_interrupted(runner):
    async def other():
        await release.wait()
        return "undisturbed"

    async def main():
        nonlocal task
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        interrupt()
        await forever()

    async def then():
        release.set()
        return await task

    task, release = None, asyncio.Event()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert runner.run(then()) == "undisturbed"


def test_a_handler_of_the_programs_own_stays(runner):
    got = []

    def handler(number, frame):
        got.append(number)

    async def main():
        assert signal.getsignal(signal.SIGINT) is handler
        interrupt()
        await asyncio.sleep(0)
        return "not cancelled"

    signal.signal(signal.SIGINT, handler)
    try:
        assert runner.run(main()) == "not cancelled"
        assert got == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_handler_of_the_loop_takes_the_place(runner):
    async def main():
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        loop.add_signal_handler(signal.SIGINT, seen.set_result, "handled")
        interrupt()
        return await seen

    assert runner.run(main()) == "handled"
    runner.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_runner_of_another_thread_leaves_signals_alone(factory):
    seen = []

    async def main():
        seen.append(signal.getsignal(signal.SIGINT))

    def work():
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_what_was_set_for_signals_is_set_again(factory):
    """The wakeup descriptor, too, is the program's own again."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.sleep(0))
            assert signal.set_wakeup_fd(write) == write
    finally:
        signal.set_wakeup_fd(-1)
        os.close(read)
        os.close(write)


# ---- the runner's other promises ----------------------------------------------------------------------


def test_the_loop_is_the_factorys_and_closed_at_the_end(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.get_loop()
        assert runner.run(current()) is loop
        assert not loop.is_closed()
    assert loop.is_closed()
    runner.close()
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()


async def current():
    return asyncio.get_running_loop()


def test_runs_share_the_runners_context(runner):
    async def put(value):
        variable.set(value)

    async def get():
        return variable.get()

    runner.run(put("kept"))
    assert runner.run(get()) == "kept"
    assert variable.get() == "unset"
    given = contextvars.Context()
    runner.run(put("in another"), context=given)
    assert given[variable] == "in another"
    assert runner.run(get()) == "kept"


def test_a_runner_inside_a_loop_is_refused(runner):
    async def main():
        coro = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError, match="running event loop"):
                runner.run(coro)
        finally:
            coro.close()

    runner.run(main())


def test_what_is_left_is_ended_in_order(factory):
    log = []

    async def generate():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            log.append("generator")

    async def work():
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            log.append("task")

    async def main():
        task = asyncio.create_task(work())
        generator = generate()
        await anext(generator)
        await asyncio.to_thread(log.append, "thread")
        return task, generator

    with asyncio.Runner(loop_factory=factory) as runner:
        kept = runner.run(main())
        assert log == ["thread"]
    assert log == ["thread", "task", "generator"]
    assert kept[0].cancelled()


def test_the_hooks_for_generators_are_set_back(runner):
    def first(generator):
        """Not for the loop's generators."""

    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=first)
    try:

        async def main():
            return sys.get_asyncgen_hooks()

        during = runner.run(main())
        assert during.firstiter is not first and during.finalizer is not None
        assert sys.get_asyncgen_hooks() == (first, before.finalizer)
        with pytest.raises(LookupError):
            runner.run(fail())
        assert sys.get_asyncgen_hooks() == (first, before.finalizer)
    finally:
        sys.set_asyncgen_hooks(*before)


async def fail():
    raise LookupError


@pytest.mark.parametrize("debug", [True, False])
def test_debug_mode_is_the_runners_choice(factory, debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        assert runner.run(main()) is debug


def test_an_eager_factory_for_every_task(runner):
    log, outer = [], None

    async def step():
        log.append((asyncio.current_task() is not outer, variable.get()))
        return "at once"

    async def main():
        nonlocal outer
        outer = asyncio.current_task()
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        given = contextvars.Context()
        given.run(variable.set, "given")
        task = asyncio.create_task(step(), name="eager", context=given)
        assert log == [(True, "given")]
        assert task.done() and task.get_name() == "eager"
        assert asyncio.current_task() is outer
        return await task

    assert runner.run(main()) == "at once"
