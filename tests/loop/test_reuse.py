"""Handles, timers and futures that a loop reuses: never one that has another reference."""

import asyncio
import gc
import socket
import threading
import weakref

import pytest


def handles(kind):
    return [found for found in gc.get_objects() if type(found).__name__ == kind]


def of_loop(loop, kind):
    return [found for found in gc.get_referents(loop) if type(found).__name__ == kind]


def referrers(loop, kind):
    return [found for found in gc.get_referrers(loop) if type(found).__name__ == kind]


def through_weak_references(loop, kind):
    return [weakref.ref(found) for found in handles(kind)]


def in_another_thread(loop, kind):
    found = []
    thread = threading.Thread(target=lambda: found.extend(handles(kind)))
    thread.start()
    thread.join()
    return found


SCHEDULE = {
    "Handle": lambda loop, *call: loop.call_soon(*call),
    "TimerHandle": lambda loop, *call: loop.call_later(0, *call),
}
WAYS = [
    lambda loop, kind: handles(kind),
    of_loop,
    referrers,
    in_another_thread,
]


def schedule(loop, kind, *calls):
    """Handles made while the loop runs: only then free ones are used."""
    made = []
    loop.call_soon(lambda: made.extend(SCHEDULE[kind](loop, *call) for call in calls))
    run_due(loop)
    return made


def run_due(loop):
    """Until every timer that is due has been run, and the handles are free."""
    for _ in range(2):
        loop.call_later(0.001, loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("kind", SCHEDULE)
@pytest.mark.parametrize("find", WAYS, ids=["objects", "referents", "referrers", "thread"])
def test_a_free_handle_that_was_found_is_not_used_again(loop, kind, find):
    schedule(loop, kind, *[[int]] * 10).clear()
    found = find(loop, kind)
    ran = []
    loop.call_soon(lambda: loop.call_soon(lambda: [one.cancel() for one in found]))
    made = schedule(loop, kind, *([ran.append, number] for number in range(20)))
    assert not {id(one) for one in made} & {id(one) for one in found}
    assert ran == list(range(20))


@pytest.mark.parametrize("kind", SCHEDULE)
@pytest.mark.parametrize("find", WAYS, ids=["objects", "referents", "referrers", "thread"])
def test_a_handle_found_while_it_is_emptied_is_not_used_again(loop, kind, find):
    kept = []

    class Last:
        def __call__(self):
            pass

        def __del__(self):
            kept.extend(find(loop, kind))

    schedule(loop, kind, [Last()]).clear()
    ran = []
    loop.call_soon(lambda: loop.call_soon(lambda: [one.cancel() for one in kept]))
    made = schedule(loop, kind, *([ran.append, number] for number in range(20)))
    assert kept
    assert not {id(one) for one in made} & {id(one) for one in kept}
    assert ran == list(range(20))


@pytest.mark.parametrize("kind", SCHEDULE)
def test_a_weak_reference_to_a_free_handle_never_shows_the_next_call(loop, kind):
    schedule(loop, kind, *[[int]] * 10).clear()
    weak = through_weak_references(loop, kind)
    made = schedule(loop, kind, *[[int]] * 20)
    alive = [reference() for reference in weak]
    assert not {id(one) for one in made} & {id(one) for one in alive}


def test_a_free_handle_without_references_is_reused(loop):
    seen = []

    def begin():
        seen.append({id(loop.call_soon(int)) for _ in range(20)})

    for _ in range(2):
        loop.call_soon(begin)
        run_due(loop)
    assert seen[0] & seen[1]


@pytest.mark.parametrize("find", WAYS, ids=["objects", "referents", "referrers", "thread"])
def test_a_spare_future_that_was_found_is_not_used_again(loop, find):
    """The future of a waiting `sock_recv` is reused by the next one."""
    ours, other = socket.socketpair()
    ours.setblocking(False)
    kept = []

    async def receive():
        loop.call_soon(other.send, b"a")
        return await loop.sock_recv(ours, 1)

    async def main():
        assert await receive() == b"a"
        kept.extend(find(loop, "Future"))
        for future in kept:
            if not future.done():
                future.add_done_callback(kept.append)
        assert await receive() == b"a"

    with ours, other:
        loop.run_until_complete(asyncio.wait_for(main(), 20))
    futures = [one for one in kept if one.get_loop() is loop]
    assert len(futures) == len(set(futures)), "another call's future was ended"
