"""Signals go to the child that was started, never to a later process with the same number."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from tokioloop import TokioLoop

from ..loop.support import ROOT, python

PY = sys.executable

# A number that is reused, in a namespace of its own, where the test can choose the next process's number.
REUSED = """
import asyncio, os, signal, subprocess, sys, threading, time, tokioloop

HOW = sys.argv[1]

async def main():
    loop = asyncio.get_running_loop()
    first = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    transport = first._transport
    if HOW == "popen":
        # Another part of the program ends and reaps the child, which the loop has not noticed yet.
        popen = transport.get_extra_info("subprocess")
        os.kill(first.pid, signal.SIGKILL)
        popen.wait()
    else:
        os.kill(first.pid, signal.SIGKILL)
        os.waitpid(first.pid, 0)
    # The system gives a process's start in hundredths of a second, by which a child without a descriptor is recognised.
    while time.clock_gettime(time.CLOCK_BOOTTIME) < began + 0.02:
        pass
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(first.pid - 1))
    second = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    assert second.pid == first.pid, (first.pid, second.pid)
    for act in (transport.kill, transport.terminate, lambda: transport.send_signal(signal.SIGHUP)):
        act()
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    if HOW == "close":
        transport.close()
    await first.wait()
    try:
        transport.kill()
    except ProcessLookupError:
        pass
    transport.close()
    assert second.poll() is None
    second.stdin.close()
    assert second.wait() == 0

tokioloop.run(main())
"""


def _has_namespaces():
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", "echo 50 > /proc/sys/kernel/ns_last_pid"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.skipif(not _has_namespaces(), reason="needs a namespace of processes")
@pytest.mark.parametrize("how", ["popen", "waitpid", "close"])
@pytest.mark.parametrize("descriptor", [True, False])
def test_a_number_that_is_used_again(how, descriptor, tmp_path):
    script = tmp_path / "reused.py"
    # Without a descriptor for the child the loop checks its number before it signals.
    without = "import errno\ndef none(*args): raise OSError(errno.ENOSYS, '')\ntokioloop.TokioLoop._watch_child = none\n"
    script.write_text(REUSED.replace("HOW =", ("" if descriptor else without) + "HOW =", 1))
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", PY, str(script), how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_signals_from_other_threads_while_it_ends(loop, run):
    """The signalling thread holds the descriptor, so its number can't be reused meanwhile."""

    async def main():
        for _ in range(20):
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE)
            transport = process._transport
            over = threading.Event()
            failed = []

            def storm(transport=transport, over=over, failed=failed):
                # Bounded, since two cores are soon full of threads that signal.
                for _ in range(1000):
                    if over.is_set():
                        return
                    os.sched_yield()
                    try:
                        transport.send_signal(signal.SIGCONT)
                        transport.send_signal(0)
                    except ProcessLookupError:
                        pass
                    except BaseException as error:
                        failed.append(error)
                        return

            threads = [threading.Thread(target=storm) for _ in range(2)]
            for thread in threads:
                thread.start()
            process.stdin.close()
            assert await process.wait() == 0
            while transport._proc is not None:
                await asyncio.sleep(0)
            over.set()
            for thread in threads:
                thread.join()
            assert failed == []
            with pytest.raises(ProcessLookupError):
                transport.kill()

    run(main())


@pytest.mark.parametrize(
    ("number", "error"),
    [("x", TypeError), (1.5, TypeError), (10**30, OverflowError), (-1, OSError), (999, OSError)],
)
def test_arguments_that_are_not_signals(loop, run, number, error):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE)
        with pytest.raises(error):
            process.send_signal(number)
        process.send_signal(0)
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(main())


def test_a_child_that_has_ended_and_waits_to_be_reaped(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE)
        os.kill(process.pid, signal.SIGTERM)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process.kill()
        assert await process.wait() == -signal.SIGTERM

    run(main())


def test_audit_hooks_get_the_signal():
    python(
        """
        import asyncio, sys, tokioloop

        heard = []
        sys.addaudithook(lambda name, args: heard.append((name, args)) if name == "os.kill" else None)

        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1)
            process.kill()
            await process.wait()
            assert heard == [("os.kill", (process.pid, 9))], heard

        tokioloop.run(main())
        """
    )


def test_a_sandbox_without_the_call():
    """Each child is signalled by its number then."""
    python(
        """
        import asyncio, tokioloop

        class Refusing:
            def __init__(self, descriptor):
                self.descriptor = descriptor
            def send_signal(self, number):
                raise OSError(38, "not here")

        class Loop(tokioloop.TokioLoop):
            def _watch_child(self, *args):
                return Refusing(super()._watch_child(*args))

        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1)
            process.kill()
            assert await process.wait() == -9

        asyncio.run(main(), loop_factory=Loop)
        """
    )


def test_the_descriptor_is_closed_with_the_childs_end(loop, run):
    async def main():
        before = len(os.listdir("/proc/self/fd"))
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()
        assert len(os.listdir("/proc/self/fd")) == before
        del process

    run(main())


@pytest.mark.parametrize("way", ["send_signal", "terminate", "kill", "close"])
@pytest.mark.parametrize("patched", ["its own", "send_signal"])
def test_a_method_that_a_program_put_on_the_popen_is_called(way: str, patched: str) -> None:
    """asyncio's transport signals by the methods of its `Popen`, and programs replace these."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, sys.executable, "-c", "input()", stdin=subprocess.PIPE
        )
        child = transport.get_extra_info("subprocess")
        name = patched if patched == "send_signal" else {"close": "kill"}.get(way, way)
        original, called = getattr(child, name), []

        def ours(*args: int) -> None:
            called.append(args)
            original(*args)

        setattr(child, name, ours)
        getattr(transport, way)(*([signal.SIGKILL] if way == "send_signal" else []))
        await transport._wait()
        assert len(called) == 1
        transport.close()

    asyncio.run(main(), loop_factory=TokioLoop)
