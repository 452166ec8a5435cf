"""run_in_executor and the default executor's end."""

import asyncio
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest


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


def test_close_leaves_the_executor_to_itself(loop, run):
    with ThreadPoolExecutor() as pool:
        loop.set_default_executor(pool)
        loop.close()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            pool.submit(print)
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        loop.run_in_executor(None, print)
