"""Real servers as children of the tests: started on free ports of loopback in directories of their own, stopped by signal.

Each ends with the process that started it, however that ends: the kernel sends it a signal then.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from .support import AUTHORITY, CERTIFICATES, HOST, PATIENCE, missing

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def program(name: str) -> Path:
    """The server's executable. Skips the test, or fails it in continuous integration, where there is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        from servers import SERVERS, find
    found = find(name)
    if found is None:
        missing(f"{name} is not installed (Debian: {SERVERS[name]})")
    return found


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that the kernel gives to no other socket. A server that sets SO_REUSEADDR can bind it: this socket does not listen."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, 0))
        yield sock.getsockname()[1]


class Child:
    """A server's process; its output shows when it is ready."""

    def __init__(self, command: Sequence[str | Path], ready: str, *, user: str | None = None) -> None:
        identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        self.output: list[str] = []
        self._ready = re.compile(ready)
        self._known = threading.Event()
        self._found = False
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            # Control-C on the terminal is for the tests, which then stop their servers.
            start_new_session=True,
            **identity,
        )
        self._reader = threading.Thread(target=self._read, name="a server's output", daemon=True)
        self._reader.start()
        self._known.wait(PATIENCE)
        if not self._found:
            self.stop()
            raise RuntimeError(f"{command[0]} did not start:\n{''.join(self.output)}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if self._ready.search(line):
                self._found = True
                self._known.set()
        self._known.set()

    def stop(self) -> int:
        """Ask it to end, and kill it if it does not."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Server:
    """A server with a directory and ports; a context manager that starts and stops it."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Not pytest's directory: the server's user has to reach it.
            self.directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="tokioloop-server-"))
            )
            self.child = self.start(stack)
            stack.callback(self.child.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def start(self, stack: contextlib.ExitStack) -> Child:
        raise NotImplementedError


class Redis(Server):
    """redis-server on TCP (`port`), TLS (`tls_port`) and a Unix socket (`path`), without persistence."""

    def start(self, stack: contextlib.ExitStack) -> Child:
        executable = program("redis-server")
        self.port = stack.enter_context(reserved_port())
        self.tls_port = stack.enter_context(reserved_port())
        self.path = self.directory / "redis.sock"
        settings = {
            "bind": HOST,
            "port": self.port,
            "unixsocket": self.path,
            "tls-port": self.tls_port,
            "tls-cert-file": CERTIFICATES / "server.pem",
            "tls-key-file": CERTIFICATES / "server.key",
            "tls-ca-cert-file": AUTHORITY,
            "tls-auth-clients": "no",
            "save": "",
            "appendonly": "no",
            "dir": self.directory,
        }
        words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        return Child([executable, *words], "Ready to accept connections|The server is now ready")


class Postgres(Server):
    """PostgreSQL on TCP with TLS offered (`port`), and on a Unix socket in `directory`."""

    USER = "tester"
    PASSWORD = "a password"
    DATABASE = "postgres"

    def start(self, stack: contextlib.ExitStack) -> Child:
        executable = program("postgres")
        user = _unprivileged_user()
        data = self.directory / "data"
        password = self.directory / "password"
        password.write_text(self.PASSWORD)
        # Copies: the server's user need not be able to read the checkout, and has to own the key.
        certificate, key = self.directory / "server.pem", self.directory / "server.key"
        for copy in certificate, key:
            shutil.copyfile(CERTIFICATES / copy.name, copy)
        key.chmod(0o600)
        if user is not None:
            for path in (self.directory, password, certificate, key):
                shutil.chown(path, user)
        initdb = [
            executable.resolve().with_name("initdb"),
            f"--pgdata={data}",
            f"--username={self.USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        made = subprocess.run(
            initdb, user=user, cwd="/", capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert made.returncode == 0, made.stderr
        self.port = stack.enter_context(reserved_port())
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": self.directory,
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
            "fsync": "off",
            "max_connections": 60,
            "shared_buffers": "16MB",
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        return Child(
            [executable, "-D", data, *words], "database system is ready to accept connections", user=user
        )


def _unprivileged_user() -> str | None:
    """The user for PostgreSQL, which refuses root; None for the user of the tests."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
