"""Signal handlers, on the main thread (where pytest runs)."""

import asyncio
import gc
import os
import signal
import threading
import weakref

import pytest

import tokioloop


@pytest.fixture(autouse=True)
def default_actions():
    """Every test starts and ends with the actions the process had."""
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)}
    yield
    for sig, action in before.items():
        signal.signal(sig, action)


def test_handler_runs_on_the_loop(loop, run):
    async def main():
        got = loop.create_future()
        loop.add_signal_handler(
            signal.SIGUSR1, lambda *args: got.set_result((threading.get_ident(), args)), 1, 2
        )
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await got == (threading.get_ident(), (1, 2))
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        assert loop.remove_signal_handler(signal.SIGUSR1) is False
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL

    run(main())


def test_handler_wakes_a_loop_that_waits(loop):
    loop.add_signal_handler(signal.SIGALRM, loop.stop)
    before = signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        loop.run_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
    assert loop.remove_signal_handler(signal.SIGALRM)


def test_signal_before_the_loop_runs_is_kept(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert not loop.is_running()


def test_later_handler_replaces_the_earlier(loop, run):
    async def main():
        got = asyncio.Queue()
        loop.add_signal_handler(signal.SIGUSR1, got.put_nowait, "first")
        loop.add_signal_handler(signal.SIGUSR1, got.put_nowait, "second")
        loop.add_signal_handler(signal.SIGUSR2, got.put_nowait, "other")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await got.get() == "second"
        os.kill(os.getpid(), signal.SIGUSR2)
        assert await got.get() == "other"
        assert got.empty()

    run(main())


def test_sigint_goes_back_to_keyboard_interrupt(loop, run):
    async def main():
        got = asyncio.Event()
        loop.add_signal_handler(signal.SIGINT, got.set)
        os.kill(os.getpid(), signal.SIGINT)
        await got.wait()
        loop.remove_signal_handler(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    run(main())


def test_bad_arguments(loop):
    async def coro():
        pass

    with pytest.raises(TypeError, match=r"^coroutines cannot be used with add_signal_handler\(\)$"):
        loop.add_signal_handler(signal.SIGUSR1, coro)
    with pytest.raises(TypeError, match="^sig must be an int, not '1'$"):
        loop.add_signal_handler("1", print)
    with pytest.raises(ValueError, match=f"^invalid signal number {signal.NSIG + 1}$"):
        loop.add_signal_handler(signal.NSIG + 1, print)
    with pytest.raises(ValueError, match=f"^invalid signal number {signal.NSIG + 1}$"):
        loop.remove_signal_handler(signal.NSIG + 1)
    with pytest.raises(RuntimeError, match=f"^sig {int(signal.SIGKILL)} cannot be caught$"):
        loop.add_signal_handler(int(signal.SIGKILL), print)
    loop.close()
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        loop.add_signal_handler(signal.SIGUSR1, print)


def test_close_restores_the_default_actions(loop):
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGINT, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_without_a_handler_are_ignored_by_the_loop(loop, run):
    seen = []
    signal.signal(signal.SIGUSR2, lambda *args: seen.append(args[0]))

    async def main():
        got = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, got.set)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
        await got.wait()

    run(main())
    assert seen == [signal.SIGUSR2]


def test_handlers_do_not_keep_the_loop_alive():
    loop = tokioloop.TokioLoop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    ref = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert ref() is None


def test_loop_moved_to_a_thread_still_gets_its_signals(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started.wait()
    os.kill(os.getpid(), signal.SIGUSR1)
    thread.join()
    assert not loop.is_running()
