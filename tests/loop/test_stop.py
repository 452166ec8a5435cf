"""stop() in every place, and what a stopped loop keeps for its next run."""

import socket
import threading

import pytest


def test_stop_before_the_run_lets_one_turn_through(loop):
    got = []
    loop.call_soon(lambda: (got.append(1), loop.call_soon(got.append, 2)))
    loop.stop()
    loop.run_forever()
    assert got == [1]
    loop.stop()
    loop.run_forever()
    assert got == [1, 2]


def test_stop_in_a_callback_finishes_the_turn(loop, turn):
    got = []
    loop.call_soon(loop.stop)
    loop.call_soon(got.append, "same turn")
    loop.call_soon(lambda: loop.call_soon(got.append, "next turn"))
    loop.run_forever()
    assert got == ["same turn"]
    turn()
    assert got == ["same turn", "next turn"]


def test_stop_twice_stops_once(loop):
    got = []
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(got.append, 1)
    loop.call_soon(lambda: loop.call_soon(loop.stop))
    loop.run_forever()
    assert got == [1]


def test_stop_by_a_timer_while_parked(loop):
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert not loop.is_running()


def test_stop_from_another_thread_wakes_a_parked_loop(elsewhere):
    elsewhere.loop.stop()
    elsewhere.thread.join(30)
    assert not elsewhere.thread.is_alive()


def test_stop_from_another_thread_while_busy(loop):
    count = 0

    def busy():
        nonlocal count
        count += 1
        loop.call_soon(busy)

    loop.call_soon(busy)
    thread = threading.Thread(target=loop.stop)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert count > 0


def test_stop_of_a_closed_loop_is_harmless(loop):
    loop.close()
    loop.stop()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()


def test_a_run_after_many_runs(loop):
    for _ in range(500):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert not loop.is_running() and not loop.is_closed()


def test_run_until_complete_of_a_stopped_loop(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)
    loop.call_soon(future.set_result, 5)
    assert loop.run_until_complete(future) == 5


def test_closing_in_one_thread_while_another_begins_to_run(loop):
    """The loop ran closed: it could not be stopped any more, and spun."""
    for _ in range(300):
        contested = type(loop)()
        barrier = threading.Barrier(2)
        errors = []

        def run(contested=contested, barrier=barrier, errors=errors):
            barrier.wait()
            try:
                contested.run_forever()
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        barrier.wait()
        try:
            contested.close()
        except RuntimeError as error:
            assert str(error) == "Cannot close a running event loop"  # noqa: PT017
            contested.stop()
        thread.join(30)
        assert not thread.is_alive(), f"{contested!r} cannot be stopped"
        assert errors in ([], ["Event loop is closed"])
        contested.close()


def test_two_threads_run_one_loop(loop):
    """One of them runs it, the other gets an error."""
    for _ in range(200):
        barrier = threading.Barrier(2)
        told = []

        def run(barrier=barrier, told=told):
            barrier.wait()
            try:
                loop.run_forever()
            except RuntimeError as error:
                told.append(str(error))
                loop.stop()

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert len(told) == 1
        assert "running" in told[0]


def test_a_reader_that_ran_before_the_stop_does_not_run_again(loop):
    near, far = socket.socketpair()
    seen = []

    def readable():
        seen.append(near.recv(10))
        loop.call_soon(loop.stop)

    with near, far:
        near.setblocking(False)
        loop.add_reader(near, readable)
        far.send(b"once")
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen == [b"once"]
        loop.remove_reader(near)
