"""The ready queue: order, turns, re-entrancy."""

import asyncio
import weakref

import pytest

from .support import collected


def test_callbacks_run_in_the_order_they_came(loop, turn):
    got = []
    for n in range(1000):
        loop.call_soon(got.append, n)
    turn()
    assert got == list(range(1000))


def test_a_callback_scheduled_by_a_callback_runs_in_the_next_turn(loop, turn):
    got = []

    def outer(n):
        got.append(("outer", n))
        loop.call_soon(got.append, ("inner", n))

    loop.call_soon(outer, 1)
    loop.call_soon(outer, 2)
    turn()
    assert got == [("outer", 1), ("outer", 2)]
    turn()
    assert got[2:] == [("inner", 1), ("inner", 2)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_any_number_of_arguments(loop, turn, count):
    got = []
    loop.call_soon(lambda *args: got.append(args), *range(count))
    turn()
    assert got == [tuple(range(count))]


def test_a_recursive_run_is_refused_and_the_outer_one_goes_on(loop):
    errors = []

    def inner():
        for call in (loop.run_forever, lambda: loop.run_until_complete(loop.create_future())):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        loop.call_soon(loop.stop)

    loop.call_soon(inner)
    loop.run_forever()
    assert errors == ["This event loop is already running"] * 2


def test_another_loop_cannot_run_inside(loop):
    other = type(loop)()

    async def main():
        other.run_forever()

    with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
        loop.run_until_complete(main())
    other.close()


def test_callbacks_and_arguments_are_released_after_the_call(loop, turn):
    class Payload:
        def __call__(self, other):
            pass

    callback, argument = Payload(), Payload()
    references = [weakref.ref(callback), weakref.ref(argument)]
    loop.call_soon(callback, argument)
    del callback, argument
    turn()
    assert all(collected(reference) for reference in references)


def test_a_burst_longer_than_the_store_of_free_handles(loop, turn):
    got = []
    for round in range(3):
        handles = [loop.call_soon(got.append, (round, n)) for n in range(5000)]
        handles[7].cancel()
        turn()
    assert len(got) == 3 * 4999
    assert got == sorted(got)


@pytest.mark.parametrize(
    "method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at", "create_task"]
)
def test_a_closed_loop_takes_nothing(loop, method):
    loop.close()
    args = {"call_later": (0, print), "call_at": (0, print)}.get(method, (print,))
    coro = None
    if method == "create_task":
        coro = asyncio.sleep(0)
        args = (coro,)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(loop, method)(*args)
    if coro is not None:
        coro.close()


def test_closing_drops_what_is_queued(loop):
    class Payload:
        def __call__(self):
            raise AssertionError("never run")

    references = []
    for schedule in (loop.call_soon, loop.call_soon_threadsafe, lambda it: loop.call_later(1, it)):
        payload = Payload()
        references.append(weakref.ref(payload))
        schedule(payload)
        del payload
    loop.close()
    assert all(collected(reference) for reference in references)


def test_a_callback_cannot_close_its_own_running_loop(loop, contexts):
    loop.call_soon(loop.close)
    loop.call_soon(loop.stop)
    loop.run_forever()
    (context,) = contexts
    assert str(context["exception"]) == "Cannot close a running event loop"
    assert not loop.is_closed()


def test_queueing_from_a_destructor_while_the_loop_drops_things(loop, turn):
    """Dropping a callback runs foreign code, which may come back to the loop at any point."""
    got = []

    class Echo:
        def __del__(self):
            if not loop.is_closed():
                loop.call_soon(got.append, "echo")

        def __call__(self, *args):
            pass

    loop.call_soon(Echo(), Echo(), Echo())
    loop.call_soon(Echo()).cancel()
    for _ in range(200):
        loop.call_later(100, Echo()).cancel()
    turn()
    turn()
    turn()
    assert got == ["echo"] * 204
