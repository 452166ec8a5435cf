"""A callback after which its context can't be left, as where another thread uses it: the error is reported, and the loop goes on."""

import asyncio
import contextvars
import ctypes
import gc

import pytest

import tokioloop

_exit = ctypes.pythonapi.PyContext_Exit
_exit.argtypes = [ctypes.py_object]


@pytest.fixture(params=[tokioloop.TokioLoop, asyncio.SelectorEventLoop])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


@pytest.fixture
def reported(loop):
    errors = []
    loop.set_exception_handler(lambda loop, context: errors.append(str(context["exception"])))
    return errors


def turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def is_refusal(text):
    return text.startswith("cannot exit context")


def test_a_callback(loop, reported):
    context = contextvars.copy_context()
    loop.call_soon(_exit, context, context=context)
    turn(loop)
    assert len(reported) == 1 and is_refusal(reported[0])
    turn(loop)
    assert loop.run_until_complete(asyncio.sleep(0, 5)) == 5


def test_a_handle_that_the_program_runs(loop, reported):
    context = contextvars.copy_context()
    handle = loop.call_soon(_exit, context, context=context)
    handle._run()
    assert len(reported) == 1 and is_refusal(reported[0])
    handle.cancel()
    turn(loop)
    assert len(reported) == 1


def test_a_tasks_step(loop, reported):
    context = contextvars.copy_context()

    async def leave():
        _exit(context)
        return 5

    task = loop.create_task(leave(), context=context)
    turn(loop)
    assert len(reported) == 1 and is_refusal(reported[0])
    assert task.result() == 5
    assert loop.run_until_complete(asyncio.sleep(0, 6)) == 6
    gc.collect()
