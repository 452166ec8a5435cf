"""More connections than descriptors: accept meets EMFILE, the server survives, and serves all clients that wait or come later."""

import asyncio
import errno
import os
import resource
import subprocess
import sys
import time
from typing import Any

from ..run import PATIENCE, Run

# How many more descriptors the server's process may open, and how many clients come at once.
ROOM, CLIENTS = 30, 100
# The clients' process: it is separate so that their descriptors do not count against the server's limit. It answers a line "port count hold"
# with "served dropped". All connect at once; a client that is served leaves if others still wait.
STORM = """
import selectors, socket, sys, time
for line in sys.stdin:
    port, count, patience = map(int, line.split())
    waiting = selectors.DefaultSelector()
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(number.to_bytes(4))
        waiting.register(sock, selectors.EVENT_READ, number)
    served = dropped = 0
    until = time.monotonic() + patience
    while waiting.get_map() and time.monotonic() < until:
        for key, _ in waiting.select(until - time.monotonic()):
            try:
                data = key.fileobj.recv(100)
            except ConnectionError:
                data = b""
            served += data == key.data.to_bytes(4)
            dropped += not data
            waiting.unregister(key.fileobj)
            key.fileobj.close()
    for key in list(waiting.get_map().values()):
        key.fileobj.close()
    print(served, dropped, flush=True)
"""


class Echo(asyncio.Protocol):
    """Answers, and waits for the client to leave."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Clients:
    """The clients' process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STORM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def come(self, port: int, count: int) -> tuple[int, int]:
        """How many of *count* were served, and how many were dropped; the rest got no answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{port} {count} {PATIENCE:.0f}\n")
        self.process.stdin.flush()
        served, dropped = map(int, self.process.stdout.readline().split())
        return served, dropped

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(PATIENCE) == 0


def scenario(run: Run) -> dict[str, int]:
    told = {"refused": 0}
    problems: list[str] = []
    tally = run.tally()
    totals = {"served": 0, "dropped": 0, "served afterwards": 0, "storms": 0}

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            told["refused"] += 1
        else:
            problems.append(told(context))

    async def listen() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handle)
        return await loop.create_server(Echo, "127.0.0.1", 0, backlog=4 * CLIENTS)

    async def close(server: asyncio.Server) -> None:
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = Clients()
    try:
        with run.serve(run.new_loop()) as running:
            server = running.wait(listen())
            port = server.sockets[0].getsockname()[1]
            try:
                while not run.over():
                    resource.setrlimit(
                        resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + ROOM, hard)
                    )
                    began = time.perf_counter()
                    served, dropped = clients.come(port, CLIENTS)
                    tally.ops += CLIENTS
                    tally.times.add(time.perf_counter() - began)
                    assert served + dropped == CLIENTS, f"{served} served and {dropped} dropped of {CLIENTS}"
                    totals["served"] += served
                    totals["dropped"] += dropped
                    totals["storms"] += 1
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    served, dropped = clients.come(port, CLIENTS)
                    assert served == CLIENTS, (
                        f"after the storm {served} of {CLIENTS} were served, {dropped} dropped"
                    )
                    totals["served afterwards"] += served
                    tally.ops += CLIENTS
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                running.wait(close(server))
    finally:
        clients.close()
    assert not problems, problems[:3]
    if totals["dropped"]:
        run.note("accepts and closes connections for which there is no descriptor")
    else:
        assert told["refused"], "accept never met EMFILE"
    return totals | told
