"""An operation on a loop that does not run, in the middle of which Python code runs: a visit.

Here it is ``add_reader``, which releases the callback that it replaces.
"""

import asyncio
import gc
import socket
import threading
import time

import pytest

from .support import python


class Released:
    """Calls a function when its last reference goes."""

    def __init__(self, function):
        self.function = function

    def __call__(self):
        pass

    def __del__(self):
        self.function()


@pytest.fixture
def visited(loop):
    """Calls a function in the middle of an operation on the loop."""
    near, far = socket.socketpair()
    failed = []

    def visit(function):
        def guarded():
            try:
                function()
            except BaseException as error:
                failed.append(error)

        loop.add_reader(near, Released(guarded))
        loop.add_reader(near, print)
        for error in failed:
            raise error

    yield visit
    loop.remove_reader(near)
    near.close()
    far.close()


class Runner(threading.Thread):
    """Runs the loop for one turn."""

    def __init__(self, loop):
        super().__init__()
        self.loop = loop
        self.begins = threading.Event()
        self.turns = threading.Event()
        self.error = None

    def turn(self):
        self.turns.set()
        self.loop.stop()

    def run(self):
        self.loop.call_soon_threadsafe(self.turn)
        self.begins.set()
        try:
            self.loop.run_forever()
        except BaseException as error:
            self.error = error


def test_a_run_of_another_thread_waits_for_the_operation(loop, visited):
    runner = Runner(loop)

    def use():
        runner.start()
        runner.begins.wait()
        for _ in range(500):
            assert not loop.is_running() and not runner.turns.is_set()
            loop.call_soon(int).cancel()
            time.sleep(0)

    visited(use)
    runner.join()
    assert runner.error is None and runner.turns.is_set()


def test_a_collection_does_not_wait_for_the_run_that_waits(loop, visited):
    runner = Runner(loop)

    def collect():
        runner.start()
        runner.begins.wait()
        for _ in range(20):
            gc.collect()

    visited(collect)
    runner.join()
    assert runner.error is None


def test_another_thread_may_use_the_loop_meanwhile(loop, visited):
    called = []

    def use():
        thread = threading.Thread(target=lambda: loop.call_soon(called.append, "there"))
        thread.start()
        thread.join()

    visited(use)
    loop.run_until_complete(asyncio.sleep(0))
    assert called == ["there"]


def test_the_operations_own_thread_may_run_the_loop(loop, visited):
    results = []
    visited(lambda: results.append(loop.run_until_complete(asyncio.sleep(0, "ran"))))
    assert results == ["ran"]


def test_an_operation_in_an_operation(loop, visited):
    results = []
    visited(lambda: visited(lambda: results.append("inner")))
    assert results == ["inner"]
    loop.run_until_complete(asyncio.sleep(0))


def test_close_in_an_operation(loop):
    near, far = socket.socketpair()
    with near, far:
        loop.add_reader(near, Released(loop.close))
        loop.add_reader(near, print)
        assert loop.is_closed()
        with pytest.raises(RuntimeError, match="closed"):
            loop.call_soon(print)


def test_a_fork_in_the_middle():
    """The child's part of the operation meets an emptied loop, and the parent's goes on."""
    python(
        """
        import asyncio, os, socket, tokioloop

        class Released:
            def __init__(self, function):
                self.function = function
            def __call__(self):
                pass
            def __del__(self):
                self.function()

        loop = tokioloop.TokioLoop()
        near, far = socket.socketpair()
        pids = []
        loop.add_reader(near, Released(lambda: pids.append(os.fork())))
        got = loop.create_future()
        try:
            loop.add_reader(near, lambda: got.done() or got.set_result(near.recv(9)))
        except RuntimeError:
            assert pids == [0]
        if pids == [0]:
            try:
                loop.call_soon(print)
            except RuntimeError as error:
                os._exit("forked" not in str(error))
            os._exit(2)
        assert os.waitpid(pids[0], 0)[1] == 0
        far.send(b"data")
        assert loop.run_until_complete(got) == b"data"
        loop.remove_reader(near)
        loop.close()
        """
    )
