"""One loop per thread: the same work on one thread and on several, with the time each took.

    python examples/loop_per_thread.py [--threads 4]

On free-threaded CPython the loops really run in parallel: each is owned by its thread, so they share nothing that
one of them could wait for. The program works on a build with the GIL too, but gains nothing from the threads.
"""

import argparse
import asyncio
import os
import threading
import time

import tokioloop

TASKS = 100
ROUNDS = 400


async def worker() -> int:
    """Some turns of the loop with a little work in each."""
    total = 0
    for number in range(ROUNDS):
        total += sum(range(number % 50))
        await asyncio.sleep(0)
    return total


async def batch() -> int:
    return sum(await asyncio.gather(*(worker() for _ in range(TASKS))))


def run_on(count: int) -> tuple[float, list[int]]:
    """Run one batch on each of `count` threads; the seconds it took and every thread's result."""
    results = [0] * count

    def run(index: int) -> None:
        results[index] = tokioloop.run(batch())

    threads = [threading.Thread(target=run, args=(index,), name=f"loop-{index}") for index in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, results


def main() -> None:
    parser = argparse.ArgumentParser(description="The same work on one loop and on one loop per thread.")
    parser.add_argument("--threads", type=int, default=max(2, len(os.sched_getaffinity(0))))
    several = parser.parse_args().threads
    alone, [expected] = run_on(1)
    together, results = run_on(several)
    if results != [expected] * several:
        raise SystemExit(f"threads disagree: {results} instead of {expected} each")
    print(f"1 thread:   1 batch   in {alone:.3f} s")
    print(
        f"{several} threads:  {several} batches in {together:.3f} s, {several * alone / together:.2f} times the throughput"
    )


if __name__ == "__main__":
    main()
