"""A storm of signals to loops in several threads: after each signal sent, every loop with a handler for it calls that handler, soon enough."""

import asyncio
import os
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial

from ..run import PATIENCE, Run, Running

NUMBERS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN, signal.SIGRTMIN + 1]
# The system ignores this signal by default, so its handlers may come and go.
PASSING = signal.SIGURG


class Ear:
    """One loop's handlers, and how often each was called. Senders wait for more."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.heard = dict.fromkeys(NUMBERS, 0)
        self.thread = self.strangers = 0

    def hear(self, number: int) -> None:
        self.strangers += threading.get_ident() != self.thread
        with self.changed:
            self.heard[number] += 1
            self.changed.notify_all()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread = threading.get_ident()
        for number in NUMBERS:
            loop.add_signal_handler(number, self.hear, number)

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in NUMBERS:
            assert loop.remove_signal_handler(number), f"the handler of {number} was gone"

    def await_more(self, number: int, than: int) -> None:
        with self.changed:
            enough = self.changed.wait_for(lambda: self.heard[number] > than, PATIENCE)
        assert enough, f"signal {number} was sent and never handled"


def scenario(run: Run) -> dict[str, int]:
    assert threading.current_thread() is threading.main_thread()
    ears = [Ear()]
    sent = [dict.fromkeys(NUMBERS, 0) for _ in range(run.threads)]
    main = run.new_loop()

    def storm(me: int) -> None:
        chance, tally = run.random(me), run.tally()
        while not run.over():
            number = chance.choice(NUMBERS)
            heard = [ear.heard[number] for ear in ears]
            began = time.perf_counter()
            for _ in range(chance.choice([1, 1, 1, 20])):
                # Counted before it is sent, so that handlers can't be called more often than was counted.
                sent[me][number] += 1
                os.kill(os.getpid(), number)
                tally.ops += 1
            for ear, than in zip(ears, heard, strict=True):
                ear.await_more(number, than)
            tally.took(began)

    async def come_and_go() -> None:
        """Handlers added, called and removed over and over, beside the others."""
        loop, chance = asyncio.get_running_loop(), run.random("passing")
        while not run.over():
            told = asyncio.Event()
            loop.add_signal_handler(PASSING, told.set)
            os.kill(os.getpid(), PASSING)
            await asyncio.wait_for(told.wait(), PATIENCE)
            if chance.random() < 0.5:
                loop.add_signal_handler(PASSING, int)
            assert loop.remove_signal_handler(PASSING)
            assert not loop.remove_signal_handler(PASSING)
            await asyncio.sleep(0.001)

    with ExitStack() as stack:
        others = _others(run, stack, ears)
        ears[0].listen(main)

        async def conduct() -> None:
            passing = asyncio.create_task(come_and_go())
            await asyncio.to_thread(run.in_threads, *(partial(storm, n) for n in range(run.threads)))
            await passing
            ears[0].leave(main)

        try:
            main.run_until_complete(conduct())
            for running, ear in zip(others, ears[1:], strict=True):
                running.wait(_leave(ear))
        finally:
            for number in NUMBERS:
                # A signal that is still pending must not end the process, so they stay ignored.
                signal.signal(number, signal.SIG_IGN)
            main.run_until_complete(main.shutdown_default_executor())
            main.close()
    strangers = [ear.strangers for ear in ears]
    assert not any(strangers), f"handlers ran in another thread than their loop's: {strangers}"
    for number in NUMBERS:
        total = sum(it[number] for it in sent)
        for ear in ears:
            assert ear.heard[number] <= total, (
                f"signal {number} was sent {total} times, handled {ear.heard[number]}"
            )
    return {
        "signals": sum(sum(it.values()) for it in sent),
        "told": sum(sum(ear.heard.values()) for ear in ears),
        "loops": len(ears),
    }


async def _leave(ear: Ear) -> None:
    ear.leave(asyncio.get_running_loop())


def _others(run: Run, stack: ExitStack, ears: list[Ear]) -> list[Running]:
    """Loops in other threads with handlers of their own, where the loop offers that."""
    found: list[Running] = []

    async def listen(ear: Ear) -> str | None:
        try:
            ear.listen(asyncio.get_running_loop())
        except (RuntimeError, ValueError, NotImplementedError) as error:
            return str(error)
        return None

    for _ in range(2):
        running = stack.enter_context(run.serve(run.new_loop()))
        ear = Ear()
        if refusal := running.wait(listen(ear)):
            run.note(f"on the main thread only; elsewhere: {refusal}")
            return []
        ears.append(ear)
        found.append(running)
    return found
