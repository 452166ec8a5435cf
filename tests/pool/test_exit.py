"""Ctrl-C, and the interpreter's end, in processes of their own."""

import pytest

from ..loop.support import python

START = """
import asyncio, concurrent.futures, os, signal, sys, threading, tokioloop

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

# CPython checks for signals only before it blocks, and not between the check and the blocking: so the tests send SIGINT to a
# waiting main thread until it is handled, and only the first one counts.
seen = threading.Event()

def once(*args):
    if not seen.is_set():
        seen.set()
        raise KeyboardInterrupt

def interrupt_main():
    while not seen.wait(0.02):
        interrupt()

started, gate = threading.Event(), threading.Event()

def block():
    started.set()
    gate.wait()

async def wait_for_ever():
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned", flush=True)
"""


def test_an_interrupt_inside_with_drains():
    """Submitted jobs are done before KeyboardInterrupt propagates."""
    done = python(
        START
        + """
async def slow(n):
    await asyncio.sleep(0.01)
    return n

try:
    with tokioloop.WorkerPool(2) as pool:
        jobs = [pool.submit(slow, n) for n in range(50)]
        interrupt()
        threading.Event().wait()
except KeyboardInterrupt:
    print("interrupted")
assert [job.result(0) for job in jobs] == list(range(50))
assert not any(worker.thread.is_alive() for worker in pool.workers)
"""
    )
    assert done.stdout == "interrupted\n" and done.stderr == ""


def test_a_second_interrupt_cancels():
    """The first one ends the body, the second one the wait for a coroutine that has no end."""
    done = python(
        START
        + """
signal.signal(signal.SIGINT, once)
try:
    with tokioloop.WorkerPool(2) as pool:
        job = pool.submit(wait_for_ever)
        assert started.wait(30)
        # From a thread that sends the second once the pool refuses jobs, so that the main thread is in its wait.
        def second():
            while True:
                try:
                    pool.submit(int).result(30)
                except RuntimeError:
                    break
            interrupt_main()
        threading.Thread(target=second).start()
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("interrupted")
assert job.cancelled()
assert not any(worker.thread.is_alive() for worker in pool.workers)
"""
    )
    assert done.stdout == "cleaned\ninterrupted\n" and done.stderr == ""


def test_an_interrupt_of_a_wait_for_a_function_leaves_it_behind():
    done = python(
        START
        + """
import warnings
warnings.simplefilter("always")
signal.signal(signal.SIGINT, once)
pool = tokioloop.WorkerPool(1)
job, behind = pool.submit(block), pool.submit(int)
assert started.wait(30)
def second():
    while True:
        try:
            pool.submit(int)
        except RuntimeError:
            break
    interrupt_main()
threading.Thread(target=second).start()
try:
    pool.shutdown()
except KeyboardInterrupt:
    print("interrupted")
assert job.cancelled() and behind.cancelled()
"""
    )
    assert done.stdout == "interrupted\n" and "left behind" in done.stderr


def test_an_interrupt_of_a_result():
    """The job goes on, and the pool still works."""
    done = python(
        START
        + """
signal.signal(signal.SIGINT, once)
with tokioloop.WorkerPool(1) as pool:
    job = pool.submit(block)
    assert started.wait(30)
    threading.Thread(target=interrupt_main).start()
    try:
        job.result()
    except KeyboardInterrupt:
        print("interrupted")
    gate.set()
    assert pool.submit(int).result(30) == 0
"""
    )
    assert done.stdout == "interrupted\n"


def test_an_interrupt_of_an_async_with():
    """The runner cancels its main task, which cancels the jobs it awaits."""
    done = python(
        START
        + """
async def main():
    async with tokioloop.WorkerPool(2) as pool:
        threading.Thread(target=lambda: (started.wait(30), interrupt())).start()
        await pool.run(wait_for_ever)

try:
    tokioloop.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert done.stdout == "cleaned\ninterrupted\n" and done.stderr == ""


@pytest.mark.parametrize(
    "jobs",
    [
        "pass",
        "pool.submit(int)",
        "pool.submit(wait_for_ever); started.wait()",
        "pool.submit(wait_for_ever)",
        "[pool.submit(asyncio.sleep, 0.001) for _ in range(1000)]",
        "pool.submit(int, worker=1).result()",
    ],
)
def test_the_interpreter_ends_with_a_pool_open(jobs):
    done = python(START + f"pool = tokioloop.WorkerPool(2)\n{jobs}\n")
    assert done.stderr == ""


def test_the_interpreter_ends_while_a_function_blocks():
    """Bounded in time; the jobs' futures end."""
    done = python(
        START
        + """
import warnings
warnings.simplefilter("always")
pool = tokioloop.WorkerPool(1)
jobs = [pool.submit(block), pool.submit(int)]
for job in jobs:
    job.add_done_callback(lambda job: print(job.cancelled(), flush=True))
assert started.wait(30)
"""
    )
    assert done.stdout == "True\nTrue\n" and "left behind" in done.stderr


def test_the_interpreter_ends_with_several_pools_and_threads_that_wait():
    done = python(
        START
        + """
pools = [tokioloop.WorkerPool(2) for _ in range(4)]

def wait():
    try:
        pools[0].submit(wait_for_ever).result()
    except concurrent.futures.CancelledError:
        print("told", flush=True)

threading.Thread(target=wait).start()
assert started.wait(30)
"""
    )
    assert sorted(done.stdout.split()) == ["cleaned", "told"] and done.stderr == ""


def test_the_teardown_runs_at_the_interpreters_end():
    done = python(
        START
        + """
pool = tokioloop.WorkerPool(2, teardown=lambda: os.write(1, b"torn\\n"))
pool.submit(int).result()
"""
    )
    assert done.stdout == "torn\n" * 2


def test_submitting_while_the_interpreter_ends():
    done = python(
        START
        + """
pool = tokioloop.WorkerPool(2)

def submit():
    jobs = []
    try:
        while True:
            jobs.append(pool.submit(int))
    except RuntimeError:
        for job in jobs:
            assert concurrent.futures.wait([job], 30).done
        os.write(1, b"all ended\\n")

threads = [threading.Thread(target=submit) for _ in range(4)]
for thread in threads:
    thread.start()
"""
    )
    assert done.stdout == "all ended\n" * 4 and done.stderr == ""
