"""run_in_executor and the default executor's end."""

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import tokioloop

from ..loop.support import PATIENCE, python


def test_runs_in_another_thread_and_returns_the_result(loop, run):
    async def main():
        ident, name = await loop.run_in_executor(
            None, lambda *args: (threading.get_ident(), threading.current_thread().name + str(args)), 1, 2
        )
        assert ident != threading.get_ident()
        assert name.startswith("asyncio_")
        assert name.endswith("(1, 2)")

    run(main())


def test_error_of_the_function_is_raised(loop, run):
    with pytest.raises(ZeroDivisionError):
        run(asyncio.wait_for(loop.run_in_executor(None, lambda: 1 // 0), None))


def test_own_executor_is_used(loop, run):
    with ThreadPoolExecutor(thread_name_prefix="mine") as pool:
        future = loop.run_in_executor(pool, lambda: threading.current_thread().name)
        assert run(asyncio.wait_for(future, None)).startswith("mine")


def test_set_default_executor(loop, run):
    with ThreadPoolExecutor(thread_name_prefix="default") as pool:
        loop.set_default_executor(pool)
        future = loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert run(asyncio.wait_for(future, None)).startswith("default")


def test_default_executor_must_be_a_thread_pool(loop):
    with ProcessPoolExecutor(max_workers=1) as pool:
        for wrong in (pool, None, object()):
            with pytest.raises(TypeError, match="^executor must be ThreadPoolExecutor instance$"):
                loop.set_default_executor(wrong)


def test_debug_mode_refuses_coroutines_and_what_is_not_callable(loop):
    async def coro():
        pass

    loop.set_debug(True)
    with pytest.raises(TypeError, match=r"^coroutines cannot be used with run_in_executor\(\)$"):
        loop.run_in_executor(None, coro)
    with pytest.raises(TypeError, match=r"^a callable object was expected by run_in_executor\(\), got 1$"):
        loop.run_in_executor(None, 1)


def test_shutdown_waits_for_running_work(loop, run):
    release = threading.Event()
    done = []

    async def main():
        future = loop.run_in_executor(None, lambda: (release.wait(), done.append(1)))
        loop.call_soon(release.set)
        await loop.shutdown_default_executor()
        assert done == [1]
        await future

    run(main())


def test_no_work_after_shutdown(loop, run):
    run(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="^Executor shutdown has been called$"):
        loop.run_in_executor(None, print)
    with ThreadPoolExecutor() as pool:
        assert run(asyncio.wait_for(loop.run_in_executor(pool, lambda: 7), None)) == 7


def test_shutdown_gives_up_after_the_timeout(loop, run):
    release = threading.Event()

    async def main():
        future = loop.run_in_executor(None, release.wait)
        with pytest.warns(
            RuntimeWarning, match=r"did not finishing joining its threads within 0\.01 seconds"
        ):
            await loop.shutdown_default_executor(timeout=0.01)
        assert not future.done()
        release.set()
        await future

    run(main())


def test_late_end_of_a_timed_out_shutdown_meets_a_closed_loop_quietly(loop, run):
    release = threading.Event()
    before = set(threading.enumerate())

    async def main():
        loop.run_in_executor(None, release.wait).add_done_callback(lambda future: None)
        with pytest.warns(RuntimeWarning):
            await loop.shutdown_default_executor(timeout=0.01)

    run(main())
    left = set(threading.enumerate()) - before
    loop.close()
    errors = []
    hook, threading.excepthook = threading.excepthook, errors.append
    try:
        release.set()
        for thread in left:
            thread.join()
    finally:
        threading.excepthook = hook
    assert errors == []


def test_close_does_not_wait_for_the_executor(loop, run):
    with ThreadPoolExecutor() as pool:
        loop.set_default_executor(pool)
        loop.close()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            pool.submit(print)
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        loop.run_in_executor(None, print)


# The threads of the default executor.


def most() -> int:
    return min(32, (os.process_cpu_count() or 1) + 4)


def test_a_thread_is_started_only_when_none_is_free(loop, run):
    async def main():
        return [await loop.run_in_executor(None, threading.current_thread) for _ in range(100)]

    threads = set(run(main()))
    # The thread of the last call may not be waiting again yet when the next call comes.
    assert 1 <= len(threads) <= 2
    assert {thread.name for thread in threads} <= {"asyncio_0", "asyncio_1"}


def test_the_number_of_threads_is_bounded(loop, run):
    count = most()
    barrier = threading.Barrier(count)

    def meet():
        barrier.wait(PATIENCE)
        return threading.current_thread().name

    async def main():
        calls = [loop.run_in_executor(None, meet) for _ in range(3 * count)]
        return await asyncio.gather(*calls)

    assert set(run(main())) == {f"asyncio_{n}" for n in range(count)}


def test_waiting_jobs_are_called_in_order(loop, run):
    """All threads except one are kept busy, so that this one calls the rest."""
    release, order = threading.Event(), []

    async def main():
        blocking = [loop.run_in_executor(None, release.wait, PATIENCE) for _ in range(most() - 1)]
        await asyncio.gather(*(loop.run_in_executor(None, order.append, n) for n in range(100)))
        release.set()
        await asyncio.gather(*blocking)

    run(main())
    assert order == list(range(100))


def test_each_answer_is_its_own(loop, run):
    async def main():
        return await asyncio.gather(*(loop.run_in_executor(None, divmod, n, 7) for n in range(10_000)))

    assert run(main()) == [divmod(n, 7) for n in range(10_000)]


def test_a_job_cancelled_before_it_began_is_not_called(loop, run):
    release, called = threading.Event(), []

    async def main():
        blocking = [loop.run_in_executor(None, release.wait, PATIENCE) for _ in range(most())]
        waiting = [loop.run_in_executor(None, called.append, n) for n in range(10)]
        for future in waiting[::2]:
            future.cancel()
        release.set()
        await asyncio.gather(*blocking, *waiting, return_exceptions=True)
        assert [future.cancelled() for future in waiting] == [True, False] * 5

    run(main())
    assert sorted(called) == [1, 3, 5, 7, 9]


def test_a_job_cancelled_while_it_runs_goes_on_and_its_result_is_dropped(loop, run, contexts):
    began, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        began.set()
        release.wait(PATIENCE)
        ended.set()
        return 1 // 0

    async def main():
        future = loop.run_in_executor(None, work)
        await loop.run_in_executor(None, began.wait, PATIENCE)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        release.set()
        await loop.run_in_executor(None, ended.wait, PATIENCE)
        await loop.shutdown_default_executor()

    run(main())
    assert contexts == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ZeroDivisionError("error"), ZeroDivisionError),
        (StopIteration(1), RuntimeError),
        (asyncio.CancelledError("message"), asyncio.CancelledError),
    ],
)
def test_any_exception_reaches_the_future(loop, run, error, raised):
    def fails():
        raise error

    async def main():
        with pytest.raises(raised) as caught:
            await loop.run_in_executor(None, fails)
        assert caught.value is error or caught.value.__cause__ is error
        return await loop.run_in_executor(None, str, "the thread lives on")

    assert run(main()) == "the thread lives on"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (concurrent.futures.CancelledError, asyncio.CancelledError),
        (concurrent.futures.InvalidStateError, asyncio.InvalidStateError),
    ],
)
def test_errors_of_concurrent_futures_become_asyncios(loop, run, theirs, ours):
    """A function that waits for such a future, say of `run_coroutine_threadsafe`."""

    def fails():
        raise theirs("message")

    async def main():
        with pytest.raises(ours) as caught:
            await loop.run_in_executor(None, fails)
        assert type(caught.value) is ours and caught.value.args == ("message",)

    run(main())


def test_a_thread_keeps_its_own_context(loop, run):
    local = threading.local()
    variable = contextvars.ContextVar("variable", default="of the thread")

    def count():
        local.calls = getattr(local, "calls", 0) + 1
        return threading.get_ident(), local.calls, variable.get()

    async def main():
        variable.set("of the caller")
        return [await loop.run_in_executor(None, count) for _ in range(50)]

    seen: dict[int, int] = {}
    for ident, calls, value in run(main()):
        seen[ident] = seen.get(ident, 0) + 1
        # As with asyncio: it is `to_thread` that takes the caller's context along. From 3.14 on a thread may begin with it.
        inherits = getattr(sys.flags, "thread_inherit_context", False)
        assert (calls, value) == (seen[ident], "of the caller" if inherits else "of the thread")


def test_to_thread_takes_the_context_along(run):
    variable = contextvars.ContextVar("variable")

    async def main():
        variable.set(7)
        return await asyncio.to_thread(variable.get)

    assert run(main()) == 7


def test_a_thread_that_cannot_be_started(loop, run, monkeypatch):
    def fails(thread):
        raise RuntimeError("can't start new thread")

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                loop.run_in_executor(None, int)
        return await loop.run_in_executor(None, str, "now there is one")

    assert run(main()) == "now there is one"


def test_the_threads_end_with_their_loop():
    loop = tokioloop.TokioLoop()
    thread = loop.run_until_complete(loop.run_in_executor(None, threading.current_thread))
    del loop
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_loop_with_asyncios_futures_has_asyncios_executor():
    loop = tokioloop.TokioLoop(tasks="asyncio")
    try:
        assert loop.run_until_complete(loop.run_in_executor(None, str, 1)) == "1"
        assert isinstance(loop._default_executor, ThreadPoolExecutor)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_submitted_jobs_are_done_when_the_interpreter_ends():
    done = python(
        """
        import asyncio, atexit, threading, tokioloop

        async def main():
            loop = asyncio.get_running_loop()
            for n in range(20):
                loop.run_in_executor(None, sink.append, n)
            return loop

        sink = []
        loop = tokioloop.TokioLoop()
        loop.run_until_complete(main())

        def late():
            print(sorted(sink) == list(range(20)))
            try:
                loop.run_in_executor(None, int)
            except RuntimeError as error:
                print(error)
            loop.close()

        atexit.register(late)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "True\ncannot schedule new futures after interpreter shutdown\n",
        "",
    )


def test_replaced_threads_end(loop, run):
    async def main():
        return await loop.run_in_executor(None, threading.current_thread)

    thread = run(main())
    with ThreadPoolExecutor(1) as pool:
        loop.set_default_executor(pool)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert run(main()) is not thread
