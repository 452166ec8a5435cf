"""tokioloop.run."""

import asyncio
import os
import signal
import threading

import pytest

import tokioloop


def test_returns_the_result_on_a_new_loop_and_closes_it():
    async def main():
        return asyncio.get_running_loop()

    loop = tokioloop.run(main())
    assert type(loop) is tokioloop.TokioLoop
    assert loop.is_closed()


@pytest.mark.parametrize("debug", [True, False])
def test_debug_is_passed_on(debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert tokioloop.run(main(), debug=debug) is debug


def test_loop_factory_replaces_the_loop():
    class Mine(tokioloop.TokioLoop):
        pass

    async def main():
        return asyncio.get_running_loop()

    assert type(tokioloop.run(main(), loop_factory=Mine)) is Mine


def test_error_of_main_is_raised():
    async def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tokioloop.run(main())


def test_running_inside_a_loop_is_refused():
    async def main():
        inner = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop$"):
                tokioloop.run(inner)
        finally:
            inner.close()

    tokioloop.run(main())


def test_left_tasks_generators_and_executor_are_shut_down():
    log = []

    async def forever():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            log.append("task")

    async def generate():
        try:
            yield 1
        finally:
            log.append("generator")

    async def main():
        loop = asyncio.get_running_loop()
        task = loop.create_task(forever())
        generator = generate()
        await anext(generator)
        thread = await loop.run_in_executor(None, threading.current_thread)
        await asyncio.sleep(0)
        return task, generator, thread

    task, _, thread = tokioloop.run(main())
    assert log == ["task", "generator"]
    assert task.cancelled()
    assert not thread.is_alive()


def test_control_c_cancels_main():
    log = []

    async def main():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        tokioloop.run(main())
    assert log == ["cancelled"]


def test_control_c_from_outside_wakes_the_loop():
    async def main():
        timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            timer.join()

    with pytest.raises(KeyboardInterrupt):
        tokioloop.run(main())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_runner_with_our_loop_as_factory():
    with asyncio.Runner(loop_factory=tokioloop.new_event_loop) as runner:
        assert runner.run(asyncio.sleep(0, 1)) == 1
        assert runner.run(asyncio.sleep(0, 2)) == 2
        assert isinstance(runner.get_loop(), tokioloop.TokioLoop)


def test_one_loop_per_thread_at_the_same_time():
    meet = threading.Barrier(4)
    results = []

    async def main(number):
        await asyncio.get_running_loop().run_in_executor(None, meet.wait)
        seen = tokioloop.loops()
        assert seen[threading.get_ident()] is asyncio.get_running_loop()
        await asyncio.get_running_loop().run_in_executor(None, meet.wait)
        return number

    threads = [
        threading.Thread(target=lambda n=number: results.append(tokioloop.run(main(n))))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]
