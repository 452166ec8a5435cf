"""Jobs in executors from several loops, with errors and cancellations: each runs at most once, each answer is its own."""

import asyncio
import contextvars
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ..marks import Marks
from ..run import Run, Tally

here: contextvars.ContextVar[int] = contextvars.ContextVar("here")


class Refused(Exception):
    pass


class Account:
    """How often each job ran, by number. Jobs run in any thread, so a lock protects it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.began = Marks()
        self.ended = 0

    def job(self, number: int, way: int) -> int:
        with self.lock:
            assert self.began.add(number) == 1, f"job {number} ran twice"
        try:
            if way == 0:
                raise Refused(number)
            if way == 1:
                time.sleep(0.0005)
            return number
        finally:
            with self.lock:
                self.ended += 1

    def contextual(self, number: int, way: int) -> int:
        assert here.get() == number, "a job runs in another's context"
        return self.job(number, way)


class Client:
    """One loop's jobs and how they ended."""

    def __init__(self, account: Account, chance: random.Random, tally: Tally) -> None:
        self.account, self.chance, self.tally = account, chance, tally
        self.next = 0
        self.returned = self.failed = self.cancelled = 0

    async def one(self, pool: ThreadPoolExecutor, cancel: bool) -> None:
        number, way = self.next, self.chance.randrange(6)
        self.next += 1
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        if self.chance.random() < 0.3:
            here.set(number)
            job = asyncio.ensure_future(asyncio.to_thread(self.account.contextual, number, way))
        else:
            executor = self.chance.choice([None, pool])
            job = asyncio.ensure_future(loop.run_in_executor(executor, self.account.job, number, way))
        if cancel:
            loop.call_later(self.chance.random() / 1000, job.cancel)
        try:
            assert await job == number, "another job's answer came"
            self.returned += 1
            self.tally.took(began)
            return
        except Refused as error:
            assert error.args == (number,), "another job's error came"
            self.failed += 1
        except asyncio.CancelledError:
            assert cancel, "a job that was not cancelled ended as cancelled"
            self.cancelled += 1
        self.tally.ops += 1


def scenario(run: Run) -> dict[str, int]:
    clients: list[Client] = []

    def work(me: int) -> None:
        account, chance = Account(), run.random(me)
        client = Client(account, chance, run.tally())
        clients.append(client)

        async def main() -> int:
            asked = 0
            with ThreadPoolExecutor(4) as pool:
                while not run.over():
                    batch = [client.one(pool, chance.random() < 0.2) for _ in range(40)]
                    asked += len(batch)
                    await asyncio.gather(*batch)
                await asyncio.get_running_loop().shutdown_default_executor()
            return asked

        with asyncio.Runner(loop_factory=run.new_loop) as runner:
            asked = runner.run(main())
        answered = client.returned + client.failed
        assert asked == answered + client.cancelled, f"asked {asked}, ended {vars(client)}"
        assert len(account.began) == account.ended, "a job never ended"
        assert answered <= len(account.began) <= asked, (answered, len(account.began), asked)

    run.in_threads(*(partial(work, n) for n in range(run.threads)))
    return {
        "returned": sum(it.returned for it in clients),
        "failed": sum(it.failed for it in clients),
        "cancelled": sum(it.cancelled for it in clients),
    }
