"""The examples run, end by themselves and print what their texts announce."""

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BODY = b"Hello from a loop of its own!\n"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("echo_server.py", [], "114 bytes came back right, over 3 connections"),
        ("loop_per_thread.py", ["--threads", "2"], "times the throughput"),
        ("between_threads.py", ["--threads", "3", "--rounds", "200"], "600 hops between 3 threads"),
    ],
)
def test_example_runs(name: str, options: list[str], said: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert said in answer.stdout


@pytest.fixture(params=["httptools", "plain"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The HTTP example's server on two loops, with either parser."""
    if request.param == "httptools":
        pytest.importorskip("httptools")
    else:
        # Found first, and not importable: the example then parses by itself.
        (tmp_path / "httptools.py").write_text("raise ImportError\n")
    command = [sys.executable, str(EXAMPLES / "threaded_http.py"), "--serve", "tokioloop", "--threads", "2"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment_with(tmp_path),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            yield int(server.stdout.readline())
            server.stdin.close()
            assert server.wait(timeout=30) == 0
            assert server.stderr.read() == ""
        finally:
            server.kill()


def _environment_with(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_http_server_answers_on_many_connections(port: int) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(5)]
    for _ in range(3):
        for connection in connections:
            connection.request("GET", "/")
        replies = [connection.getresponse() for connection in connections]
        assert [(reply.status, reply.read()) for reply in replies] == [(200, BODY)] * 5
    for connection in connections:
        connection.close()


def test_http_server_answers_pipelined_requests_and_closes_when_asked(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHo")
        client.sendall(b"st: x\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert received.count(BODY) == 2


def test_http_server_refuses_what_is_not_http(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"nonsense\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "tokioloop"])
def test_http_server_ends_when_asked_whatever_its_loop(loop: str, tmp_path: Path) -> None:
    """The demo's comparison: one thread, after a request."""
    pytest.importorskip(loop)
    command = [sys.executable, str(EXAMPLES / "threaded_http.py"), "--serve", loop, "--threads", "1"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as server:  # type: ignore[call-overload]
        try:
            port = int(server.stdout.readline())
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/")
            assert client.getresponse().read() == BODY
            client.close()
            server.stdin.close()
            assert (server.wait(timeout=30), server.stderr.read()) == (0, "")
        finally:
            server.kill()
