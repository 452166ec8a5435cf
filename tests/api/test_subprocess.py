"""subprocess_exec, subprocess_shell and asyncio's Process on top: arguments, streams, exits, faults."""

import asyncio
import gc
import hashlib
import logging
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import threading
import warnings
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from contextlib import suppress

import pytest

import tokioloop

from ..loop.support import PATIENCE, Watched, python

PY = sys.executable


class Child(Watched, asyncio.SubprocessProtocol):
    """Records each call."""

    def __init__(self):
        super().__init__()
        self.output = {1: b"", 2: b""}

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def pipe_data_received(self, fd, data):
        self.output[fd] += data
        self.note("data", fd)

    def pipe_connection_lost(self, fd, exc):
        self.note("pipe lost", fd, type(exc))

    def process_exited(self):
        self.note("exited", self.transport.get_returncode())

    def connection_lost(self, exc):
        self.note("lost", exc)


def held():
    """This process's descriptors (how many) and children (which)."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), children()


def children():
    """The live and unreaped children of this process."""
    tasks = pathlib.Path("/proc/self/task")
    return [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


async def output(*args, **options):
    process = await asyncio.create_subprocess_exec(*args, stdout=PIPE, **options)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def code_of(code, *args, **options):
    return await output(PY, "-c", code, *map(str, args), **options)


def test_everything_is_reported_in_order(loop, run):
    async def main():
        transport, child = await loop.subprocess_exec(Child, "/bin/cat")
        assert child.log == ["made"] and transport.get_protocol() is child
        assert isinstance(transport, asyncio.SubprocessTransport)
        stdin = transport.get_pipe_transport(0)
        stdin.write(b"through the cat")
        await child.event("data", 1)
        assert transport.get_returncode() is None and "running" in repr(transport)
        stdin.close()
        await child.event("lost", None)
        assert child.output == {1: b"through the cat", 2: b""}
        assert child.log[0] == "made" and child.log[-1] == ("lost", None)
        happened = child.log[2:-1]
        assert sorted(map(str, happened)) == [
            "('exited', 0)",
            "('pipe lost', 0, <class 'NoneType'>)",
            "('pipe lost', 1, <class 'NoneType'>)",
            "('pipe lost', 2, <class 'NoneType'>)",
        ]
        assert transport.get_returncode() == 0 and "returncode=0" in repr(transport)
        popen = transport.get_extra_info("subprocess")
        assert type(popen) is subprocess.Popen and popen.returncode == 0
        assert popen.pid == transport.get_pid() and popen.args == ("/bin/cat",)
        with pytest.raises(ProcessLookupError):
            transport.send_signal(signal.SIGTERM)
        transport.close()
        assert transport.is_closing()

    run(main())


def test_the_shell_runs_a_command_line(loop, run):
    async def main():
        transport, child = await loop.subprocess_shell(Child, "echo out; echo err >&2; exit 7", stdin=None)
        assert transport.get_pipe_transport(0) is None
        assert transport.get_pipe_transport(1) is not None
        await child.event("lost", None)
        assert child.output == {1: b"out\n", 2: b"err\n"}
        assert ("exited", 7) in child.log
        transport.close()

    run(main())


@pytest.mark.parametrize(
    ("code", "expected"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(255)", 255), ("import os; os.abort()", -signal.SIGABRT)],
)
def test_the_exit_code(run, code, expected):
    async def main():
        process = await asyncio.create_subprocess_exec(PY, "-c", code)
        assert await process.wait() == expected == process.returncode
        assert await process.wait() == expected

    run(main())


def test_signals(run):
    async def main():
        for method, number in (("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)):
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
            getattr(process, method)()
            assert await process.wait() == -number
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        process.send_signal(signal.SIGHUP)
        assert await process.wait() == -signal.SIGHUP

    run(main())


def test_a_signal_after_the_exit_goes_nowhere(loop, run):
    async def main():
        # A grandchild keeps the pipe, so that the transport outlives the child.
        transport, child = await loop.subprocess_shell(Child, "sleep 1000 & echo $!", stdin=None, stderr=None)
        await child.event("exited", 0)
        await child.event("data", 1)
        transport.kill()
        transport.send_signal(signal.SIGTERM)
        assert ("lost", None) not in child.log
        os.kill(int(child.output[1]), signal.SIGKILL)
        await child.event("lost", None)
        transport.close()

    run(main())


def test_streams(run, tmp_path):
    async def main():
        script = "import sys; sys.stdout.write('out'); sys.stdout.flush(); sys.stderr.write('err')"
        assert await code_of(script, stderr=STDOUT) == b"outerr"
        assert await code_of(script, stderr=DEVNULL) == b"out"
        assert await output("/bin/cat", stdin=DEVNULL) == b""
        with (tmp_path / "file").open("w+b") as file:
            process = await asyncio.create_subprocess_exec(
                PY, "-c", script, stdout=file, stderr=file.fileno()
            )
            assert await process.wait() == 0
            file.seek(0)
            assert file.read() == b"outerr"
            file.seek(0)
            assert await output("/bin/cat", stdin=file) == b"outerr"

    run(main())


def test_sockets_as_streams(loop, run):
    async def main():
        near, far = socket.socketpair()
        with near:
            near.setblocking(False)
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=far, stdout=far)
            far.close()
            await loop.sock_sendall(near, b"by socket")
            assert await loop.sock_recv(near, 100) == b"by socket"
            near.shutdown(socket.SHUT_WR)
            assert await process.wait() == 0

    run(main())


def test_popen_arguments(run, tmp_path, monkeypatch):
    async def main():
        assert await code_of("import os; print(os.getcwd())", cwd=tmp_path) == f"{tmp_path}\n".encode()
        assert await code_of("import os; print(os.environ['A'])", env={"A": "b"}) == b"b\n"
        assert await code_of("import os; print(os.umask(0))", umask=0o27) == b"23\n"
        alone = "import os; print(os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0))"
        assert await code_of(alone, start_new_session=True) == b"True True\n"
        assert await code_of(alone, process_group=0) == b"False True\n"
        read, write = os.pipe()
        passed = await code_of("import os, sys; os.write(int(sys.argv[1]), b'x')", write, pass_fds=[write])
        assert passed == b"" and os.read(read, 9) == b"x"
        os.close(read)
        os.close(write)
        program = pathlib.Path("/bin/echo")
        assert await output(program, pathlib.Path("a"), b"b") == b"a b\n"
        assert await output("another name", "x", executable="/bin/echo") == b"x\n"
        assert await code_of("import os; print(os.environ['SET'])", preexec_fn=lambda: os.putenv("SET", "1"))
        handlers = "import signal; print(signal.getsignal(signal.SIGPIPE))"
        assert await code_of(handlers, restore_signals=True)

    monkeypatch.setenv("SET", "0")
    run(main())


@pytest.mark.skipif(os.getuid() != 0, reason="changing the user takes root")
def test_another_user(run):
    async def main():
        script = "import os; print(os.getuid(), os.getgid(), os.getgroups())"
        ids = await output("/usr/bin/id", "-u", user=65534, group=65534, extra_groups=[65534])
        assert ids == b"65534\n"
        ids = await output("/usr/bin/id", "-G", user=65534, group=65534, extra_groups=[65534, 1])
        assert sorted(ids.split()) == [b"1", b"65534"], script

    run(main())


def test_pipesize(loop, run):
    import fcntl

    async def main():
        transport, child = await loop.subprocess_exec(Child, "/bin/cat", pipesize=16384)
        pipe = transport.get_pipe_transport(0).get_extra_info("pipe")
        assert fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ) == 16384
        transport.close()
        await child.event("lost", None)

    run(main())


def test_argument_errors(loop, run):
    exe, shell = loop.subprocess_exec, loop.subprocess_shell
    factory = asyncio.SubprocessProtocol
    for coro, text in (
        (exe(factory, "x", universal_newlines=True), "universal_newlines must be False"),
        (exe(factory, "x", shell=True), "shell must be False"),
        (exe(factory, "x", bufsize=4096), "bufsize must be 0"),
        (exe(factory, "x", text=True), "text must be False"),
        (exe(factory, "x", encoding="utf8"), "encoding must be None"),
        (exe(factory, "x", errors="strict"), "errors must be None"),
        (shell(factory, 1), "cmd must be a string"),
        (shell(factory, "x", shell=False), "shell must be True"),
        (shell(factory, "x", bufsize=4096), "bufsize must be 0"),
    ):
        with pytest.raises(ValueError, match=f"^{text}$"):
            run(coro)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        run(exe(factory, "x", nonsense=1))


def test_a_program_that_does_not_start(loop, run, tmp_path):
    refused = tmp_path / "refused"
    refused.write_text("#!/bin/sh\n")

    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.subprocess_exec(Child, str(tmp_path / "none"))
        with pytest.raises(PermissionError):
            await loop.subprocess_exec(Child, str(refused))
        with pytest.raises(NotADirectoryError):
            await loop.subprocess_exec(Child, "/bin/true", cwd=refused)
        with pytest.raises(subprocess.SubprocessError):
            await loop.subprocess_exec(Child, "/bin/true", preexec_fn=lambda: 1 / 0)

    run(asyncio.sleep(0))
    before = held()
    run(main())
    assert held() == before


def test_audit_hooks_get_the_child():
    python(
        """
        import asyncio, sys, tokioloop
        seen = []
        sys.addaudithook(lambda event, args: event == "subprocess.Popen" and seen.append(args))
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/true", "x")
            assert await process.wait() == 0
        tokioloop.run(main())
        assert [(args[0], args[1]) for args in seen] == [("/bin/true", ["/bin/true", "x"])], seen
        """
    )


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


def test_communicate_with_a_hundred_megabytes_both_ways(run):
    data = os.urandom(1 << 20) * 100

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(data)
        assert process.returncode == 0
        return out

    assert hashlib.sha256(run(main())).digest() == hashlib.sha256(data).digest()


def test_a_reader_that_is_slow_holds_the_child_up(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", "/dev/zero", stdout=PIPE, limit=1 << 16)
        total = 0
        for _ in range(50):
            total += len(await process.stdout.readexactly(1 << 16))
        assert total == 50 << 16
        assert len(process.stdout._buffer) <= 4 << 17
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        process._transport.close()

    run(main())


def test_two_hundred_children_of_several_threads_keep_their_exit_codes():
    run_in_thread = tokioloop.run
    before = children()
    failures = []

    async def one(code):
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {code}")
        assert await process.wait() == code

    async def main(first):
        await asyncio.gather(*(one((first + n) % 256) for n in range(50)))

    def thread(first):
        try:
            run_in_thread(main(first))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(50 * n,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(4 * PATIENCE)
        assert not each.is_alive()
    assert failures == []
    assert children() == before


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


def test_debug_mode_logs_the_life_of_a_child(loop, run, caplog):
    loop.set_debug(True)

    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", "-", "secret", stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )
        process._transport.close()
        await process.wait()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main())
    messages = "\n".join(record.getMessage() for record in caplog.records)
    for part in (
        "execute program '/bin/cat' stdin=<pipe> stdout=stderr=<pipe>",
        "process '/bin/cat' created: pid",
        "Close running child process: kill",
        "exited with return code -9",
    ):
        assert part in messages
    assert "secret" not in messages
