"""Signals on any thread's loop, and on several at once."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import tokioloop

from .conftest import Elsewhere
from .support import PATIENCE, collected, python

NUMBERS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM, signal.SIGWINCH]


@pytest.fixture(autouse=True)
def actions() -> Iterator[None]:
    """The process's actions are the same after a test."""
    before = {number: signal.getsignal(number) for number in [*NUMBERS, signal.SIGINT]}
    yield
    for number, action in before.items():
        assert signal.getsignal(number) is action or signal.getsignal(number) == action


@pytest.fixture
def several() -> Iterator[list[Elsewhere]]:
    """Four loops, each running in a thread of its own."""
    with ExitStack() as at_end:
        loops = []
        for _ in range(4):
            loops.append(Elsewhere())
            at_end.callback(loops[-1].end)
        yield loops


class Heard:
    """Counts a loop's signals by number; ``wait`` is for other threads."""

    def __init__(self, there, numbers=(signal.SIGUSR1,)):
        self.there = there
        self.counts = dict.fromkeys(numbers, 0)
        self.threads = set()
        self.changed = threading.Condition()
        for number in numbers:
            there.call(there.loop.add_signal_handler, number, self.hear, number)

    def hear(self, number):
        with self.changed:
            self.counts[number] += 1
            self.threads.add(threading.current_thread())
            self.changed.notify_all()

    def wait(self, number=signal.SIGUSR1, count=1):
        with self.changed:
            assert self.changed.wait_for(lambda: self.counts[number] >= count, PATIENCE)


def kill(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)


def test_a_handler_runs_in_its_loops_thread_while_the_main_thread_runs_none(elsewhere):
    heard = Heard(elsewhere)
    for count in range(1, 100):
        kill()
        heard.wait(count=count)
    assert heard.threads == {elsewhere.thread}
    assert elsewhere.call(elsewhere.loop.remove_signal_handler, signal.SIGUSR1) is True
    assert elsewhere.call(elsewhere.loop.remove_signal_handler, signal.SIGUSR1) is False


def test_a_signal_for_one_thread_reaches_the_loops_of_others(several):
    heard = [Heard(there) for there in several]
    for count, there in enumerate(several, 1):
        signal.pthread_kill(there.thread.ident, signal.SIGUSR1)
        for one in heard:
            one.wait(count=count)


def test_each_loop_gets_each_signal_that_it_asked_for(several, loop):
    """The main thread's running loop among them."""
    heard = [
        Heard(there, [signal.SIGUSR1, number]) for there, number in zip(several, NUMBERS[1:], strict=True)
    ]
    got = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(threading.current_thread()), loop.stop()))
    loop.call_soon(kill)
    loop.run_forever()
    assert got == [threading.main_thread()]
    for one in heard:
        one.wait()
    for number in NUMBERS[1:]:
        kill(number)
    for one, number in zip(heard, NUMBERS[1:], strict=True):
        one.wait(number)
        assert one.counts == {signal.SIGUSR1: 1, number: 1}


def test_one_loops_removal_leaves_the_others(several):
    heard = [Heard(there) for there in several]
    for n, (there, one) in enumerate(zip(several, heard, strict=True), 1):
        kill()
        for other in heard[n - 1 :]:
            other.wait(count=n)
        there.call(there.loop.remove_signal_handler, signal.SIGUSR1)
        assert one.counts[signal.SIGUSR1] == n


@pytest.mark.parametrize("how", ["close", "collect"])
def test_a_loop_that_is_gone_asks_no_more(elsewhere, how):
    heard = Heard(elsewhere)
    for count in range(1, 20):
        other = tokioloop.TokioLoop()
        other.add_signal_handler(signal.SIGUSR1, print)
        other.add_signal_handler(signal.SIGUSR2, print)
        if how == "close":
            other.close()
        else:
            with pytest.warns(ResourceWarning, match="unclosed event loop"):
                reference = weakref.ref(other)
                del other
                assert collected(reference)
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
        kill()
        heard.wait(count=count)


def test_ten_thousand_of_two_kinds(several):
    """Each loop handles each number once more after the last was sent."""
    kinds = [signal.SIGUSR1, signal.SIGUSR2]
    heard = [Heard(there, kinds) for there in several]
    for n in range(10_000):
        kill(kinds[n % 2])
    sent = [dict(one.counts) for one in heard]
    # What is pending now is delivered, though nothing else wakes the loops.
    for one in heard:
        for kind in kinds:
            one.wait(kind)
    for kind in kinds:
        before = [one.counts[kind] for one in heard]
        kill(kind)
        for one, count in zip(heard, before, strict=True):
            one.wait(kind, count + 1)
    assert all(count <= 5000 for counts in sent for count in counts.values())


def test_ten_thousand_signals_unread_meanwhile(loop):
    """More than any pipe or socket would hold."""
    got = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(1), loop.stop()))
    loop.add_signal_handler(signal.SIGUSR2, got.append, 2)
    kill(signal.SIGUSR2)
    for _ in range(10_000):
        kill()
    loop.run_forever()
    assert sorted(got) == [1, 2]


def test_a_timer_of_the_process(elsewhere):
    heard = Heard(elsewhere, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        heard.wait(signal.SIGALRM, 50)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_busy_loop_handles_signals_too(elsewhere):
    done = threading.Event()

    def busy():
        if not done.is_set():
            elsewhere.loop.call_soon(busy)

    heard = Heard(elsewhere)
    elsewhere.loop.call_soon_threadsafe(busy)
    for count in range(1, 20):
        kill()
        heard.wait(count=count)
    done.set()


def test_a_loop_handles_in_its_next_run_signals_that_came_while_it_did_not_run():
    def work():
        nonlocal got
        loop = tokioloop.TokioLoop()
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        kill()
        loop.run_forever()
        got = loop.remove_signal_handler(signal.SIGUSR1)
        loop.close()

    got = None
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert got is True


def test_a_loop_made_here_and_run_there(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    for _ in range(50):
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        kill()
        thread.join()


def test_handlers_come_and_go_while_signals_come(several):
    """Two loops add and remove handlers over and over; the others' are called all the while."""
    heard = [Heard(there) for there in several[:2]]
    going = True

    async def come_and_go():
        loop = asyncio.get_running_loop()
        while going:
            loop.add_signal_handler(signal.SIGUSR1, int)
            await asyncio.sleep(0)
            loop.remove_signal_handler(signal.SIGUSR1)

    futures = [asyncio.run_coroutine_threadsafe(come_and_go(), there.loop) for there in several[2:]]
    for count in range(1, 1000):
        kill()
        for one in heard:
            one.wait(count=count)
    going = False
    for future in futures:
        future.result(PATIENCE)


def test_errors_are_the_same_everywhere(elsewhere):
    add = elsewhere.loop.add_signal_handler

    async def coro():
        pass

    with pytest.raises(TypeError, match=r"^coroutines cannot be used"):
        elsewhere.call(add, signal.SIGUSR1, coro)
    with pytest.raises(ValueError, match="^invalid signal number"):
        elsewhere.call(add, signal.NSIG + 1, print)
    with pytest.raises(RuntimeError, match="cannot be caught$"):
        elsewhere.call(add, int(signal.SIGSTOP), print)
    with pytest.raises(RuntimeError, match="running in thread elsewhere"):
        add(signal.SIGUSR1, print)
    with pytest.raises(RuntimeError, match="running in thread elsewhere"):
        elsewhere.loop.remove_signal_handler(signal.SIGUSR1)


# ---- Python's own handlers ------------------------------------------------------------------------------
# A thread that is about to block checks for signals a moment before it does, and one that comes in that moment
# waits for the next signal. That is CPython's behaviour, so these tests send signals until one is handled.


def test_python_handlers_run_while_the_main_thread_waits(elsewhere):
    over = threading.Lock()
    over.acquire()

    def handler(number, frame):
        signal.setitimer(signal.ITIMER_REAL, 0)
        if over.locked():
            over.release()

    heard = Heard(elsewhere)
    former = signal.signal(signal.SIGALRM, handler)
    try:
        for count in range(1, 20):
            elsewhere.loop.call_soon_threadsafe(kill)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            assert over.acquire(timeout=PATIENCE)
            heard.wait(count=count)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_keyboard_interrupt_while_the_main_thread_joins():
    done = python(
        """
        import os, signal, threading, tokioloop

        def work():
            loop = tokioloop.TokioLoop()

            def interrupt():
                if not seen.is_set():
                    os.kill(os.getpid(), signal.SIGINT)

            loop.add_signal_handler(signal.SIGALRM, interrupt)
            loop.add_signal_handler(signal.SIGTERM, loop.stop)
            loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01, 0.01)
            loop.run_forever()
            print("stopped")
            loop.close()

        def interrupted(*args):
            if not seen.is_set():
                seen.set()
                signal.default_int_handler(*args)

        seen = threading.Event()
        signal.signal(signal.SIGINT, interrupted)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            thread.join()
        except KeyboardInterrupt:
            print("interrupted")
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)
        thread.join()
        """
    )
    assert done.stdout.split() == ["interrupted", "stopped"]


def test_a_handler_for_sigint_on_a_worker_replaces_keyboard_interrupt_until_it_goes():
    done = python(
        """
        import os, signal, threading, tokioloop

        def work():
            loop = tokioloop.TokioLoop()
            loop.add_signal_handler(signal.SIGINT, loop.stop)
            loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
            loop.run_forever()
            loop.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert done.stdout.split() == ["interrupted"]


def test_a_runner_leaves_a_number_alone_that_a_loop_asked_for():
    done = python(
        """
        import asyncio, os, signal, tokioloop

        async def ask():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, lambda: got.set_result(None))

        async def use():
            global got
            got = asyncio.get_running_loop().create_future()
            os.kill(os.getpid(), signal.SIGINT)
            await got
            print("heard")

        with asyncio.Runner(loop_factory=tokioloop.TokioLoop) as runner:
            for _ in range(2):
                runner.run(ask())
                runner.run(use())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    )
    assert done.stdout.split() == ["heard"] * 2


def test_signal_signal_takes_over_and_its_result_may_be_restored(loop):
    got = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append("loop"), loop.stop()))
    former = signal.signal(signal.SIGUSR1, lambda *args: got.append("python"))
    kill()
    signal.signal(signal.SIGUSR1, former)
    kill()
    loop.run_forever()
    assert got == ["python", "loop"]
    # Its own handler is back, and goes with the loop's.
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_handler_installed_meanwhile_stays(loop, elsewhere):
    def handler(number, frame):
        got.append(number)

    got = []
    elsewhere.call(elsewhere.loop.add_signal_handler, signal.SIGUSR1, print)
    former = signal.signal(signal.SIGUSR1, handler)
    try:
        elsewhere.call(elsewhere.loop.remove_signal_handler, signal.SIGUSR1)
        kill()
        assert got == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_children_have_the_default_action(elsewhere):
    Heard(elsewhere)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)"
    for _ in range(5):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGUSR1
