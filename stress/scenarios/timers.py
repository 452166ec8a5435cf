"""Timers set, cancelled and fired in each thread: none early, none lost, none after its cancellation, in order."""

import asyncio
import random
import time
from functools import partial

from ..run import Run, Tally

# How much earlier than due each loop says it may call: asyncio by its clock's tick, uvloop by its whole milliseconds.
RESOLUTION = {"asyncio": time.get_clock_info("monotonic").resolution, "uvloop": 0.001}


class Timers:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, chance: random.Random, kind: str, tally: Tally
    ) -> None:
        # asyncio's own heap does not keep the order of equal deadlines.
        self.loop, self.chance, self.ordered = loop, chance, kind == "tokioloop"
        self.waiting: dict[int, asyncio.TimerHandle] = {}
        self.made = self.fired = self.cancelled = 0
        self.resolution = RESOLUTION.get(kind, 0.0)
        self.last = (0.0, 0)
        self.tally = tally
        self.wrong: list[str] = []

    def set(self) -> None:
        delay = self.chance.choice([0, 0.0001, 0.001, 0.001, 0.003, 50, 1e9])
        number = self.made
        self.made += 1
        when = self.loop.time() + delay
        self.waiting[number] = self.loop.call_at(when, self.fire, number, when)

    def fire(self, number: int, when: float) -> None:
        self.fired += 1
        late = self.loop.time() - when
        if late < -self.resolution:
            self.wrong.append(f"{-late} s early")
        self.tally.ops += 1
        self.tally.times.add(max(0.0, late))
        if self.waiting.pop(number, None) is None:
            self.wrong.append(f"timer {number} fired after it was cancelled or twice")
        if self.ordered and when == self.last[0] and number < self.last[1]:
            self.wrong.append("equal deadlines out of order")
        self.last = (when, number)

    def cancel_some(self) -> None:
        for number in list(self.waiting)[: self.chance.randrange(300)]:
            self.waiting.pop(number).cancel()
            self.cancelled += 1


def scenario(run: Run) -> dict[str, int]:
    done: list[Timers] = []

    def work(me: int) -> None:
        chance = run.random(me)
        loop = run.new_loop()
        timers = Timers(loop, chance, run.settings.loop, run.tally())

        def again() -> None:
            for _ in range(chance.randrange(400)):
                timers.set()
            if chance.random() < 0.7 or len(timers.waiting) > 3000:
                timers.cancel_some()
            if run.over():
                loop.stop()
            elif chance.random() < 0.2:
                loop.call_later(0.002, again)
            else:
                loop.call_soon(again)

        again()
        loop.run_forever()
        # What is due soon must still come; what is far off is cancelled.
        for number, handle in list(timers.waiting.items()):
            if handle.when() > loop.time() + 1:
                timers.waiting.pop(number).cancel()
                timers.cancelled += 1
        loop.call_later(1.1, loop.stop)
        loop.run_forever()
        loop.close()
        assert not timers.waiting, f"{len(timers.waiting)} timers never fired"
        assert not timers.wrong, timers.wrong[:5]
        assert timers.made == timers.fired + timers.cancelled
        done.append(timers)

    run.in_threads(*(partial(work, n) for n in range(run.threads)))
    return {
        "set": sum(it.made for it in done),
        "fired": sum(it.fired for it in done),
        "cancelled": sum(it.cancelled for it in done),
    }
