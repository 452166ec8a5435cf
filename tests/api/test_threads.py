"""Calls from the wrong thread are refused; those allowed from any thread work."""

import asyncio
import contextlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import tokioloop


@pytest.fixture
def elsewhere():
    """A loop that runs in another thread, with a server on it."""
    loop = tokioloop.TokioLoop()
    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever, name="elsewhere")
    thread.start()
    started.wait()
    yield loop, server, thread
    loop.stop()
    thread.join()
    server.close()
    loop.close()


def drive(coro):
    """Take a coroutine's first step without any loop."""
    with contextlib.closing(coro):
        coro.send(None)


def test_methods_refuse_other_threads(elsewhere):
    loop, server, thread = elsewhere
    with ThreadPoolExecutor() as pool:
        for call in (
            lambda: loop.set_exception_handler(print),
            lambda: loop.run_in_executor(None, print),
            lambda: loop.set_default_executor(pool),
            lambda: loop.add_signal_handler(signal.SIGUSR1, print),
            lambda: loop.remove_signal_handler(signal.SIGUSR1),
            lambda: drive(loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)),
            lambda: drive(loop.create_unix_connection(asyncio.Protocol, "x")),
            lambda: drive(loop.create_server(asyncio.Protocol, "127.0.0.1", 0)),
            lambda: drive(loop.create_unix_server(asyncio.Protocol, "x")),
            lambda: drive(loop.getaddrinfo("127.0.0.1", 1)),
            lambda: drive(loop.getnameinfo(("127.0.0.1", 1))),
            lambda: drive(loop.shutdown_asyncgens()),
            lambda: drive(loop.shutdown_default_executor()),
            server.close,
            server.close_clients,
            server.abort_clients,
        ):
            with pytest.raises(RuntimeError, match="thread") as caught:
                call()
            assert str(thread.ident) in str(caught.value)
            assert str(threading.get_ident()) in str(caught.value)
    assert server.is_serving()
    assert loop.is_running()


def test_running_or_closing_it_here_is_refused(elsewhere):
    loop, _, _ = elsewhere
    with pytest.raises(RuntimeError, match="^This event loop is already running$"):
        loop.run_forever()
    with pytest.raises(RuntimeError, match="^Cannot close a running event loop$"):
        loop.close()
    assert loop.is_running()


def test_calls_that_any_thread_may_make(elsewhere):
    loop, server, thread = elsewhere
    got = threading.Event()
    loop.call_soon_threadsafe(got.set)
    got.wait()
    assert loop.is_running()
    assert not loop.is_closed()
    assert loop.time() > 0
    assert loop.get_debug() in (True, False)
    assert repr(loop).startswith("<TokioLoop running=True closed=False")
    assert loop.get_exception_handler() is None
    assert server.is_serving()
    assert server.get_loop() is loop
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "there"), loop).result() == "there"
    assert tokioloop.loops()[thread.ident] is loop


def test_errors_may_be_reported_from_anywhere(elsewhere, caplog):
    loop, _, _ = elsewhere
    loop.call_exception_handler({"message": "from afar"})
    assert [record.getMessage() for record in caplog.records] == ["from afar"]


def test_loops_forgets_closed_loops():
    def work():
        loop = tokioloop.TokioLoop()
        try:
            first = tokioloop.loops().get(threading.get_ident()) is loop
        finally:
            loop.close()
        return first, threading.get_ident() in tokioloop.loops()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (True, False)


def test_a_worker_threads_policy_knows_the_loop_that_ran_there():
    seen = []

    def work():
        loop = tokioloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        seen.append(asyncio.get_event_loop() is loop)
        loop.close()
        with pytest.raises(RuntimeError):
            asyncio.get_event_loop()
        seen.append("closed")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, "closed"]


def from_elsewhere(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_call_sent_to_a_loop_may_be_cancelled_from_anywhere():
    loop = tokioloop.TokioLoop()
    ran = []
    sent = []

    def work():
        sent[0].cancel()
        sent.append(loop.call_soon_threadsafe(ran.append, "sent to a running loop"))
        sent[1].cancel()
        loop.call_soon_threadsafe(ran.append, "kept")
        loop.call_soon_threadsafe(loop.stop)

    def begin():
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()

    loop.call_soon(begin)
    from_elsewhere(lambda: sent.append(loop.call_soon_threadsafe(ran.append, "sent before the run")))
    loop.run_forever()
    assert ran == ["kept"]
    assert all(handle.cancelled() for handle in sent)
    loop.close()
