"""setup and teardown: once on each worker's loop, and what happens when they fail."""

import asyncio
import threading
from concurrent.futures import BrokenExecutor, CancelledError

import pytest

import tokioloop

from ..loop.support import PATIENCE


def state():
    return tokioloop.current_worker().state


class Hooks:
    """Note where they are called."""

    def __init__(self):
        self.log = []
        self.lock = threading.Lock()

    def note(self, what):
        with self.lock:
            self.log.append((what, tokioloop.current_worker(), threading.current_thread()))

    def setup(self):
        self.note("setup")
        return object()

    def teardown(self):
        self.note("teardown")

    async def async_setup(self):
        assert asyncio.get_running_loop() is tokioloop.current_worker().loop
        await asyncio.sleep(0)
        return self.setup()

    async def async_teardown(self):
        assert asyncio.get_running_loop() is tokioloop.current_worker().loop
        await asyncio.sleep(0)
        self.teardown()


@pytest.mark.parametrize("kind", ["", "async_"])
def test_each_once_on_each_worker(kind):
    hooks = Hooks()
    options = {"setup": getattr(hooks, f"{kind}setup"), "teardown": getattr(hooks, f"{kind}teardown")}
    with tokioloop.WorkerPool(3, **options) as pool:
        assert sorted(worker.index for _, worker, _ in hooks.log) == [0, 1, 2]
        list(pool.map(int, range(100)))
        states = [pool.submit(state, worker=index).result(PATIENCE) for index in range(3)]
        assert states == [worker.state for worker in pool.workers] and len(set(states)) == 3
    expected = {(what, worker, worker.thread) for what in ("setup", "teardown") for worker in pool.workers}
    assert len(hooks.log) == 6 and set(hooks.log) == expected


def test_jobs_wait_for_the_setup():
    go = threading.Event()
    log = []

    def setup():
        assert go.wait(PATIENCE)
        log.append("setup")

    pool = tokioloop.WorkerPool(1, setup=setup)
    job = pool.submit(log.append, "job")
    pinned = pool.submit(log.append, "pinned", worker=0)
    go.set()
    job.result(PATIENCE)
    pinned.result(PATIENCE)
    assert log[0] == "setup" and set(log[1:]) == {"job", "pinned"}
    pool.shutdown()


def test_teardown_follows_the_last_job():
    log = []

    async def job():
        await asyncio.sleep(0)
        log.append("job")

    with tokioloop.WorkerPool(1, teardown=lambda: log.append("teardown")) as pool:
        for _ in range(20):
            pool.submit(job)
    assert log == ["job"] * 20 + ["teardown"]


async def fail_async():
    raise LookupError("no setup")


def fail():
    raise LookupError("no setup")


@pytest.mark.parametrize("setup", [fail, fail_async])
def test_a_setup_that_fails_breaks_the_pool(setup):
    pool = tokioloop.WorkerPool(2, setup=setup)
    with pytest.raises((LookupError, BrokenExecutor)):
        pool.__enter__()
    with pytest.raises((LookupError, BrokenExecutor)):
        _ = pool.loops
    with pytest.raises(BrokenExecutor, match="no setup") as caught:
        pool.submit(int)
    assert isinstance(caught.value.__cause__, LookupError)
    pool.shutdown()
    assert not any(worker.thread.is_alive() for worker in pool.workers)


def test_jobs_that_waited_for_a_setup_that_fails():
    go = threading.Event()

    def setup():
        assert go.wait(PATIENCE)
        raise LookupError

    pool = tokioloop.WorkerPool(2, setup=setup)
    jobs = [pool.submit(int, worker=worker) for worker in (None, 0, 1) for _ in range(5)]
    go.set()
    assert {type(job.exception(PATIENCE)) for job in jobs} == {BrokenExecutor}
    pool.shutdown()


def test_one_setup_of_several_fails():
    second = threading.Event()

    def setup():
        if tokioloop.current_worker().index == 1:
            assert second.wait(PATIENCE)
            raise LookupError

    pool = tokioloop.WorkerPool(2, setup=setup)
    assert pool.submit(int).result(PATIENCE) == 0, "the first works meanwhile"
    pinned = pool.submit(int, worker=1)
    second.set()
    assert isinstance(pinned.exception(PATIENCE), BrokenExecutor)
    pool.shutdown()


def test_entering_an_async_pool_whose_setup_fails(run):
    async def main():
        with pytest.raises((LookupError, BrokenExecutor)):
            async with tokioloop.WorkerPool(2, setup=fail):
                pass

    run(main())


def test_leaving_while_the_setup_goes_on(run):
    """A task that is cancelled while entering does not change the pool."""
    go = threading.Event()
    pool = tokioloop.WorkerPool(2, setup=lambda: go.wait(PATIENCE))

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.__aenter__()
        go.set()
        async with pool:
            assert await pool.run(int) == 0

    run(main())
    assert not any(worker.thread.is_alive() for worker in pool.workers)


@pytest.mark.parametrize("how", ["plain", "async"])
def test_a_teardown_that_fails_is_reported(how, caplog):
    def teardown():
        raise LookupError("no teardown")

    async def async_teardown():
        raise LookupError("no teardown")

    with tokioloop.WorkerPool(1, teardown=teardown if how == "plain" else async_teardown) as pool:
        job = pool.submit(int)
    assert job.result(0) == 0
    assert [record.exc_info[0] for record in caplog.records] == [LookupError]


def test_what_the_setup_left_running_is_ended(one):
    """Tasks that belong to no job do not hold the pool's end up, and are cancelled at it."""
    log = []

    async def background():
        try:
            await asyncio.Event().wait()
        finally:
            log.append("ended")

    async def setup():
        worker = tokioloop.current_worker()
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        return worker, task

    with tokioloop.WorkerPool(1, setup=setup):
        pass
    assert log == ["ended"]


def test_a_set_up_that_hangs_is_cancelled_at_the_end():
    began = threading.Event()

    async def hang():
        began.set()
        await asyncio.Event().wait()

    pool = tokioloop.WorkerPool(2, setup=hang)
    began.wait(PATIENCE)
    job = pool.submit(int)
    pool.shutdown(timeout=0)
    assert not any(worker.thread.is_alive() for worker in pool.workers)
    with pytest.raises((BrokenExecutor, CancelledError)):
        job.result(0)


def test_a_set_up_that_raises_a_cancellation_does_not_cancel_its_caller():
    async def fail():
        raise asyncio.CancelledError

    async def main():
        with pytest.raises(BrokenExecutor):
            async with tokioloop.WorkerPool(1, setup=fail):
                pass
        assert asyncio.current_task().cancelling() == 0

    tokioloop.run(main())
