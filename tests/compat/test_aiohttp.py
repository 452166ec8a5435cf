"""aiohttp's server and client, with each other, over HTTP, TLS, WebSocket and Unix sockets."""

import asyncio
import hashlib
import io
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from .support import HOST, PATIENCE, needed, pattern, proxy, serving_tls, trusting_tls

aiohttp = needed("aiohttp")

from aiohttp import WSMsgType, web  # noqa: E402

over = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


class Service:
    """An aiohttp application on a port of loopback."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.sockets: set[web.WebSocketResponse] = set()
        self.closed: list[int | None] = []
        self.app = web.Application(client_max_size=16 * 2**20)
        self.app.on_shutdown.append(self.close_sockets)
        for method, path, handler in (
            ("POST", "/add", self.add),
            ("POST", "/digest", self.digest),
            ("POST", "/mirror", self.mirror),
            ("GET", "/file", self.send_file),
            ("GET", "/cookie", self.cookie),
            ("GET", "/wait", self.wait),
            ("GET", "/shout", self.shout),
        ):
            self.app.router.add_route(method, path, handler)

    async def add(self, request: web.Request) -> web.Response:
        numbers = await request.json()
        return web.json_response({"sum": numbers["a"] + numbers["b"]})

    async def digest(self, request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=digest.hexdigest())

    async def mirror(self, request: web.Request) -> web.StreamResponse:
        """Sends the body back while it comes."""
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response

    async def send_file(self, request: web.Request) -> web.FileResponse:
        assert self.file is not None
        return web.FileResponse(self.file)

    async def cookie(self, request: web.Request) -> web.Response:
        response = web.Response(text=request.cookies.get("visits", "0"))
        response.set_cookie("visits", str(int(request.cookies.get("visits", "0")) + 1))
        return response

    async def wait(self, request: web.Request) -> web.Response:
        self.started.set()
        await self.go.wait()
        return web.Response(text="late")

    async def shout(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=16 * 2**20)
        await ws.prepare(request)
        self.sockets.add(ws)
        async for message in ws:
            if message.type == WSMsgType.TEXT:
                await ws.send_str(message.data.upper())
            else:
                await ws.send_bytes(message.data)
        self.sockets.discard(ws)
        self.closed.append(ws.close_code)
        return ws

    async def close_sockets(self, app: web.Application) -> None:
        for ws in list(self.sockets):
            await ws.close(code=aiohttp.WSCloseCode.GOING_AWAY, message=b"shutting down")


@asynccontextmanager
async def serving(
    service: Service, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[web.AppRunner, str]]:
    """The runner, and the address that its server answers at."""
    runner = web.AppRunner(service.app, access_log=None, shutdown_timeout=PATIENCE)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        yield runner, f"{'http' if context is None else 'https'}://localhost:{port}"
    finally:
        service.go.set()
        await runner.cleanup()


@asynccontextmanager
async def client(**options: object) -> AsyncIterator["aiohttp.ClientSession"]:
    connector = aiohttp.TCPConnector(ssl=trusting_tls(), limit=50)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, **options) as session:
        yield session


def tls(secure: bool) -> ssl.SSLContext | None:
    return serving_tls() if secure else None


@over
def test_many_requests(run, secure: bool) -> None:
    async def main() -> None:
        async with serving(Service(), tls(secure)) as (_, url), client() as session:

            async def add(number: int) -> None:
                async with session.post(url + "/add", json={"a": number, "b": 1}) as answer:
                    assert (answer.status, await answer.json()) == (200, {"sum": number + 1})

            await asyncio.gather(*map(add, range(300)))
            async with session.get(url + "/nowhere") as answer:
                assert answer.status == 404
            visits = []
            for _ in range(3):
                async with session.get(url + "/cookie") as answer:
                    visits.append(await answer.text())
            assert visits == ["0", "1", "2"]

    run(main())


@over
def test_bodies_of_megabytes_both_ways_at_once(run, secure: bool) -> None:
    size = 5_000_003

    async def body(seed: int) -> AsyncIterator[bytes]:
        whole = pattern(size, seed)
        for start in range(0, size, 70_001):
            yield whole[start : start + 70_001]

    async def main() -> None:
        async with serving(Service(), tls(secure)) as (_, url), client() as session:

            async def mirror(seed: int) -> None:
                async with session.post(url + "/mirror", data=body(seed)) as answer:
                    assert await answer.read() == pattern(size, seed)

            async def digest(seed: int) -> None:
                data = pattern(size, seed)
                async with session.post(url + "/digest", data=io.BytesIO(data), compress="gzip") as answer:
                    assert await answer.text() == hashlib.sha256(data).hexdigest()

            await asyncio.gather(*map(mirror, range(3)), *map(digest, range(3)))

    run(main())


@over
def test_files_whole_and_in_part(run, secure: bool, tmp_path: Path) -> None:
    """FileResponse sends by loop.sendfile."""
    file = tmp_path / "file.bin"
    file.write_bytes(pattern(3_000_007))

    async def main() -> None:
        async with serving(Service(file), tls(secure)) as (_, url), client() as session:

            async def whole() -> None:
                async with session.get(url + "/file") as answer:
                    assert await answer.read() == file.read_bytes()

            async def part(start: int, end: int) -> None:
                async with session.get(url + "/file", headers={"Range": f"bytes={start}-{end}"}) as answer:
                    assert answer.status == 206
                    assert await answer.read() == file.read_bytes()[start : end + 1]

            await asyncio.gather(whole(), part(0, 0), whole(), part(1_000_000, 2_999_999))

    run(main())


@over
def test_websockets(run, secure: bool) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service, tls(secure)) as (_, url), client() as session:

            async def talk(number: int) -> None:
                async with session.ws_connect(
                    url + "/shout", max_msg_size=16 * 2**20, compress=number % 2 * 15
                ) as ws:
                    for turn in range(20):
                        await ws.send_str(f"hello {number} {turn}")
                    for turn in range(20):
                        assert await ws.receive_str() == f"HELLO {number} {turn}"
                    large = pattern(1_000_000, seed=number)
                    await ws.send_bytes(large)
                    assert await ws.receive_bytes() == large
                    await ws.ping()
                    await ws.close(code=4000 + number)
                    assert ws.closed

            await asyncio.gather(*map(talk, range(10)))
        assert sorted(service.closed) == list(range(4000, 4010))

    run(main())


@over
def test_shutdown_lets_requests_end_and_closes_web_sockets(run, secure: bool) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service, tls(secure)) as (runner, url):
            async with client() as session, client() as other:

                async def late() -> str:
                    async with session.get(url + "/wait") as answer:
                        return await answer.text()

                async def told() -> tuple[int | None, str]:
                    async with other.ws_connect(url + "/shout") as ws:
                        await ws.send_str("here")
                        assert await ws.receive_str() == "HERE"
                        connected.set()
                        message = await ws.receive()
                        assert message.type == WSMsgType.CLOSE
                        return message.data, message.extra

                connected = asyncio.Event()
                request, listener = asyncio.create_task(late()), asyncio.create_task(told())
                await service.started.wait()
                await connected.wait()
                cleanup = asyncio.create_task(runner.cleanup())
                assert await listener == (1001, "shutting down")
                assert not cleanup.done()
                service.go.set()
                assert await request == "late"
                await session.close()
            await cleanup
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))

    run(main())


@over
def test_a_client_that_waits_no_longer_and_one_that_leaves(run, secure: bool) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service, tls(secure)) as (_, url), client() as session:

            async def leave() -> None:
                async with session.get(url + "/wait"):
                    pass

            leaver = asyncio.create_task(leave())
            await service.started.wait()
            leaver.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaver
            with pytest.raises(TimeoutError):
                async with session.get(url + "/wait", timeout=aiohttp.ClientTimeout(total=0.05)):
                    pass
            async with session.post(url + "/add", json={"a": 1, "b": 2}) as answer:
                assert await answer.json() == {"sum": 3}

    run(main())


def test_certificates_are_checked(run) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service, serving_tls(client_certificate=True)) as (_, url):
            with_certificate = aiohttp.TCPConnector(ssl=trusting_tls(certificate="client"))
            async with aiohttp.ClientSession(connector=with_certificate) as session:
                async with session.post(url + "/add", json={"a": 1, "b": 2}) as answer:
                    assert await answer.json() == {"sum": 3}
            stranger = aiohttp.TCPConnector(ssl=trusting_tls(authority="stranger"))
            async with aiohttp.ClientSession(connector=stranger) as session:
                with pytest.raises(
                    aiohttp.ClientConnectorCertificateError, match="certificate verify failed"
                ):
                    await session.get(url + "/cookie")

    run(main())


def test_https_through_a_proxy(run) -> None:
    """The client asks for a tunnel in plain text, then starts TLS in it: loop.start_tls."""

    async def main() -> None:
        async with serving(Service(), serving_tls()) as (_, url), proxy() as (through, asked):
            async with client() as session:

                async def add(number: int) -> None:
                    async with session.post(
                        url + "/add", json={"a": number, "b": 1}, proxy=through
                    ) as answer:
                        assert await answer.json() == {"sum": number + 1}
                    body = pattern(400_000, number)
                    async with session.post(url + "/mirror", data=io.BytesIO(body), proxy=through) as answer:
                        assert await answer.read() == body

                await asyncio.gather(*map(add, range(5)))
            assert set(asked) == {url.removeprefix("https://")}

    run(main())


def test_unix_socket(run, tmp_path: Path) -> None:
    async def main() -> None:
        service = Service()
        runner = web.AppRunner(service.app, access_log=None)
        await runner.setup()
        path = str(tmp_path / "http.sock")
        await web.UnixSite(runner, path).start()
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            async with session.post("http://localhost/mirror", data=io.BytesIO(pattern(1_000_000))) as answer:
                assert await answer.read() == pattern(1_000_000)
            async with session.ws_connect("http://localhost/shout") as ws:
                await ws.send_str("near")
                assert await ws.receive_str() == "NEAR"
        await runner.cleanup()

    run(main())


def test_one_connection_serves_pipelined_requests(run) -> None:
    async def main() -> None:
        async with serving(Service()) as (_, url):
            reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))
            body = json.dumps({"a": 20, "b": 22})
            request = f"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            writer.write(request.encode() * 20)
            for _ in range(20):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
                assert json.loads(await reader.readuntil(b"}")) == {"sum": 42}
            writer.close()
            await writer.wait_closed()

    run(main())
