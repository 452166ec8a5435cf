"""Loops that talk to each other: a ring of threads that passes a counter around with call_soon_threadsafe.

    python examples/between_threads.py [--threads 4] [--rounds 10000]

`call_soon_threadsafe` connects threads: it may be called from any thread, wakes the loop only when it sleeps,
and the callback runs on the loop's own thread. Nothing else of a running loop may be called from another thread.
"""

import argparse
import asyncio
import threading
import time
from concurrent.futures import Future

import tokioloop


class Station:
    """A thread with a loop, and the next station of the ring."""

    def __init__(self, name: str) -> None:
        self.next = self
        self.handled = 0
        self.thread = threading.Thread(target=self._run, name=name)
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self.thread.start()
        self.loop, self._stop = self._started.result()

    def _run(self) -> None:
        try:
            tokioloop.run(self._main())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _main(self) -> None:
        stop = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    def send(self, left: int, done: "Future[str]") -> None:
        """Give this station the counter. May be called from any thread."""
        self.loop.call_soon_threadsafe(self._take, left, done)

    def _take(self, left: int, done: "Future[str]") -> None:
        if threading.current_thread() is not self.thread:
            done.set_exception(RuntimeError("a callback ran outside its loop's thread"))
            return
        self.handled += 1
        if left:
            self.next.send(left - 1, done)
        else:
            done.set_result(self.thread.name)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self.thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="A counter passed around a ring of loops.")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10_000)
    options = parser.parse_args()
    ring = [Station(f"station-{index}") for index in range(options.threads)]
    for index, station in enumerate(ring):
        station.next = ring[(index + 1) % len(ring)]
    hops = options.threads * options.rounds
    done: Future[str] = Future()
    began = time.perf_counter()
    ring[0].send(hops - 1, done)
    last = done.result()
    seconds = time.perf_counter() - began
    for station in ring:
        station.close()
    counts = [station.handled for station in ring]
    if counts != [options.rounds] * options.threads:
        raise SystemExit(f"hops were lost: {counts}")
    print(
        f"{hops:,} hops between {options.threads} threads, {seconds / hops * 1e6:.1f} us each; {last} was the last"
    )


if __name__ == "__main__":
    main()
