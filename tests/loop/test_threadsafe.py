"""call_soon_threadsafe: order, wake-ups, the end of the loop."""

import asyncio
import gc
import threading

import tokioloop


def test_each_producers_order_is_kept(elsewhere):
    producers, each = 4, 2000
    got = {n: [] for n in range(producers)}
    barrier = threading.Barrier(producers)

    def produce(n):
        barrier.wait()
        for i in range(each):
            elsewhere.loop.call_soon_threadsafe(got[n].append, i)

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elsewhere.call(lambda: None)
    assert got == {n: list(range(each)) for n in range(producers)}


def test_a_wake_up_is_never_lost(elsewhere):
    """Ping-pong: each post finds the loop about to sleep, asleep, or just awake."""
    for n in range(2000):
        event = threading.Event()
        elsewhere.loop.call_soon_threadsafe(event.set)
        assert event.wait(30), n


def test_two_loops_wake_each_other():
    loops = [tokioloop.TokioLoop(), tokioloop.TokioLoop()]
    done = threading.Event()

    def ping(n, left):
        if not left:
            done.set()
        else:
            loops[n ^ 1].call_soon_threadsafe(ping, n ^ 1, left - 1)

    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    loops[0].call_soon_threadsafe(ping, 0, 5000)
    assert done.wait(60)
    for loop, thread in zip(loops, threads, strict=True):
        loop.stop()
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


def test_posts_to_a_loop_that_does_not_run_wait_for_it(loop, turn):
    got = []
    threads = [threading.Thread(target=loop.call_soon_threadsafe, args=(got.append, n)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == []
    turn()
    assert sorted(got) == list(range(50))


def test_posts_while_the_loop_starts_and_stops(loop):
    """A producer's posts land in the inbox or on the queue, depending on the moment; the order holds."""
    got = []
    each = 3000

    def produce():
        for n in range(each):
            loop.call_soon_threadsafe(got.append, n)
        loop.call_soon_threadsafe(got.append, None)

    thread = threading.Thread(target=produce)
    thread.start()
    while None not in got[-1:]:
        loop.stop()
        loop.run_forever()
    thread.join()
    assert got == [*range(each), None]


def test_a_post_is_run_or_refused_when_the_loop_ends():
    """Every accepted callback that is not run was dropped by close(); none is both."""
    for _ in range(30):
        loop = tokioloop.TokioLoop()
        ran, alive = [], []
        refused = 0

        class Call:
            def __init__(self, alive=alive):
                alive.append(1)
                self.alive = alive

            def __call__(self, ran=ran):
                ran.append(1)

            def __del__(self):
                self.alive.pop()

        started = threading.Event()
        loop.call_soon(started.set)

        def work(loop=loop):
            loop.run_forever()
            loop.close()

        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        accepted = 0
        loop.call_soon_threadsafe(loop.stop)
        while True:
            try:
                loop.call_soon_threadsafe(Call())
                accepted += 1
            except RuntimeError as error:
                assert str(error) == "Event loop is closed"  # noqa: PT017
                refused += 1
                break
        thread.join()
        assert len(ran) <= accepted
        gc.collect()
        assert alive == [], "a callback was neither run nor dropped"


def test_a_post_may_be_cancelled_by_its_maker(elsewhere):
    got = []
    blocked, go = threading.Event(), threading.Event()
    elsewhere.loop.call_soon_threadsafe(lambda: (blocked.set(), go.wait(30)))
    blocked.wait(30)
    handle = elsewhere.loop.call_soon_threadsafe(got.append, "first")
    elsewhere.loop.call_soon_threadsafe(got.append, "second")
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    go.set()
    elsewhere.call(lambda: None)
    assert got == ["second"]
    assert "cancelled" in repr(handle)


def test_cancelling_posts_while_they_run(elsewhere):
    """Each runs once or not at all, and which of the two is never unclear afterwards."""
    got = []
    handles = []
    for n in range(3000):
        handles.append(elsewhere.loop.call_soon_threadsafe(got.append, n))
        if n % 2:
            handles[n // 2].cancel()
            repr(handles[n // 2])
    elsewhere.call(lambda: None)
    assert got == sorted(set(got))
    assert {n for n, handle in enumerate(handles) if not handle.cancelled()} <= set(got)


def test_run_coroutine_threadsafe_from_many_threads(elsewhere):
    results = []

    async def double(n):
        await asyncio.sleep(0)
        return 2 * n

    def work(n):
        for i in range(100):
            results.append(elsewhere.wait(double(n + i)) == 2 * (n + i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 400


def test_posting_from_the_loops_own_thread(loop, turn):
    got = []
    loop.call_soon(lambda: loop.call_soon_threadsafe(got.append, 2))
    loop.call_soon(got.append, 1)
    turn()
    assert got == [1]
    turn()
    assert got == [1, 2]


def test_one_wake_up_for_a_burst(elsewhere):
    """All of a burst that came while the loop was awake is run before it sleeps again: no part of it woke the loop again."""
    parks = []

    def note():
        parks.append(elsewhere.loop._metrics()["parks"])

    inside, go = threading.Event(), threading.Event()
    elsewhere.loop.call_soon_threadsafe(lambda: (inside.set(), go.wait(30)))
    assert inside.wait(30)
    for _ in range(3000):
        elsewhere.loop.call_soon_threadsafe(note)
    go.set()
    elsewhere.call(lambda: None)
    assert len(parks) == 3000 and len(set(parks)) == 1


def test_a_post_is_cancelled_from_the_loops_thread(elsewhere):
    """By a callback that runs before it, in the same burst."""
    got, box = [], []
    blocked, go = threading.Event(), threading.Event()
    elsewhere.loop.call_soon_threadsafe(lambda: (blocked.set(), go.wait(30)))
    assert blocked.wait(30)
    elsewhere.loop.call_soon_threadsafe(lambda: box[0].cancel())
    box.append(elsewhere.loop.call_soon_threadsafe(got.append, "cancelled"))
    elsewhere.loop.call_soon_threadsafe(got.append, "next")
    go.set()
    elsewhere.call(lambda: None)
    assert got == ["next"] and box[0].cancelled()


def test_a_post_is_cancelled_from_a_third_thread(elsewhere):
    got = []
    blocked, go = threading.Event(), threading.Event()
    elsewhere.loop.call_soon_threadsafe(lambda: (blocked.set(), go.wait(30)))
    assert blocked.wait(30)
    handle = elsewhere.loop.call_soon_threadsafe(got.append, 1)
    thread = threading.Thread(target=handle.cancel)
    thread.start()
    thread.join()
    go.set()
    elsewhere.call(lambda: None)
    assert got == [] and handle.cancelled()


def test_a_post_that_ran_may_be_cancelled_too_late(elsewhere):
    got = []
    handle = elsewhere.loop.call_soon_threadsafe(got.append, 1)
    elsewhere.call(lambda: None)
    handle.cancel()
    elsewhere.call(handle.cancel)
    assert got == [1] and handle.cancelled()
