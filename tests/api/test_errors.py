"""Exception handlers."""

import contextvars
import logging

import pytest


def test_handler_starts_as_none_and_can_be_read(loop):
    def handler(loop, context):
        pass

    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


def test_handler_must_be_callable(loop):
    with pytest.raises(TypeError, match=r"A callable object or None is expected, got 'spam'"):
        loop.set_exception_handler("spam")


def test_handler_gets_loop_and_context(loop):
    seen = []
    loop.set_exception_handler(lambda *args: seen.append(args))
    context = {"message": "oops"}
    loop.call_exception_handler(context)
    assert seen == [(loop, context)]


def test_callback_error_reaches_the_handler(loop, contexts):
    error = ZeroDivisionError()

    def fail():
        raise error

    handle = loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run_forever()
    [context] = contexts
    assert context["exception"] is error
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback ")


def test_default_handler_logs_every_key_in_order(loop, caplog):
    loop.call_exception_handler({"message": "oops", "zeta": 1, "alpha": "a"})
    [record] = caplog.records
    assert record.name == "asyncio"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "oops\nalpha: 'a'\nzeta: 1"
    assert not record.exc_info


def test_default_handler_logs_the_exception(loop, caplog):
    error = ValueError("x")
    loop.call_exception_handler({"exception": error})
    [record] = caplog.records
    assert record.getMessage() == "Unhandled exception in event loop"
    assert record.exc_info == (ValueError, error, None)


def test_default_handler_shows_where_the_object_was_made(loop, caplog):
    import traceback

    loop.call_exception_handler({"message": "m", "source_traceback": traceback.extract_stack()})
    text = caplog.records[0].getMessage()
    assert text.startswith("m\nsource_traceback: Object created at (most recent call last):\n")
    assert "test_default_handler_shows_where_the_object_was_made" in text


def test_default_handler_shows_where_the_handle_was_made_in_debug_mode(loop, caplog):
    loop.set_debug(True)

    def fail():
        loop.call_exception_handler({"message": "inside"})
        loop.stop()

    loop.call_soon(fail)
    loop.run_forever()
    [text] = [r.getMessage() for r in caplog.records if r.getMessage().startswith("inside")]
    assert "\nhandle_traceback: Handle created at (most recent call last):\n" in text


def test_failing_handler_is_reported_with_its_context(loop, caplog):
    error = ValueError("handler")

    def handler(loop, context):
        raise error

    loop.set_exception_handler(handler)
    loop.call_exception_handler({"message": "first"})
    [record] = caplog.records
    assert record.getMessage() == "Unhandled error in exception handler\ncontext: {'message': 'first'}"
    assert record.exc_info[1] is error


def test_failing_default_handler_is_logged(loop, caplog, monkeypatch):
    def broken(context):
        raise ValueError

    monkeypatch.setattr(loop, "default_exception_handler", broken)
    loop.call_exception_handler({"message": "first"})
    assert caplog.records[0].getMessage() == "Exception in default exception handler"

    def handler(loop, context):
        raise ZeroDivisionError

    loop.set_exception_handler(handler)
    loop.call_exception_handler({"message": "second"})
    assert caplog.records[1].getMessage() == (
        "Exception in default exception handler while handling an unexpected error in custom exception handler"
    )


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_system_exit_passes_through_handlers(loop, monkeypatch, kind):
    def leave(*args):
        raise kind

    loop.set_exception_handler(leave)
    with pytest.raises(kind):
        loop.call_exception_handler({"message": "x"})
    loop.set_exception_handler(None)
    monkeypatch.setattr(loop, "default_exception_handler", leave)
    with pytest.raises(kind):
        loop.call_exception_handler({"message": "x"})


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_system_exit_leaves_run_forever(loop, contexts, kind):
    def leave():
        raise kind

    loop.call_soon(leave)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    assert contexts == []


def test_handler_runs_in_the_context_of_the_failed_callback(loop):
    var = contextvars.ContextVar("var", default="none")
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(var.get()))

    def fail():
        raise ValueError

    context = contextvars.copy_context()
    context.run(var.set, "handle")
    loop.call_soon(fail, context=context)
    loop.call_soon(loop.stop)
    loop.run_forever()

    async def main():
        var.set("task")

    task = loop.create_task(main())
    loop.run_until_complete(task)
    loop.call_exception_handler({"message": "m", "task": task})
    loop.call_exception_handler({"message": "m", "future": task})
    loop.call_exception_handler({"message": "m", "future": loop.create_future()})
    assert seen == ["handle", "task", "task", "none"]


def test_exception_never_retrieved_is_reported(loop, contexts):
    future = loop.create_future()
    error = ValueError("lost")
    future.set_exception(error)
    del future
    assert contexts[0]["exception"] is error
    assert contexts[0]["message"] == "Future exception was never retrieved"


def test_slow_callback_is_logged_in_debug_mode(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0

    async def tardy():
        pass

    loop.run_until_complete(tardy())
    texts = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any(text.startswith("Executing <Task ") and "tardy" in text for text in texts)
    assert all(text.endswith(" seconds") for text in texts)
