"""Short-lived interpreters that end while loops run in their threads: each with status 0, in time, and without a fatal word."""

import subprocess
import sys
import time
from functools import partial

from ..run import PATIENCE, Run

# Loops at work in threads when the interpreter ends: argv is the loop, "daemon" or "plain", threads, seconds before the end.
PROGRAM = """
import asyncio, importlib, socket, sys, threading, time
name, kind, count, delay = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
new_loop = asyncio.SelectorEventLoop if name == "asyncio" else importlib.import_module(name).new_event_loop

async def talk(reader, writer):
    while True:
        writer.write(b"x" * 100)
        await reader.readexactly(100)

async def spin():
    while True:
        await asyncio.sleep(0)

async def work(started):
    near, far = socket.socketpair()
    ends = [await asyncio.open_connection(sock=it) for it in (near, far)]
    tasks = [asyncio.create_task(talk(*it)) for it in ends] + [asyncio.create_task(spin())]
    asyncio.get_running_loop().run_in_executor(None, int)
    asyncio.get_running_loop().call_later(1000, int)
    started.set()
    await asyncio.wait(tasks)

def serve(started):
    loop = new_loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.create_task(work(started))
    loop.run_forever()

for _ in range(count):
    started = threading.Event()
    threading.Thread(target=serve, args=(started,), daemon=kind == "daemon").start()
    started.wait()
time.sleep(delay)
"""
FATAL = ("Fatal Python error", "panicked at", "Segmentation fault", "Traceback (most recent call last)")


def scenario(run: Run) -> dict[str, int]:
    kinds = ["daemon"]
    if run.settings.loop == "tokioloop":
        kinds.append("plain")
    else:
        run.note("loops in daemon threads only: nothing stops those in other threads at the end")
    ends = [0] * run.threads

    def work(me: int) -> None:
        chance, tally = run.random(me), run.tally()
        while not run.over():
            kind, threads = chance.choice(kinds), chance.choice([1, 3])
            arguments = [run.settings.loop, kind, str(threads), str(chance.choice([0, 0, 0.003, 0.02]))]
            began = time.perf_counter()
            try:
                ended = subprocess.run(
                    [sys.executable, "-X", "faulthandler", "-c", PROGRAM, *arguments],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                )
            except subprocess.TimeoutExpired:
                raise AssertionError(f"after {ends[me]} others one hangs at its end: {arguments}") from None
            said = ended.stderr.strip()
            assert ended.returncode == 0, (
                f"after {ends[me]} others: status {ended.returncode} of {arguments}\n{said}"
            )
            assert not any(word in said for word in FATAL), f"{arguments} said at its end:\n{said}"
            ends[me] += 1
            tally.took(began)

    run.in_threads(*(partial(work, n) for n in range(run.threads)))
    return {"interpreters": sum(ends)}
