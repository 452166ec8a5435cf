"""subprocess_exec, subprocess_shell and asyncio's Process on top: arguments, streams, exit codes, many at once."""

import asyncio
import hashlib
import logging
import os
import pathlib
import signal
import socket
import subprocess
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import pytest

import tokioloop

from ..loop.support import PATIENCE, python
from .subprocess_support import PY, Child, children, code_of, held, output


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
