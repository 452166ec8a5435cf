"""Many threads post to several loops: nothing is lost or doubled, and each producer's order holds."""

import threading
import time
from functools import partial

from ..run import PATIENCE, Run


class Ledger:
    """What one loop received from each producer; touched on the loop's thread only."""

    def __init__(self, producers: int) -> None:
        self.next = [0] * producers
        self.wrong: list[str] = []

    def receive(self, producer: int, number: int) -> None:
        if self.next[producer] != number:
            self.wrong.append(f"producer {producer}: {number} came, {self.next[producer]} was due")
        self.next[producer] = number + 1


def scenario(run: Run) -> dict[str, int]:
    loops = [run.new_loop() for _ in range(2)]
    ledgers = [Ledger(run.threads) for _ in loops]
    sent = [[0] * run.threads for _ in loops]
    woken = [0] * run.threads

    def produce(me: int) -> None:
        chance, tally = run.random(me), run.tally()
        while not run.over():
            for _ in range(chance.choice([1, 1, 2, 10, 300])):
                to = chance.randrange(len(loops))
                loops[to].call_soon_threadsafe(ledgers[to].receive, me, sent[to][me])
                sent[to][me] += 1
                tally.ops += 1
            if chance.random() < 0.3:
                # Waits for the answer: the loop falls asleep, the next post must wake it.
                answer, began = threading.Event(), time.perf_counter()
                loops[chance.randrange(len(loops))].call_soon_threadsafe(answer.set)
                assert answer.wait(PATIENCE), "a wake-up was lost"
                tally.took(began)
                woken[me] += 1

    with run.serve(loops[0]) as first, run.serve(loops[1]) as second:
        run.in_threads(*(partial(produce, n) for n in range(run.threads)))
        first.flush()
        second.flush()
    for ledger, expected in zip(ledgers, sent, strict=True):
        assert not ledger.wrong, ledger.wrong[:5]
        assert ledger.next == expected, f"accounted {ledger.next}, sent {expected}"
    return {"posts": sum(map(sum, sent)), "wake-ups waited for": sum(woken)}
