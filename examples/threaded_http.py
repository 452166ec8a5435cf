"""One HTTP/1.1 server whose connections are spread over one event loop per core, measured under load.

    make demo                                               builds all it needs and runs it
    python examples/threaded_http.py --loadgen PATH         with a load generator built before
    python examples/threaded_http.py --serve tokioloop --threads 4     the server alone, until Ctrl-C

The same protocol class serves under asyncio, uvloop and tokioloop on one thread, and under tokioloop's WorkerPool on one
thread per core. Each server is a process of its own, so that its CPU time is its own. Exits with 0 only if every reply was right.
"""

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

BODY = b"Hello from a loop of its own!\n"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LONGEST_HEAD = 64 * 1024


# The protocol: plain asyncio, the same for every loop.


class PlainParser:
    """Stands in for httptools' request parser where that is not installed: requests without a body."""

    def __init__(self, protocol: "HttpProtocol") -> None:
        self.protocol = protocol
        self.pending = b""
        self.keep_alive = True

    def feed_data(self, data: bytes) -> None:
        *heads, self.pending = (self.pending + data).split(b"\r\n\r\n")
        if len(self.pending) > LONGEST_HEAD:
            raise ValueError("the request's head is too long")
        for head in heads:
            if b" HTTP/1." not in head.partition(b"\r\n")[0]:
                raise ValueError("not an HTTP/1 request")
            self.keep_alive = b"connection: close" not in head.lower()
            self.protocol.on_message_complete()

    def should_keep_alive(self) -> bool:
        return self.keep_alive


def find_parser() -> tuple[Callable[["HttpProtocol"], Any], type[Exception]]:
    """The parser's class and the error that it raises for input that is not HTTP."""
    with contextlib.suppress(ImportError):
        httptools = importlib.import_module("httptools")
        return httptools.HttpRequestParser, httptools.HttpParserError
    return PlainParser, ValueError


make_parser, ParserError = find_parser()


class HttpProtocol(asyncio.Protocol):
    """One connection: every request gets the same reply."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = make_parser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except ParserError:
            self.transport.write(REFUSAL)
            self.transport.close()

    def on_message_complete(self) -> None:
        self.transport.write(REPLY)
        if not self.parser.should_keep_alive():
            self.transport.close()

    # Do not read from a client that sends requests without reading the replies.

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


# The server: alone on one loop of any kind, or spread over a pool of workers with a TokioLoop each.


def find_loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    # Both modules use the same names.
    return cast("Callable[[], asyncio.AbstractEventLoop]", importlib.import_module(kind).new_event_loop)


async def serve_alone(port: int) -> None:
    """Serve on the running loop until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(HttpProtocol, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()
    loop.remove_reader(sys.stdin)
    server.close()
    if hasattr(server, "close_clients"):  # uvloop's server has none
        server.close_clients()
    await server.wait_closed()


def serve_on_pool(count: int, port: int) -> None:
    """Serve on as many loops, each in a thread of its own, until stdin ends."""
    import tokioloop

    with tokioloop.WorkerPool(count, name="http") as pool:
        # The first worker accepts and gives each connection to the worker with the fewest.
        server = tokioloop.run(pool.serve(HttpProtocol, "127.0.0.1", port, accept="balance", backlog=1024))
        print(server.port, flush=True)
        sys.stdin.read()


def serve(kind: str, count: int, port: int) -> None:
    """Serve on loopback until stdin ends. Prints the port, and nothing else, on stdout."""
    with contextlib.suppress(KeyboardInterrupt):
        if count > 1:
            serve_on_pool(count, port)
        else:
            with asyncio.Runner(loop_factory=find_loop_factory(kind)) as runner:
                runner.run(serve_alone(port))


class ServerError(Exception):
    """The server did not start, crashed or did not end."""


@contextlib.contextmanager
def server_process(kind: str, count: int) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; gives its port and its process id. Raises ServerError."""
    command = [sys.executable, __file__, "--serve", kind, "--threads", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            if not port:
                raise ServerError("the server did not start")
            yield int(port), server.pid
            server.stdin.close()
            if status := server.wait(timeout=10):
                raise ServerError(f"the server ended with status {status}")
        except subprocess.TimeoutExpired:
            raise ServerError("the server does not end") from None
        finally:
            server.kill()


# The measurement and its table.


def measure(kind: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Put one server under load and return the load generator's report; errors count wrong and missing replies."""
    name = f"{kind}, {count} thread{'s' if count > 1 else ''}"
    report: dict[str, Any] = {"requests": 0, "errors": 1}
    try:
        with server_process(kind, count) as (port, pid):
            report |= put_under_load(name, port, pid, options)
    except ServerError as error:
        report |= {"errors": max(1, report["errors"]), "first_error": str(error)}
    clear_line()
    print(f"  {name:<22} {report['requests']:>9,} requests, {report['errors']} wrong", flush=True)
    if "first_error" in report:
        print(f"    first: {report['first_error']}")
    return report


def put_under_load(name: str, port: int, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [options.loadgen, "http", "--addr", f"127.0.0.1:{port}", "--body", BODY.decode()]
    command += ["--connections", str(options.connections), "--seconds", str(options.seconds)]
    command += ["--threads", str(max(1, cores() // 2)), "--server-pid", str(pid), "--progress", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        assert load.stderr is not None
        for line in load.stderr:
            show_progress(name, options.seconds, line)
        answer = load.stdout.read()
    report: dict[str, Any] = (
        json.loads(answer) if answer else {"first_error": "the load generator gave no report"}
    )
    if load.returncode and not report.get("errors"):
        report["errors"] = 1
    return report


def clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\x1b[K", end="")


def show_progress(name: str, seconds: float, line: str) -> None:
    try:
        now = json.loads(line)
    except ValueError:
        print(line.rstrip(), file=sys.stderr)
        return
    done = min(1.0, now["t"] / seconds)
    text = f"  {name:<22} {'#' * round(done * 20):<20} {now['rps']:>9,.0f} requests/s"
    clear_line()
    print(text, end="" if sys.stdout.isatty() else "\n", flush=True)


def print_table(rows: list[tuple[str, int, dict[str, Any]]]) -> None:
    print(
        f"\n  {'loop':<10} {'threads':>7} {'requests/s':>11} {'p50 us':>8} {'p99 us':>8} {'CPU us/request':>15}"
    )
    for kind, count, report in rows:
        figures = [report.get(key) for key in ("rps", "p50_us", "p99_us", "cpu_us_per_request")]
        if None in figures:
            print(f"  {kind:<10} {count:>7} {'failed':>11}")
            continue
        rps, p50, p99, cpu = figures
        print(f"  {kind:<10} {count:>7} {rps:>11,.0f} {p50:>8,.0f} {p99:>8,.0f} {cpu:>15.2f}")


def cores() -> int:
    return len(os.sched_getaffinity(0))


def build_name() -> str:
    is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return "with the GIL: threads take turns" if is_gil_enabled() else "free-threaded"


def demo(options: argparse.Namespace) -> int:
    """Measure every loop, print the table, and return the exit status."""
    several = options.threads or max(2, cores())
    plan = [("asyncio", 1), ("uvloop", 1), ("tokioloop", 1), ("tokioloop", several)]
    print(
        f"Python {sys.version.split()[0]}, {build_name()}; {cores()} cores; {options.connections} connections"
    )
    print(f"HTTP parsed by {'httptools' if make_parser is not PlainParser else 'the example itself'}\n")
    if importlib.util.find_spec("uvloop") is None:
        print("  uvloop is left out: it is not installed on this Python")
        plan.remove(("uvloop", 1))
    rows = [(kind, count, measure(kind, count, options)) for kind, count in plan]
    print_table(rows)
    print(
        "\n  The load generator runs on the same cores: CPU per request, all threads of the server together,"
    )
    print("  is the figure to trust.")
    wrong = sum(report["errors"] for _, _, report in rows)
    total = sum(report["requests"] for _, _, report in rows)
    print(f"  {total:,} replies were checked; {wrong or 'none'} {'were' if wrong > 1 else 'was'} wrong.")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="An HTTP server with one event loop per thread, under load.")
    parser.add_argument("--loadgen", type=Path, default=Path("benchmarks/loadgen/target/release/loadgen"))
    parser.add_argument("--connections", type=int, default=max(64, 8 * cores()))
    parser.add_argument("--seconds", type=float, default=2.0, help="of load on each server")
    parser.add_argument("--threads", type=int, default=0, help="N; one per core unless given")
    parser.add_argument(
        "--serve", choices=("asyncio", "uvloop", "tokioloop"), help="only serve, until stdin ends"
    )
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if options.serve in ("asyncio", "uvloop") and options.threads > 1:
        parser.error("only tokioloop serves on several threads")
    if options.serve:
        serve(
            options.serve, options.threads or (cores() if options.serve == "tokioloop" else 1), options.port
        )
        return 0
    if not options.loadgen.exists():
        parser.error(f"{options.loadgen} is not built: make loadgen")
    return demo(options)


if __name__ == "__main__":
    sys.exit(main())
