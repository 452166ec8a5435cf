"""Look-ups of names have a limit of their own, and a waiting one can be cancelled."""

import pytest

from ..loop.faults import python_stuck

# The look-ups of "stuck" names end when `release()` was called.
START = """
import asyncio, gc, os, socket, sys, threading, tokioloop
from tokioloop import runtime

writer = os.open(os.environ["STUCK"], os.O_RDWR)
release = lambda: os.close(writer)

async def until(condition):
    while not condition(runtime.metrics()):
        await asyncio.sleep(0)

def ask(name):
    return asyncio.ensure_future(asyncio.get_running_loop().getaddrinfo(name, 80))

async def answers(*asked):
    return [type(answer).__name__ for answer in await asyncio.gather(*asked, return_exceptions=True)]

"""


@pytest.fixture
def stuck(tmp_path):
    def run(code, *args, **environ):
        return python_stuck(START + code, tmp_path / "stuck", *args, **environ)

    return run


@pytest.mark.parametrize("how", ["configure", "environment", "default"])
def test_a_limited_number_run_and_the_others_wait(stuck, how):
    stuck(
        """
HOW = sys.argv[1]
limit = 32 if HOW == "default" else 3
if HOW == "configure":
    runtime.configure(resolver_threads=limit, max_blocking_threads=1)

async def main():
    asked = [ask("stuck") for _ in range(limit + 7)]
    # The figures are read one after the other.
    await until(lambda found: found.waiting_lookups == found.blocking_queue_depth == 7)
    await until(lambda found: found.blocking_threads == found.running_lookups == limit)
    release()
    assert await answers(*asked) == ["gaierror"] * len(asked)
    await until(lambda found: found.running_lookups == 0)

tokioloop.run(main())
""",
        how,
        **({"TOKIOLOOP_RESOLVER_THREADS": "3"} if how == "environment" else {}),
    )


@pytest.mark.parametrize("end", ["cancel", "timeout", "loop", "collected"])
def test_one_that_waits_leaves_the_queue(stuck, end):
    stuck(
        """
END = sys.argv[1]
runtime.configure(resolver_threads=1)

async def main():
    loop = asyncio.get_running_loop()
    first = ask("stuck")
    await until(lambda found: found.running_lookups == 1)
    if END == "loop":
        def elsewhere():
            async def give_up():
                waiting.append(ask("stuck"))
                await asyncio.sleep(0)
            waiting = []
            tokioloop.run(give_up())
        await asyncio.to_thread(elsewhere)
    elif END == "timeout":
        for _ in range(5):
            try:
                await asyncio.wait_for(loop.getaddrinfo("stuck", 80), 0.001)
            except TimeoutError:
                pass
    elif END == "collected":
        coroutines = [loop.getaddrinfo("stuck", 80) for _ in range(5)]
        for coroutine in coroutines:
            coroutine.send(None)
        await until(lambda found: found.waiting_lookups == 5)
        del coroutine, coroutines
        gc.collect()
    else:
        asked = [ask("stuck") for _ in range(5)]
        await until(lambda found: found.waiting_lookups == 5)
        for task in asked:
            task.cancel()
        assert await answers(*asked) == ["CancelledError"] * 5
    await until(lambda found: found.waiting_lookups == 0)
    assert runtime.metrics().running_lookups == 1
    # The running look-up goes on without its waiter; a later one waits for its turn.
    first.cancel()
    later = asyncio.create_task(loop.getaddrinfo("localhost", 80))
    await until(lambda found: found.waiting_lookups == 1)
    assert runtime.metrics().running_lookups == 1
    release()
    assert (await later)[0][4][1] == 80

tokioloop.run(main())
""",
        end,
    )


def test_other_blocking_work_goes_on(stuck):
    """Functions in the default executor and numeric addresses need no thread of the resolver, and the resolver needs none of theirs."""
    stuck(
        """
runtime.configure(resolver_threads=1)

async def main():
    loop = asyncio.get_running_loop()
    asked = [ask("stuck") for _ in range(40)]
    await until(lambda found: found.waiting_lookups == 39)
    assert await asyncio.gather(*(asyncio.to_thread(int, "5") for _ in range(100))) == [5] * 100
    assert (await loop.getaddrinfo("127.0.0.1", 80))[0][4] == ("127.0.0.1", 80)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    server.close()
    release()
    await answers(*asked)

    # Now the executor's threads are all busy.
    go = threading.Event()
    busy = [loop.run_in_executor(None, go.wait) for _ in range(200)]
    assert (await loop.getaddrinfo("localhost", 80))[0][4][1] == 80
    go.set()
    await asyncio.gather(*busy)

tokioloop.run(main())
"""
    )


def test_of_several_loops(stuck):
    stuck(
        """
runtime.configure(resolver_threads=2)
count = 25

def work():
    async def main():
        asked = [ask("stuck") for _ in range(count)]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        assert set(await answers(*asked)) == {"CancelledError", "gaierror"}
    tokioloop.run(main())

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
# Half of each loop's stay, of which some run.
while not runtime.metrics().running_lookups:
    pass
release()
for thread in threads:
    thread.join()
assert runtime.metrics().waiting_lookups == 0
"""
    )


def test_a_forked_child_has_a_queue_of_its_own(stuck):
    stuck(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
runtime.configure(resolver_threads=1)

def child():
    async def main():
        return await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    # What the parent's loop waits for goes, and is none of the child's.
    waiting.close()
    assert runtime.metrics().running_lookups == 0
    thread = threading.Thread(target=lambda: got.append(tokioloop.run(main())))
    got = []
    thread.start()
    thread.join()
    os._exit(0 if got[0][0][4][1] == 80 else 1)

async def main():
    global waiting
    first = ask("stuck")
    await until(lambda found: found.running_lookups == 1)
    waiting = asyncio.get_running_loop().getaddrinfo("stuck", 80)
    waiting.send(None)
    await until(lambda found: found.waiting_lookups == 1)
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert runtime.metrics().waiting_lookups == 1
    waiting.close()
    assert runtime.metrics().waiting_lookups == 0
    release()
    assert await answers(first) == ["gaierror"]

tokioloop.run(main())
"""
    )
