"""The transport of a child process and of the pipes to it."""

import errno
import os
import signal
import subprocess
import sys
import warnings
from asyncio import BaseProtocol, BaseTransport, Future, Protocol, SubprocessProtocol, SubprocessTransport
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .._loop.log import logger

if TYPE_CHECKING:
    from .._net.pipes import Pipes
    from .._tokioloop import ChildDescriptor


#: The methods of `Popen` that signal by number. A replacement is a program's own.
POPENS = {name: getattr(subprocess.Popen, name) for name in ("send_signal", "terminate", "kill")}


class ProcessTransport(SubprocessTransport):
    """A child, its pipes and its end.

    The protocol gets all calls through ``call_soon``, in the order in which things happened, and
    ``connection_lost`` when the child has ended and its pipes are closed.
    """

    def __init__(
        self,
        loop: "Pipes",
        protocol: SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self._closed = False
        self._returncode: int | None = None
        self._pid: int | None = None
        self._proc: subprocess.Popen[bytes] | None = None
        self._loop: Pipes | None = loop
        self._protocol: SubprocessProtocol | None = protocol
        asked = {0: stdin, 1: stdout, 2: stderr}
        # By the child's number; None until connected.
        self._pipes: dict[int, _Pipe | None] = {
            fd: None for fd, stream in asked.items() if stream == subprocess.PIPE
        }
        # The calls for the protocol until connection_made(); None from then on.
        self._pending: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = []
        # The way to signal the child, read once by each signalling thread.
        self._signal: Callable[[int], None] = _signal_nobody
        # Waiters for the exit; None once the child has ended.
        self._exit_waiters: set[Future[int]] | None = set()
        try:
            self._proc = subprocess.Popen(
                args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0, **options
            )
        except BaseException:
            self._closed = True
            raise
        self._pid = self._proc.pid
        self._signal = partial(_signal_by_number, self._pid, None)
        self._extra["subprocess"] = self._proc  # type: ignore[attr-defined]
        if loop.get_debug():
            program = args if isinstance(args, (bytes, str)) else args[0]
            logger.debug("process %r created: pid %s", program, self._pid)

    def __repr__(self) -> str:
        if self._returncode is not None:
            state = f"returncode={self._returncode}"
        else:
            state = "not started" if self._pid is None else "running"
        pid = None if self._pid is None else f"pid={self._pid}"
        info = [type(self).__name__, "closed" if self._closed else None, pid, state]
        names = {0: "stdin", 1: "stdout", 2: "stderr"}
        info += [f"{names[fd]}={pipe.pipe!r}" for fd, pipe in self._pipes.items() if pipe is not None]
        return f"<{' '.join(part for part in info if part)}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self._closed and not (self._loop is not None and self._loop._is_forked()):
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self.close()
            # A program that keeps the warning keeps the transport, but not the descriptor.
            self._signal = _signal_nobody

    # The beginning.

    def _start(self) -> "Future[None]":
        """Connect the pipes and call ``connection_made``; the future is done after that.

        Cancelling the waiter does not stop what has begun, as in asyncio.
        """
        loop = self._loop
        assert loop is not None
        begun: Future[None] = loop.create_future()
        if self._pipes:
            loop.create_task(self._connect_pipes(begun))
        else:
            loop.call_soon(self._begin, begun)
        return begun

    async def _connect_pipes(self, begun: "Future[None]") -> None:
        loop, proc = self._loop, self._proc
        assert loop is not None and proc is not None
        files = {0: proc.stdin, 1: proc.stdout, 2: proc.stderr}
        try:
            for fd in self._pipes:
                make = partial(_ReadPipe if fd else _Pipe, self, fd)
                connect = loop.connect_read_pipe if fd else loop.connect_write_pipe
                _, self._pipes[fd] = await connect(make, files[fd])
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            for fd, pipe in self._pipes.items():
                (files[fd] if pipe is None else pipe.pipe).close()  # type: ignore[union-attr]
            if not begun.cancelled():
                begun.set_exception(error)
        else:
            loop.call_soon(self._begin, begun)

    def _begin(self, begun: "Future[None]") -> None:
        loop, pending = self._loop, self._pending
        assert loop is not None and pending is not None
        self._pending = None
        try:
            self._protocol.connection_made(self)  # type: ignore[union-attr]
        finally:
            for callback, args in pending:
                loop.call_soon(callback, *args)
            if not begun.done():
                begun.set_result(None)

    # The public methods.

    def set_protocol(self, protocol: BaseProtocol) -> None:
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> BaseProtocol:
        return self._protocol  # type: ignore[return-value]

    def is_closing(self) -> bool:
        return self._closed

    def get_pid(self) -> int:
        return self._pid  # type: ignore[return-value]

    def get_returncode(self) -> int | None:
        return self._returncode

    def get_pipe_transport(self, fd: int) -> BaseTransport | None:
        pipe = self._pipes.get(fd)
        return None if pipe is None else pipe.pipe

    def send_signal(self, signal: int) -> None:
        self._ask("send_signal", signal)

    def terminate(self) -> None:
        self._ask("terminate", signal.SIGTERM)

    def kill(self) -> None:
        self._ask("kill", signal.SIGKILL)

    def _ask(self, name: str, number: int) -> None:
        """Signal the child: by its descriptor, unless a program has replaced the `Popen`'s method."""
        proc = self._proc
        if proc is None:
            raise ProcessLookupError
        with suppress(ProcessLookupError):
            if all(
                getattr(getattr(proc, each), "__func__", None) is POPENS[each]
                for each in (name, "send_signal")
            ):
                self._signal(number)
            elif name == "send_signal":
                proc.send_signal(number)
            else:
                getattr(proc, name)()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            for pipe in self._pipes.values():
                if pipe is not None:
                    pipe.pipe.close()
        if self._proc is not None and self._returncode is None and not _has_ended(self._proc.pid):
            if loop is not None and loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            # It may end meanwhile, or run as another user.
            with suppress(ProcessLookupError, PermissionError):
                self.kill()

    def _watched(self, descriptor: "ChildDescriptor") -> None:
        """The loop has a descriptor for the child."""
        self._signal = partial(_signal_by_descriptor, descriptor, self._pid)  # type: ignore[arg-type]

    def _unwatched(self) -> None:
        """The loop has none. The child is known by its number and its start."""
        self._signal = partial(_signal_by_number, self._pid, _start_of(self._pid))  # type: ignore[arg-type]

    # Events of the child, passed to the protocol in order.

    def _pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._tell(self._protocol.pipe_connection_lost, fd, exc)  # type: ignore[union-attr]
        self._try_finish()

    def _process_exited(self, returncode: int) -> None:
        loop, proc = self._loop, self._proc
        assert loop is not None and proc is not None
        if loop.get_debug():
            logger.info("%r exited with return code %r", self, returncode)
        self._returncode = returncode
        # Which closes the descriptor. The number may be another process's from now on.
        self._signal = _signal_nobody
        if proc.returncode is None:
            # So Popen does not wait for it, or warn that it still runs.
            proc.returncode = returncode
        self._tell(self._protocol.process_exited)  # type: ignore[union-attr]
        self._try_finish()
        waiters, self._exit_waiters = self._exit_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(returncode)

    async def _wait(self) -> int:
        """Wait for the exit of the child, whatever happens to its pipes, and return its code."""
        if self._returncode is None:
            assert self._loop is not None and self._exit_waiters is not None
            waiter = self._loop.create_future()
            self._exit_waiters.add(waiter)
            try:
                return await waiter  # type: ignore[no-any-return]
            finally:
                if self._exit_waiters is not None:
                    self._exit_waiters.discard(waiter)
        return self._returncode

    def _try_finish(self) -> None:
        if self._returncode is None:
            return
        if all(pipe is not None and pipe.disconnected for pipe in self._pipes.values()):
            self._tell(self._call_connection_lost, None)

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        if self._pending is not None:
            self._pending.append((callback, args))
        else:
            self._loop.call_soon(callback, *args)  # type: ignore[union-attr]

    def _call_connection_lost(self, exc: Exception | None) -> None:
        try:
            self._protocol.connection_lost(exc)  # type: ignore[union-attr]
        finally:
            self._loop = None
            self._proc = None
            self._protocol = None


def _signal_by_descriptor(descriptor: "ChildDescriptor", pid: int, number: int) -> None:
    # The audit event of `os.kill`.
    sys.audit("os.kill", pid, number)
    try:
        descriptor.send_signal(number)
    except OSError as error:
        # Some sandboxes do not know the call, or refuse it.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        _signal_by_number(pid, None, number)


def _signal_by_number(pid: int, start: str | None, number: int) -> None:
    """For lack of a descriptor. A child keeps its number until its status is taken."""
    if _is_taken(pid) or (start is not None and _start_of(pid) != start):
        raise ProcessLookupError
    os.kill(pid, number)


def _signal_nobody(number: int) -> None:
    raise ProcessLookupError


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, noticed by the loop or not; its status is not taken."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # Other code took it.


def _start_of(pid: int) -> str | None:
    """When a process was started, in hundredths of a second, from /proc; None without it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field may hold anything; it ends with the last bracket.
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


def _is_taken(pid: int) -> bool:
    """Whether a child has been reaped, because other code took its status."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


class _Pipe(BaseProtocol):
    """The protocol of the pipe to the child's descriptor *fd*."""

    def __init__(self, process: ProcessTransport, fd: int) -> None:
        self.process: ProcessTransport | None = process
        self.fd = fd
        self.pipe: Any = None
        self.disconnected = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self.fd} pipe={self.pipe!r}>"

    def connection_made(self, transport: BaseTransport) -> None:
        self.pipe = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.disconnected = True
        process, self.process = self.process, None
        process._pipe_connection_lost(self.fd, exc)  # type: ignore[union-attr]

    def pause_writing(self) -> None:
        self.process._protocol.pause_writing()  # type: ignore[union-attr]

    def resume_writing(self) -> None:
        self.process._protocol.resume_writing()  # type: ignore[union-attr]


class _ReadPipe(_Pipe, Protocol):
    def data_received(self, data: bytes) -> None:
        process = self.process
        if process._pending is not None:  # type: ignore[union-attr]
            process._tell(process._protocol.pipe_data_received, self.fd, data)  # type: ignore[union-attr]
        else:
            # Without a turn in between: later events of this pipe take one.
            process._protocol.pipe_data_received(self.fd, data)  # type: ignore[union-attr]
