"""The ends of children and of what started them: close, cancellation, failures, statuses taken elsewhere."""

import asyncio
import gc
import logging
import os
import signal
import warnings
from asyncio.subprocess import DEVNULL, PIPE

import pytest

from ..loop.support import PATIENCE, python
from .subprocess_support import PY, Child, children, held, output


def test_close_kills_and_everything_is_reported(loop, run):
    async def main():
        transport, child = await loop.subprocess_exec(Child, "/bin/cat")
        transport.close()
        transport.close()
        await child.event("lost", None)
        assert ("exited", -signal.SIGKILL) in child.log
        assert transport.get_extra_info("subprocess").returncode == -signal.SIGKILL

    run(main())


def test_close_leaves_a_child_that_has_ended_its_exit_code(loop, run):
    async def main():
        read, write = os.pipe()
        transport, child = await loop.subprocess_shell(
            Child, "read line; exit 1", stdin=read, stdout=None, stderr=None
        )
        os.close(read)
        os.close(write)
        # It has ended, and the loop has not noticed yet.
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
        transport.close()
        assert await transport._wait() == 1
        await child.event("lost", None)

    run(main())


@pytest.mark.parametrize("pipes", [{}, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}])
def test_cancelling_the_start_kills_the_child(loop, run, pipes):
    run(asyncio.sleep(0))
    before = held()

    async def main():
        for turns in range(6):
            task = loop.create_task(asyncio.create_subprocess_exec("/bin/sleep", "60", **pipes))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                process = await task
            except asyncio.CancelledError:
                continue
            process.kill()
            await process.wait()

    run(main())
    run(asyncio.sleep(0))
    assert held() == before


def test_a_pipe_that_cannot_be_connected_fails_the_start(loop, run, monkeypatch):
    run(asyncio.sleep(0))
    before = held()

    async def fails(*_):
        raise LookupError("not this one")

    async def main():
        monkeypatch.setattr(loop, "connect_read_pipe", fails)
        with pytest.raises(LookupError):
            await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)

    run(main())
    run(asyncio.sleep(0))
    assert held() == before


def test_errors_of_the_protocol_are_reported_and_the_rest_goes_on(loop, run):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Failing(Child):
        def note(self, *event):
            super().note(*event)
            raise ZeroDivisionError(event[0])

    async def main():
        transport, child = await loop.subprocess_shell(Failing, "echo 1; echo 2 >&2", stdin=None)
        await child.event("lost", None)
        assert child.output == {1: b"1\n", 2: b"2\n"}
        await asyncio.sleep(0)
        transport.close()

    run(main())
    told = sorted(str(context["exception"]) for context in contexts)
    assert told == ["data", "data", "exited", "lost", "made", "pipe lost", "pipe lost"]


def test_a_status_that_popen_took_is_used(loop, run):
    async def main():
        transport, child = await loop.subprocess_exec(Child, PY, "-c", "raise SystemExit(3)")
        assert transport.get_extra_info("subprocess").wait(PATIENCE) == 3
        await child.event("exited", 3)
        transport.close()

    run(main())


def test_a_status_taken_outside_the_loop_is_255(loop, run, caplog):
    async def main():
        end, ours = os.pipe()
        transport, child = await loop.subprocess_exec(Child, "/bin/cat", stdin=end, stdout=None, stderr=None)
        # It ends now and not before, and the loop has no turn to notice.
        os.close(end)
        os.close(ours)
        os.waitpid(transport.get_pid(), 0)
        await child.event("exited", 255)
        transport.close()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    assert "will report returncode 255" in caplog.text


def test_ignored_sigchld_gives_255():
    done = python(
        """
        import asyncio, logging, signal, tokioloop
        logging.basicConfig()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        async def main():
            for _ in range(20):
                process = await asyncio.create_subprocess_exec("/bin/true")
                assert await process.wait() == 255
        tokioloop.run(main())
        """
    )
    assert done.stderr.count("will report returncode 255") == 20


def test_nothing_is_left_behind(loop, run):
    async def main():
        for _ in range(5):
            assert await output("/bin/cat", stdin=DEVNULL, stderr=PIPE) == b""
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
            await process.communicate(b"x")
            await asyncio.create_subprocess_exec("/bin/true")

    run(asyncio.sleep(0))
    before = held()
    for _ in range(3):
        run(main())

    async def all_reaped():
        while children() != before[1]:
            process = await asyncio.create_subprocess_exec("/bin/true")
            await process.wait()

    run(all_reaped())
    assert held() == before


def test_closing_the_loop_with_a_live_child_warns_and_kills(loop):
    async def main():
        return (await loop.subprocess_exec(Child, "/bin/cat"))[0]

    loop.run_until_complete(asyncio.sleep(0))
    before = held()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transport = loop.run_until_complete(main())
        popen = transport.get_extra_info("subprocess")
        loop.close()
        del transport
        gc.collect()
    messages = sorted(str(warning.message).split(" fd=")[0].split(" pid=")[0] for warning in caught)
    assert messages == [
        "unclosed transport <ProcessTransport",
        "unclosed transport <ReadPipeTransport",
        "unclosed transport <ReadPipeTransport",
        "unclosed transport <WritePipeTransport",
    ]
    assert popen.wait(PATIENCE) == -signal.SIGKILL
    del popen
    # The loop's epoll instance is gone as well; its eventfd goes with the loop object.
    assert held() == (before[0] - 1, before[1])
