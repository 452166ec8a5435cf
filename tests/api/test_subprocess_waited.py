"""Children without a descriptor of their own, for which threads wait."""

import asyncio
import os
import resource
from asyncio.subprocess import PIPE
from contextlib import suppress

import pytest

from ..loop.support import python


def test_a_thread_waits_where_there_is_no_descriptor():
    """Without free descriptors no pidfd can be opened; threads wait for the children then."""
    python(
        """
        import asyncio, os, resource, threading, tokioloop
        from tokioloop import _tokioloop

        def none(self, pid, callback):
            raise OSError(38, "Function not implemented")

        class Bare(tokioloop.TokioLoop):
            _watch_child = none

        async def one(code):
            process = await asyncio.create_subprocess_shell(f"exit {code}", stdin=asyncio.subprocess.PIPE)
            assert await process.wait() == code

        async def main():
            await asyncio.gather(*map(one, range(20)))
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
            assert any(t.name == f"waitpid-{process.pid}" and t.daemon for t in threading.enumerate())
            process._transport.close()
            assert await process.wait() == -9

        with asyncio.Runner(loop_factory=Bare) as runner:
            runner.run(main())
        """
    )


WAITED_FOR = """
        import asyncio, logging, os, signal, sys, threading, tokioloop
        logging.basicConfig()

        class Bare(tokioloop.TokioLoop):
            def _watch_child(self, pid, callback):
                raise OSError(38, "Function not implemented")

        def waiting(pid):
            (thread,) = [t for t in threading.enumerate() if t.name == f"waitpid-{pid}"]
            return thread

        def zombie(pid):
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
"""


def test_a_child_that_a_thread_waited_for_keeps_its_number_until_its_loop_knows():
    """Otherwise a signal that is sent meanwhile could hit another process."""
    python(
        WAITED_FOR
        + """
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
            thread = waiting(process.pid)
            process.kill()
            thread.join()
            assert process.returncode is None and zombie(process.pid)
            process.kill()
            assert await process.wait() == -signal.SIGKILL

        with asyncio.Runner(loop_factory=Bare) as runner:
            runner.run(main())
        """
    )


@pytest.mark.parametrize("handler", ["kept", "taken", "taken and found"])
def test_the_status_of_a_child_that_a_thread_waited_for_may_be_taken(handler):
    """By code that knows its number, between its end and the loop's next turn."""
    done = python(
        WAITED_FOR
        + f"""
        handler = {handler!r}
        """
        + """
        async def main():
            theirs, ours = os.pipe()
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "read line; exit 3", stdin=theirs)
            thread = waiting(process.pid)
            os.close(theirs)
            os.close(ours)
            thread.join()
            if handler == "taken":
                os.waitpid(process.pid, 0)
            elif handler == "taken and found":
                process._transport.get_extra_info("subprocess").wait()
            assert await process.wait() == (255 if handler == "taken" else 3)

        with asyncio.Runner(loop_factory=Bare) as runner:
            runner.run(main())
        """
    )
    assert done.stderr.count("will report returncode 255") == (handler == "taken")


def test_a_child_that_outlives_the_loop_is_taken_by_the_thread_that_waits_for_it():
    done = python(
        WAITED_FOR
        + """
        theirs, ours = os.pipe()

        async def main():
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                asyncio.SubprocessProtocol, "/bin/cat", stdin=theirs, stdout=None, stderr=None
            )
            return transport, waiting(transport.get_pid())

        with asyncio.Runner(loop_factory=Bare) as runner:
            transport, thread = runner.run(main())
        os.close(ours)
        thread.join()
        try:
            zombie(transport.get_pid())
        except ChildProcessError:
            print("gone")
        transport._proc.returncode = 0
        transport.close()
        """
    )
    assert done.stdout == "gone\n"
    assert "is closed" in done.stderr


def test_running_out_of_descriptors(loop, run):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(OSError, match="Too many open files"):
                await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
            # Enough for the start, which reports errors through a pipe, and none left for the exit while both ends of that pipe are open.
            os.close(taken.pop())
            os.close(taken.pop())
            other = await asyncio.create_subprocess_exec("/bin/true")
            assert await other.wait() == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in taken:
                os.close(fd)
        process.stdin.close()
        assert await process.wait() == 0

    run(main())
