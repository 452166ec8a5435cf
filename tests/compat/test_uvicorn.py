"""uvicorn, with either parser, serving Starlette and FastAPI over HTTP, TLS and WebSocket."""

import asyncio
import hashlib
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from .support import CERTIFICATES, HOST, PATIENCE, needed, pattern, trusting_tls

uvicorn = needed("uvicorn", "h11", "httptools", "starlette", "fastapi")
httpx = needed("httpx")
websockets = needed("websockets")

from .applications import APPLICATIONS, PIECE, PIECES, Life  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


class Server(uvicorn.Server):
    """Has an event for its start, which uvicorn itself only logs."""

    def __init__(self, config: "uvicorn.Config") -> None:
        super().__init__(config)
        self.ready = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set_result(None)


class Service:
    """A running server, its application's life and its address."""

    def __init__(
        self, server: Server, task: "asyncio.Task[None]", life: Life, port: int, secure: bool
    ) -> None:
        self.server = server
        self.task = task
        self.life = life
        self.port = port
        self.tls = trusting_tls() if secure else None
        self.http = f"{'https' if secure else 'http'}://localhost:{port}"
        self.ws = f"{'wss' if secure else 'ws'}://localhost:{port}"

    def client(self, **options: object) -> "httpx.AsyncClient":
        verify = self.tls or False
        return httpx.AsyncClient(
            base_url=self.http, verify=verify, trust_env=False, timeout=PATIENCE, **options
        )

    def socket(self, path: str, **options: object) -> "websockets.connect":
        return websockets.connect(self.ws + path, ssl=self.tls, proxy=None, **options)


@asynccontextmanager
async def serving(application: str, parser: str, *, secure: bool = False) -> AsyncIterator[Service]:
    life = Life()
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        certificate = {
            "ssl_certfile": CERTIFICATES / "server.pem",
            "ssl_keyfile": CERTIFICATES / "server.key",
        }
        config = uvicorn.Config(
            APPLICATIONS[application](life),
            http=parser,
            loop="none",
            lifespan="on",
            log_config=None,
            **(certificate if secure else {}),
        )
        server = Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        done, _ = await asyncio.wait((server.ready, task), return_when=asyncio.FIRST_COMPLETED)
        assert task not in done, task
        try:
            yield Service(server, task, life, port, secure)
        finally:
            life.go.set()
            server.should_exit = True
            await task
    assert life.events[0] == "startup"
    assert life.events[-1] == "shutdown"


every_way = pytest.mark.parametrize(
    ("application", "parser"),
    [(application, parser) for application in ("starlette", "fastapi") for parser in ("h11", "httptools")],
)
over = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


@every_way
@over
def test_requests_of_many_clients(run, application: str, parser: str, secure: bool) -> None:
    async def main() -> None:
        async with serving(application, parser, secure=secure) as service:
            async with service.client() as client:

                async def add(number: int) -> None:
                    answer = await client.post("/add", json={"a": number, "b": 1000})
                    assert (answer.status_code, answer.json()) == (200, {"sum": number + 1000})
                    answer = await client.get("/threaded", params={"a": number, "b": 1})
                    assert (answer.status_code, answer.json()) == (200, {"sum": number + 1})

                await asyncio.gather(*map(add, range(60)))
                assert (await client.get("/nowhere")).status_code == 404
                assert (await client.get("/later")).json() == {}
            await asyncio.gather(*(service.server.server_state.tasks))
            assert service.life.events == ["startup", "background"]

    run(main())


@every_way
@over
def test_bodies_larger_than_any_buffer(run, application: str, parser: str, secure: bool) -> None:
    size = 3_000_001

    async def body() -> AsyncIterator[bytes]:
        whole = pattern(size)
        for start in range(0, size, 100_000):
            yield whole[start : start + 100_000]

    async def main() -> None:
        async with serving(application, parser, secure=secure) as service, service.client() as client:

            async def up() -> None:
                for content in (pattern(size), body()):
                    answer = (await client.post("/digest", content=content)).json()
                    assert answer == {"size": size, "digest": hashlib.sha256(pattern(size)).hexdigest()}

            async def down() -> None:
                received = 0
                async with client.stream("GET", "/stream") as answer:
                    async for piece in answer.aiter_bytes(65536):
                        assert piece == PIECE
                        received += len(piece)
                assert received == PIECES * len(PIECE)

            await asyncio.gather(up(), down(), up(), down())

    run(main())


@every_way
@over
def test_websockets(run, application: str, parser: str, secure: bool) -> None:
    async def main() -> None:
        async with serving(application, parser, secure=secure) as service:

            async def talk(number: int) -> None:
                async with service.socket("/shout", subprotocols=["shout"]) as ws:
                    assert ws.subprotocol == "shout"
                    for turn in range(20):
                        await ws.send(f"hello {number} {turn}")
                    for turn in range(20):
                        assert await ws.recv() == f"HELLO {number} {turn}"
                    large = pattern(300_000, seed=number)
                    await ws.send(large)
                    assert await ws.recv() == large

            await asyncio.gather(*map(talk, range(8)))
            async with service.socket("/shout") as ws:
                await ws.send("leave")
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await ws.recv()
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")
        assert service.life.events[1:-1] == ["closed 1000"] * 8

    run(main())


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@over
def test_an_application_that_fails_answers_500_and_the_server_goes_on(
    run, parser: str, secure: bool, caplog
) -> None:
    async def main() -> None:
        async with serving("fastapi", parser, secure=secure) as service:
            # A client for each: uvicorn closes the connection of a request that failed.
            async with service.client() as client:
                assert (await client.get("/fail")).status_code == 500
            async with service.client() as client:
                assert (await client.get("/threaded?a=1&b=2")).json() == {"sum": 3}

    run(main())
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["on purpose"]


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@over
def test_shutdown_waits_for_the_request_under_way(run, parser: str, secure: bool) -> None:
    async def main() -> None:
        async with serving("starlette", parser, secure=secure) as service, service.client() as client:
            (await client.get("/later")).raise_for_status()
            under_way = asyncio.create_task(client.get("/wait"))
            async with service.socket("/shout") as ws:
                await service.life.waiting.wait()
                service.server.should_exit = True
                # The web socket is closed, the idle connection ends, a new one is refused, and the server still waits for the request.
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await ws.recv()
                assert closed.value.rcvd.code == 1012
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, service.port)
            assert not service.task.done()
            service.life.go.set()
            answer = await under_way
            assert (answer.status_code, answer.json()) == (200, {"answer": "late"})
            # An idle TLS client does not answer the server's close_notify, which asyncio waits for.
            await client.aclose()
            await service.task

    run(main())


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@over
def test_malformed_requests_are_refused(run, parser: str, secure: bool) -> None:
    async def main() -> None:
        async with serving("starlette", parser, secure=secure) as service:
            hostname = "localhost" if secure else None
            reader, writer = await asyncio.open_connection(
                HOST, service.port, ssl=service.tls, server_hostname=hostname
            )
            writer.write(b"no such thing\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@over
def test_the_program(loop_name: str, parser: str, secure: bool) -> None:
    """`uvicorn --loop tokioloop:new_event_loop`: serves, and ends in order on SIGTERM."""
    certificate = f"--ssl-certfile={CERTIFICATES / 'server.pem'} --ssl-keyfile={CERTIFICATES / 'server.key'}"
    command = f"-W error -m uvicorn --factory tests.compat.applications:program --port=0 --http={parser} --loop={loop_name}"
    with subprocess.Popen(
        [sys.executable, *command.split(), *(certificate.split() if secure else [])],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"running on (https?)://127\.0\.0\.1:(\d+)", line):
                    break
            assert found, "".join(said)
            scheme, port = found.groups()
            assert scheme == ("https" if secure else "http")
            context: ssl.SSLContext | None = trusting_tls() if secure else None
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            with opener.open(f"{scheme}://localhost:{port}/threaded?a=20&b=22", timeout=PATIENCE) as answer:
                assert json.load(answer) == {"sum": 42}
            process.send_signal(signal.SIGTERM)
            said += process.stderr.readlines()
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM), "".join(said)
            assert [line.split()[-3:] for line in said[-2:-1]] == [["Application", "shutdown", "complete."]]
        finally:
            process.kill()
