"""A job gets its caller's context variables, and its changes do not leak."""

import asyncio
import contextvars
import threading

from tokioloop import run_on

from ..loop.support import PATIENCE

var = contextvars.ContextVar("var", default="unset")


def get_and_set(value):
    before = var.get()
    var.set(value)
    return before


async def get_and_set_slowly(value):
    before = var.get()
    var.set(value)
    await asyncio.sleep(0)
    assert var.get() == value
    return before


def test_a_job_sees_its_submitters_context(pool):
    for fn in (get_and_set, get_and_set_slowly):
        var.set("submitter's")
        job = pool.submit(fn, "job's")
        var.set("later")
        assert job.result(PATIENCE) == "submitter's"
        assert var.get() == "later"


def test_nothing_leaks_into_the_next_job(one):
    def submit(value, fn):
        return one.submit(fn, value)

    for fn in (get_and_set, get_and_set_slowly):
        for n in range(5):
            assert contextvars.Context().run(submit, n, fn).result(PATIENCE) == "unset"


def test_a_function_that_returns_a_coroutine_shares_its_context(pool):
    def make():
        var.set("made")
        return get_and_set_slowly("then")

    assert pool.submit(make).result(PATIENCE) == "made"


def test_jobs_submitted_by_jobs(pool):
    async def outer():
        var.set("outer's")
        return await pool.run(get_and_set, "inner's"), var.get()

    assert pool.submit(outer).result(PATIENCE) == ("outer's", "outer's")


def test_through_run_map_and_imap(pool, run):
    async def main():
        var.set("caller's")
        assert await pool.run(get_and_set, "other") == "caller's"
        assert await pool.run(get_and_set_slowly, "other", worker=1) == "caller's"
        assert [got async for got in pool.imap(get_and_set, range(5))] == ["caller's"] * 5
        assert list(pool.map(get_and_set, range(5))) == ["caller's"] * 5
        assert var.get() == "caller's"

    run(main())


def test_through_run_on(loop_there, run):
    async def main():
        var.set("caller's")
        assert await run_on(loop_there, get_and_set_slowly("there")) == "caller's"
        assert var.get() == "caller's"

    run(main())


def test_threads_of_their_own_context(pool):
    got = []

    def submitter(n):
        var.set(n)
        got.append([pool.submit(get_and_set, "x").result(PATIENCE) for _ in range(50)] == [n] * 50)

    threads = [threading.Thread(target=submitter, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True] * 4
