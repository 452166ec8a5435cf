"""Signals on the main thread, across loops."""

import asyncio
import os
import signal
import threading

import pytest

import tokioloop

from .support import python


def kill(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)


def test_a_handler_wakes_a_parked_loop(loop):
    got = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(1), loop.stop()))
    thread = threading.Thread(target=kill)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert got == [1]


def test_several_loops_after_one_another():
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    for n in range(20):
        loop = tokioloop.TokioLoop()
        got = []
        loop.add_signal_handler(signal.SIGUSR1, lambda got=got, loop=loop: (got.append(1), loop.stop()))
        loop.call_soon(kill)
        loop.run_forever()
        assert got == [1], n
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        loop.close()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    after = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after)
    assert after == before


def test_a_loop_in_a_thread_does_not_take_the_main_threads_signals(loop, elsewhere):
    got = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(threading.get_ident()), loop.stop()))
    loop.call_soon(kill)
    loop.run_forever()
    assert got == [threading.get_ident()]


def test_a_plain_python_handler_runs_while_parked(loop):
    got = []
    former = signal.signal(signal.SIGUSR1, lambda number, frame: (got.append(number), loop.stop()))
    try:
        thread = threading.Thread(target=kill)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert got == [signal.SIGUSR1]


def test_an_exception_of_a_plain_handler_leaves_the_run(loop, turn):
    class Interrupted(KeyboardInterrupt):
        pass

    def handler(number, frame):
        raise Interrupted

    former = signal.signal(signal.SIGUSR1, handler)
    got = []
    try:
        loop.call_soon(kill)
        loop.call_later(0, got.append, 1)
        with pytest.raises(Interrupted):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, former)
    turn()
    turn()
    assert got == [1]


def test_keyboard_interrupt_while_parked(loop):
    thread = threading.Thread(target=kill, args=(signal.SIGINT,))
    loop.call_soon(thread.start)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))


def test_keyboard_interrupt_while_busy(loop):
    def busy():
        loop.call_soon(busy)

    loop.call_soon(busy)
    loop.call_soon(kill, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.stop()
    loop.run_forever()


def test_asyncio_run_turns_an_interrupt_into_a_cancellation():
    done = python(
        """
        import asyncio, os, signal, threading, tokioloop

        async def main():
            try:
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                print("cancelled")
                raise

        try:
            tokioloop.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert done.stdout.split() == ["cancelled", "interrupted"]


def test_every_signal_of_a_burst_is_seen(loop):
    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH]
    got = set()

    def handler(number):
        got.add(number)
        if len(got) == len(numbers):
            loop.stop()

    for number in numbers:
        loop.add_signal_handler(number, handler, number)
    for number in numbers:
        loop.call_soon(kill, number)
    loop.run_forever()
    assert got == set(numbers)
    for number in numbers:
        loop.remove_signal_handler(number)
