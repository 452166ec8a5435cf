"""Errors of callbacks: the exception handler's contexts, and errors that leave the loop."""

import asyncio

import pytest


class Fatal(KeyboardInterrupt):
    pass


def fail(error):
    raise error


@pytest.mark.parametrize(
    "error", [LookupError("x"), asyncio.CancelledError(), GeneratorExit(), StopIteration()]
)
def test_an_error_of_a_callback_reaches_the_handler(loop, turn, contexts, error):
    got = []
    handle = loop.call_soon(fail, error)
    loop.call_soon(got.append, 1)
    turn()
    (context,) = contexts
    assert context["exception"] is error
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback fail(")
    assert got == [1]


def test_the_source_traceback_is_in_the_context_in_debug_mode(loop, turn, contexts):
    loop.set_debug(True)
    loop.call_soon(fail, LookupError())
    turn()
    assert contexts[0]["source_traceback"][-1].filename == __file__


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Fatal])
@pytest.mark.parametrize("debug", [False, True])
def test_fatal_errors_leave_the_run_and_nothing_is_lost(loop, turn, contexts, error, debug):
    loop.set_debug(debug)
    got = []
    loop.call_soon(got.append, "before")
    loop.call_soon(fail, error("now"))
    loop.call_soon(got.append, "after")
    loop.call_later(0, got.append, "timer")
    loop.call_soon_threadsafe(got.append, "posted")
    with pytest.raises(error, match="now"):
        loop.run_forever()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert got == ["before"]
    turn()
    turn()
    assert sorted(got) == ["after", "before", "posted", "timer"]
    assert contexts == []


def test_a_fatal_error_in_a_timer(loop, turn):
    got = []
    when = loop.time()
    for n in range(3):
        loop.call_at(when, got.append, n)
    loop.call_at(when, fail, SystemExit(7))
    loop.call_at(when, got.append, 3)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert got == [0, 1, 2]
    turn()
    assert got == [0, 1, 2, 3]


def test_a_fatal_error_in_a_task_leaves_the_run(loop, turn):
    async def exit():
        raise SystemExit(3)

    task = loop.create_task(exit())
    with pytest.raises(SystemExit):
        loop.run_forever()
    turn()
    assert isinstance(task.exception(), SystemExit)


def test_a_fatal_error_in_a_reader(loop, pair):
    near, far = pair
    got = []

    def readable():
        got.append(near.recv(100))
        loop.remove_reader(near)
        raise KeyboardInterrupt

    loop.add_reader(near, readable)
    loop.add_writer(near, lambda: (got.append("writable"), loop.remove_writer(near), loop.stop()))
    far.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    while len(got) < 2:
        loop.run_forever()
    assert sorted(map(str, got)) == ["b'x'", "writable"]


@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_a_fatal_error_in_a_protocol_leaves_the_run(loop, pair, where):
    near, far = pair
    calls = []
    transports = []

    class Protocol(asyncio.Protocol):
        pass

    def raise_it(self, *args):
        calls.append(where)
        if len(calls) == 1:
            raise SystemExit(where)

    setattr(Protocol, where, raise_it)

    async def main():
        transport = loop._make_socket_transport(near, Protocol())
        transports.append(transport)
        await asyncio.sleep(0)
        far.send(b"data")
        if where == "eof_received":
            far.shutdown(1)
        elif where == "connection_lost":
            transport.abort()
        await loop.create_future()

    task = loop.create_task(main())
    with pytest.raises(SystemExit, match=where):
        loop.run_forever()
    task.cancel()

    async def settle():
        transports[0].abort()
        await asyncio.sleep(0)

    loop.run_until_complete(settle())
    # As on asyncio, whose selector reports an end until it has been read: it is reported again.
    assert calls == [where] * (2 if where == "eof_received" else 1)
    assert transports[0].is_closing()
    assert task.cancelled() or task.done()


def test_an_error_of_an_overridden_exception_handler_leaves_the_run(loop, turn):
    def handler(loop, context):
        raise SystemExit("from the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail, LookupError())
    with pytest.raises(SystemExit, match="from the handler"):
        loop.run_forever()
    loop.set_exception_handler(None)
    turn()
    assert not loop.is_running()


def test_a_failing_exception_handler_is_logged(loop, turn, caplog):
    loop.set_exception_handler(lambda loop, context: 1 / 0)
    loop.call_soon(fail, LookupError())
    turn()
    assert "Unhandled error in exception handler" in caplog.text


def test_an_error_that_cannot_be_shown(loop, turn, contexts):
    class Unshowable(Exception):
        def __repr__(self):
            raise LookupError

        __str__ = __repr__

    class Callback:
        def __call__(self):
            raise Unshowable

        def __repr__(self):
            raise LookupError("no repr")

    loop.call_soon(Callback())
    turn()
    assert isinstance(contexts[0]["exception"], Unshowable)
