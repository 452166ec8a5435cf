"""The interpreter's end: pools, then loops of other threads, then blocking calls, in whatever order they were first used."""

import itertools

import pytest

from tests.packaging.test_import import run_python

PROGRAM = """
import threading
import tokioloop
from tokioloop._loop import joining

told = []
turns = {"pools": joining.POOLS, "loops": joining.LOOPS, "executors": joining.EXECUTORS}

def hook(name, fails):
    def call():
        print(name)
        # Registered late, as where a hook is the first to import a module: a turn that is over refuses.
        print(name, "again", joining.before_joining(turns[name], print))
        if fails:
            raise SystemExit
    return call

# In the place of those that the package registers.
joining._hooks.clear()
for name in NAMES:
    assert joining.before_joining(turns[name], hook(name, name == FAILS))
"""


@pytest.mark.parametrize("names", list(itertools.permutations(["pools", "loops", "executors"])), ids="-".join)
def test_turns_come_in_their_order(names):
    told = run_python(f"NAMES, FAILS = {names!r}, None" + PROGRAM).split("\n")
    in_order = [
        "pools",
        "pools again False",
        "loops",
        "loops again False",
        "executors",
        "executors again False",
    ]
    assert told == in_order


def test_a_blocking_call_that_waits_for_a_pool_s_job_ends_though_it_came_first():
    code = """
import asyncio, concurrent.futures, threading, tokioloop

started = threading.Event()

async def blocked():
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int)
    job = tokioloop.WorkerPool(threads=1).submit(asyncio.sleep, 1000)

    def wait():
        started.set()
        concurrent.futures.wait([job])

    loop.run_in_executor(None, wait)
    await asyncio.sleep(1000)

threading.Thread(target=tokioloop.run, args=(blocked(),), daemon=True).start()
started.wait()
print("ends")
"""
    assert run_python(code, "-W", "ignore") == "ends"
