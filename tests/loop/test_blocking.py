"""A descriptor that is blocking keeps at most its own loop waiting, never the other threads of the process."""

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tokioloop

from ..children import finish
from .blocking_cases import CASES
from .support import PATIENCE, ROOT, python


@pytest.mark.parametrize("name", CASES)
def test_others_go_on(name: str) -> None:
    done = finish([sys.executable, "-X", "faulthandler", "-m", "tests.loop.blocking_cases", name])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("make", ["os.pipe()", "fifo()", "terminal()", "back_of_terminal()"])
def test_a_pipe_is_written_while_its_loop_does_not_run(make: str) -> None:
    """Other threads may wait for the claim of the writing thread, so it must not wait."""
    python(f"""
        import asyncio, gc, os, threading, tokioloop
        from tests.loop.blocking_cases import back_of_terminal, fifo, terminal

        loop = tokioloop.TokioLoop()
        read, write = {make}
        file = os.fdopen(write, "wb", 0)
        transport, _ = loop.run_until_complete(loop.connect_write_pipe(asyncio.BaseProtocol, file))
        os.set_blocking(write, True)
        done = threading.Event()

        def visit():
            while not done.is_set():
                loop.call_soon(int).cancel()

        def collect():
            # A pause, in which threads that were stopped get to run.
            while not done.wait(0.0001):
                gc.collect()

        others = [threading.Thread(target=visit), threading.Thread(target=collect)]
        for thread in others:
            thread.start()
        for _ in range(300):
            transport.write(b"x")
        done.set()
        for thread in others:
            thread.join()
        os.set_blocking(read, False)
        got = b""

        async def rest():
            global got
            while len(got) < 300:
                try:
                    got += os.read(read, 1000)
                except BlockingIOError:
                    pass
                await asyncio.sleep(0)

        loop.run_until_complete(asyncio.wait_for(rest(), 20))
        assert got == b"x" * 300
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    """)


def test_the_log_goes_to_a_pipe_without_a_reader() -> None:
    read, write = os.pipe()
    code = """
        import asyncio, gc, os, threading, tokioloop

        os.set_blocking(2, False)
        try:
            while True:
                os.write(2, b"x" * 1000)
        except BlockingIOError:
            os.set_blocking(2, True)
        loop = threading.Thread(target=tokioloop.run, args=(asyncio.sleep(0),), daemon=True)
        loop.start()
        # It is blocked by the end of these, with an event of the loop.
        for _ in range(100):
            gc.collect()
        os.write(1, b"alive" if loop.is_alive() else b"gone")
        os._exit(0)
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "TOKIOLOOP_LOG": "debug"},
            stdout=subprocess.PIPE,
            stderr=write,
            timeout=2 * PATIENCE,
            check=False,
        )
    finally:
        os.close(read)
        os.close(write)
    assert (done.returncode, done.stdout) == (0, b"alive")


@pytest.mark.parametrize("kind", ["terminal", "FIFO"])
def test_a_write_while_the_loop_does_not_run_is_sent_at_once(kind: str, tmp_path: Path) -> None:
    """The same thread may read the other end next, before the loop runs again."""
    if kind == "terminal":
        far, near = os.openpty()
    else:
        os.mkfifo(tmp_path / "fifo")
        far = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        near = os.open(tmp_path / "fifo", os.O_WRONLY)
    event_loop = tokioloop.TokioLoop()
    file = os.fdopen(near, "wb", 0)
    transport, _ = event_loop.run_until_complete(event_loop.connect_write_pipe(asyncio.BaseProtocol, file))
    transport.write(b"1")
    os.set_blocking(far, False)
    assert os.read(far, 10) == b"1"
    transport.close()
    event_loop.run_until_complete(asyncio.sleep(0))
    event_loop.close()
    os.close(far)
