"""One worker: imports the tests once, then forks a child per test, so that a hang or a crash costs that test only.

The worker itself stays single-threaded and never makes a loop: a child starts from a clean, warm interpreter and ends
through a whole finalisation, whose crashes count against the test. Requests and replies are JSON lines on what were
stdin and stdout; anything a test prints goes to a file of its own.
"""

import argparse
import contextlib
import faulthandler
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import unittest
from typing import Any

from test import support  # type: ignore[import-not-found]

from . import catalogue, mirror, substitute

MEMORY = "3G"
"""The memory that large tests may take; those of TLS ask for 2.2 GiB, and are skipped without this setting."""

TAIL = 12_000
"""Bytes of a test's output that are kept."""

ABORT_GRACE = 3.0
"""Seconds between asking a hung child for its tracebacks and killing it."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("modules", nargs="+")
    options = parser.parse_args()
    requests, replies = _take_channel()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ends by an exception, so that `_wait` ends the running child too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    support.set_memlimit(MEMORY)
    substitute.install(options.loop)
    mirror.install(options.loop)
    suite = catalogue.load(options.package, options.modules)
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("something started threads at import: forking tests from here would not be safe")
    gc.collect()
    gc.freeze()
    _send(replies, {"tests": list(suite.tests), "broken": suite.broken, "gil": _gil()})
    with os.fdopen(requests, "rb", closefd=False) as lines:
        for line in iter(lines.readline, b""):
            request = json.loads(line)
            home = tempfile.mkdtemp(prefix="test-", dir=".")
            started = time.monotonic()
            with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as verdict:
                pid = os.fork()
                if pid == 0:
                    os.close(requests)
                    os.close(replies)
                    suite.prepare(request["test"])
                    return _child(suite.tests[request["test"]], home, output.fileno(), verdict.fileno())
                timed_out, status = _wait(pid, request["timeout"])
                reply = _judge(timed_out, status, verdict.fileno(), request["timeout"])
                reply["output"] = _tail(output.fileno())
            reply["seconds"] = round(time.monotonic() - started, 3)
            shutil.rmtree(home, ignore_errors=True)
            _send(replies, reply)
    return 0


def _gil() -> bool:
    """Whether the GIL is on, now that the subject has been imported."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _take_channel() -> tuple[int, int]:
    """Moves the request and reply pipes off 0 and 1, which tests may read, write and close."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def _send(fd: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def _wait(pid: int, timeout: float) -> tuple[bool, int]:
    """Waits for the child, cutting it off at `timeout` seconds; returns whether it was cut off, and its exit code."""
    timed_out = False
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            timed_out = True
            # A SIGABRT makes faulthandler write the threads' tracebacks, even when native code is stuck.
            os.kill(pid, signal.SIGABRT)
            if not poll.poll(ABORT_GRACE * 1000):
                os.kill(pid, signal.SIGKILL)
                poll.poll()
    finally:
        os.close(pidfd)
        # The child leads a session: its own children are killed too. It is not reaped yet, so the id is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return timed_out, os.waitstatus_to_exitcode(status)


def _judge(timed_out: bool, code: int, verdict: int, timeout: float) -> dict[str, Any]:
    os.lseek(verdict, 0, os.SEEK_SET)
    data = os.read(verdict, 1 << 16)
    reply: dict[str, Any] = json.loads(data) if data else {"status": "fail", "reason": "", "loops": {}}
    if timed_out:
        reply["status"] = "timeout"
        reply["reason"] = f"{'did not exit' if data else 'still running'} after {timeout:g} s"
    elif code != 0 or not data:
        reply["status"] = "crash"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reply["reason"] = f"{how} {'after the test, at exit' if data else 'during the test'}"
    return reply


def _tail(fd: int) -> str:
    size = os.lseek(fd, 0, os.SEEK_END)
    os.lseek(fd, max(0, size - TAIL), os.SEEK_SET)
    return os.read(fd, TAIL).decode(errors="replace")


def _child(test: unittest.TestCase, home: str, output: int, verdict: int) -> int:
    """Runs one test in this process and writes its verdict; the caller ends the interpreter."""
    os.setsid()
    # The lane may have been started in the background, with SIGINT and SIGHUP ignored; the tests send these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(home)
    faulthandler.enable(2)
    stray: list[str] = []
    _report_strays(stray)
    result = _Result()
    unittest.TestSuite([test]).run(result)
    status, reason = result.verdict()
    if status == "pass" and support.environment_altered:
        status, reason = "fail", "left threads or processes behind"
    if status == "pass" and stray:
        status, reason = "fail", f"an exception went unraised: {stray[0]}"
    sys.stdout.flush()
    sys.stderr.flush()
    message = {"status": status, "reason": reason[-2000:], "loops": dict(substitute.made)}
    os.write(verdict, json.dumps(message).encode())
    return 0


def _report_strays(stray: list[str]) -> None:
    """Exceptions that Python can only print count against the test, as they do in CPython's own runner."""
    unraisable, thread = sys.unraisablehook, threading.excepthook

    def on_unraisable(args: "sys.UnraisableHookArgs") -> None:
        stray.append(repr(args.exc_value))
        unraisable(args)

    def on_thread(args: threading.ExceptHookArgs) -> None:
        stray.append(repr(args.exc_value))
        thread(args)

    sys.unraisablehook = on_unraisable
    threading.excepthook = on_thread


class _Result(unittest.TestResult):
    """Prints tracebacks as they come, so that they are in the output of a test that later hangs."""

    passed = False

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.passed = True

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.passed = True

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        traceback.print_exception(*err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        traceback.print_exception(*err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            print(f"in {subtest}:", file=sys.stderr)
            traceback.print_exception(*err)

    def verdict(self) -> tuple[str, str]:
        problems = [text for _, text in self.errors + self.failures]
        if problems:
            return "fail", problems[0].strip().splitlines()[-1]
        if self.unexpectedSuccesses:
            return "fail", "passed although the test expects a failure"
        if self.skipped and not self.passed:
            return "skip", self.skipped[0][1]
        return ("pass", "") if self.passed else ("fail", "did not run")
