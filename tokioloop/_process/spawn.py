"""Children of the process: started here, watched by the loop that started them."""

from __future__ import annotations

import os
import subprocess
from asyncio import SubprocessProtocol
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from .._loop.log import logger
from .._net.pipes import Pipes

if TYPE_CHECKING:
    from .transport import ProcessTransport

# The exit status reported if other code took the real one, as in asyncio.
_UNKNOWN = 255


class Processes(Pipes):
    """subprocess_exec and subprocess_shell."""

    async def subprocess_exec[P: SubprocessProtocol](
        self,
        protocol_factory: Callable[[], P],
        program: Any,
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = False,
        bufsize: int = 0,
        encoding: None = None,
        errors: None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[ProcessTransport, P]:
        """Start *program* with *args* and return ``(transport, protocol)``.

        Further arguments are those of subprocess.Popen. Raises OSError when the child cannot be started.
        """
        if shell:
            raise ValueError("shell must be False")
        _check_bytes(universal_newlines, bufsize, text, encoding, errors)
        what = f"execute program {program!r}"
        return await self._start_process(
            protocol_factory, what, (program, *args), False, stdin, stdout, stderr, **kwargs
        )

    async def subprocess_shell[P: SubprocessProtocol](
        self,
        protocol_factory: Callable[[], P],
        cmd: bytes | str,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        universal_newlines: bool = False,
        shell: bool = True,
        bufsize: int = 0,
        encoding: None = None,
        errors: None = None,
        text: bool | None = None,
        **kwargs: Any,
    ) -> tuple[ProcessTransport, P]:
        """Run *cmd* in the shell and return ``(transport, protocol)``; see subprocess_exec."""
        if not isinstance(cmd, (bytes, str)):
            raise ValueError("cmd must be a string")
        if not shell:
            raise ValueError("shell must be True")
        _check_bytes(universal_newlines, bufsize, text, encoding, errors)
        what = f"run shell command {cmd!r}"
        return await self._start_process(protocol_factory, what, cmd, True, stdin, stdout, stderr, **kwargs)

    async def _start_process[P: SubprocessProtocol](
        self,
        protocol_factory: Callable[[], P],
        what: str,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        **options: Any,
    ) -> tuple[ProcessTransport, P]:
        from .transport import ProcessTransport

        self._check_thread()
        protocol = protocol_factory()
        if self.get_debug():
            logger.debug("%s%s", what, _describe(stdin, stdout, stderr))
        transport = ProcessTransport(self, protocol, args, shell, stdin, stdout, stderr, options)
        try:
            self._watch_process(transport)
            await transport._start()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        if self.get_debug():
            logger.info("%s: %r", what, transport)
        return transport, protocol

    def _watch_process(self, transport: ProcessTransport) -> None:
        """Report the exit code of its child, which only this loop reaps, to *transport*."""
        pid = transport.get_pid()

        def exited(code: int | None) -> None:
            if code is None:
                code = transport._proc.returncode if transport._proc is not None else None
            if code is None:
                code = _UNKNOWN
                logger.warning(
                    "child process pid %d exit status already read:  will report returncode 255", pid
                )
            transport._process_exited(code)

        try:
            transport._watched(self._watch_child(pid, exited))
        except ProcessLookupError:
            # Reaped as soon as it ended: SIGCHLD is ignored, or other code waits for any child.
            self.call_soon(exited, None)
        except OSError as error:
            # An old kernel, a sandbox, no more descriptors: a thread can still wait.
            transport._unwatched()
            logger.debug("no descriptor for child process pid %d (%s), waiting in a thread", pid, error)
            Thread(
                target=self._wait_for_child, args=(pid, exited), name=f"waitpid-{pid}", daemon=True
            ).start()

    def _wait_for_child(self, pid: int, exited: Callable[[int | None], None]) -> None:
        """Block this thread until the child has ended, then notify the loop, which takes its status.

        Until that is taken, no other process gets the child's number: the loop signals the child or knows of its end.
        """
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        try:
            self.call_soon_threadsafe(lambda: exited(_take_status(pid)))
        except RuntimeError:
            _take_status(pid)
            logger.warning("Loop %r that handles pid %r is closed", self, pid)


def _take_status(pid: int) -> int | None:
    """The exit code of a child that has ended, which is reaped with this; None if other code took it."""
    try:
        # Without blocking: other code that took it may have started another child with the same number.
        taken, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if taken else None


def _check_bytes(universal_newlines: Any, bufsize: Any, text: Any, encoding: Any, errors: Any) -> None:
    """ValueError for the options of subprocess.Popen that ask for anything but bytes, unbuffered."""
    if universal_newlines:
        raise ValueError("universal_newlines must be False")
    if bufsize != 0:
        raise ValueError("bufsize must be 0")
    if text:
        raise ValueError("text must be False")
    if encoding is not None:
        raise ValueError("encoding must be None")
    if errors is not None:
        raise ValueError("errors must be None")


def _describe(stdin: Any, stdout: Any, stderr: Any) -> str:
    """The child's standard streams, for the log; the command's arguments may be secret and are left out."""
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    if stdout is not None and stderr == subprocess.STDOUT:
        streams = {"stdin": stdin, "stdout=stderr": stdout}
    names = {subprocess.PIPE: "<pipe>", subprocess.STDOUT: "<stdout>", subprocess.DEVNULL: "<devnull>"}
    known = {name: stream for name, stream in streams.items() if stream is not None}
    return "".join(
        f" {name}={names.get(stream, repr(stream)) if isinstance(stream, int) else repr(stream)}"
        for name, stream in known.items()
    )
