"""A kernel that refuses membarrier(2), from the start or from some moment on: threads that look at another's tasks still see whole ones."""

import pytest

from .support import python

# Other threads read the tasks while the loop's thread changes them.
CODE = """
    import asyncio, ctypes, platform, struct, sys, threading

    MEMBARRIER = {"x86_64": 324, "aarch64": 283}.get(platform.machine())
    if MEMBARRIER is None:
        sys.exit()  # Another machine, another number.

    def refuse():
        '''From here on the kernel refuses the call to this thread, and to those that it starts.'''
        def rule(code, k, jump=0, other=0):
            return struct.pack("HBBI", code, jump, other, k)

        load, if_equal, answer = 0x20, 0x15, 0x06
        rules = rule(load, 0) + rule(if_equal, MEMBARRIER, 0, 1) + rule(answer, 0x00050001) + rule(answer, 0x7FFF0000)
        kept = ctypes.create_string_buffer(rules, len(rules))
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(kept)))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
            print("no filters here")
            sys.exit()
        assert libc.syscall(MEMBARRIER, 0, 0, 0) == -1

    when = sys.argv[1]
    if when == "before":
        refuse()
    import tokioloop

    async def step(future):
        await asyncio.sleep(0)
        return await future

    async def main(barrier, over, targets):
        loop = asyncio.get_running_loop()
        barrier.wait(30)
        while not over.is_set():
            future = loop.create_future()
            tasks = [loop.create_task(step(future)) for _ in range(10)]
            targets[:] = [future, *tasks]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            future.set_result(None)
            await asyncio.gather(*tasks)

    def work(loop, looks):
        barrier, over, targets, failed = threading.Barrier(3), threading.Event(), [], []

        def look():
            try:
                barrier.wait(30)
                for _ in range(looks):
                    asyncio.all_tasks(loop)
                    for target in list(targets):
                        repr(target), target._callbacks, target.done(), target.get_loop()
            except BaseException as error:
                failed.append(error)
            finally:
                over.set()

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        loop.run_until_complete(main(barrier, over, targets))
        for thread in threads:
            thread.join(30)
        assert not failed, failed

    loop = tokioloop.new_event_loop()
    if when == "after":
        work(loop, 20)
        refuse()
    work(loop, 300)
    loop.close()
    loop = tokioloop.new_event_loop()
    work(loop, 300)
    loop.close()
    print("done")
"""


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_a_refused_barrier(when: str) -> None:
    done = python(CODE, when)
    assert done.stdout.split() in (["done"], ["no", "filters", "here"], [])
