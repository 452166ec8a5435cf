"""httpx's asynchronous client against a server of asyncio's streams, over TCP and TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .support import HOST, PATIENCE, needed, pattern, proxy, serving_tls, trusting_tls

httpx = needed("httpx")

over = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
SIZE = 2_000_003


class Service:
    """Just enough of HTTP/1.1 to keep connections, take chunks and send them."""

    def __init__(self) -> None:
        self.connections = 0
        self.open = 0
        self.hung = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while await self.answer(reader, writer):
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. False when the connection is to end."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        path = head[0].split()[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([piece async for piece in chunks(reader)])
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/hang":
            self.hung.set()
            return await reader.read(1) != b""
        if path == "/reset":
            writer.transport.abort()
            return False
        if path == "/chunks":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, SIZE, 50_000):
                piece = pattern(SIZE)[start : start + 50_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            return True
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return True


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readline() == b"\r\n"


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Service, str]]:
    service = Service()
    async with await asyncio.start_server(service, HOST, 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        yield service, f"{'http' if context is None else 'https'}://localhost:{port}"


def tls(secure: bool) -> ssl.SSLContext | None:
    return serving_tls() if secure else None


def client(**options: object) -> "httpx.AsyncClient":
    return httpx.AsyncClient(
        **({"verify": trusting_tls(), "trust_env": False, "timeout": PATIENCE} | options)
    )


@over
def test_many_requests_share_the_pool(run, secure: bool) -> None:
    async def main() -> None:
        async with serving(tls(secure)) as (service, url):
            async with client(limits=httpx.Limits(max_connections=10)) as session:

                async def echo(number: int) -> None:
                    answer = await session.post(url + "/echo", content=b"%d" % number)
                    assert (answer.status_code, answer.content) == (200, b"%d" % number)

                await asyncio.gather(*map(echo, range(200)))
                assert 1 <= service.connections <= 10

    run(main())


@over
def test_streams_both_ways(run, secure: bool) -> None:
    async def body(seed: int) -> AsyncIterator[bytes]:
        whole = pattern(SIZE, seed)
        for start in range(0, SIZE, 30_011):
            yield whole[start : start + 30_011]

    async def main() -> None:
        async with serving(tls(secure)) as (_, url), client() as session:

            async def up(seed: int) -> None:
                answer = await session.post(url + "/echo", content=body(seed))
                assert answer.content == pattern(SIZE, seed)

            async def down() -> None:
                async with session.stream("GET", url + "/chunks") as answer:
                    assert b"".join([piece async for piece in answer.aiter_bytes()]) == pattern(SIZE)

            await asyncio.gather(*map(up, range(3)), down(), down())

    run(main())


@over
def test_errors_have_their_names(run, secure: bool) -> None:
    async def main() -> None:
        async with serving(tls(secure)) as (service, url), client() as session:
            with pytest.raises(httpx.ReadTimeout):
                await session.get(url + "/hang", timeout=httpx.Timeout(PATIENCE, read=0.05))
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await session.get(url + "/reset")
            service.hung.clear()
            given_up = asyncio.create_task(session.get(url + "/hang"))
            await service.hung.wait()
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            answer = await session.post(url + "/echo", content=b"still there")
            assert answer.content == b"still there"
        async with client() as session:
            with pytest.raises(httpx.ConnectError):
                await session.get(url)

    run(main())


def test_certificates_are_checked_on_both_sides(run) -> None:
    async def main() -> None:
        async with serving(serving_tls(client_certificate=True)) as (_, url):
            async with client(verify=trusting_tls(certificate="client")) as session:
                assert (await session.post(url + "/echo", content=b"known")).content == b"known"
            async with client(verify=trusting_tls(authority="stranger")) as session:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await session.get(url)

    run(main())


def test_https_through_a_proxy(run) -> None:
    async def main() -> None:
        async with serving(serving_tls()) as (_, url), proxy() as (through, asked):
            async with client(proxy=through) as session:

                async def echo(number: int) -> None:
                    answer = await session.post(url + "/echo", content=pattern(200_000, number))
                    assert answer.content == pattern(200_000, number)

                await asyncio.gather(*map(echo, range(8)))
            assert set(asked) == {url.removeprefix("https://")}

    run(main())
