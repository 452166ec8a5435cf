"""Helpers of all these tests: packages that may be missing, certificates, a proxy."""

import asyncio
import importlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

# Seconds; far above what any test needs: it turns a hang into a failure.
PATIENCE = 60
HOST = "127.0.0.1"
CERTIFICATES = Path(__file__).resolve().parents[1] / "certificates"
AUTHORITY = CERTIFICATES / "ca.pem"


def missing(what: str) -> NoReturn:
    """Skip, or fail in continuous integration, where everything has to be installed."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set, so nothing may be left out", pytrace=False)
    pytest.skip(f"{what}; `make test-compat` installs what it can", allow_module_level=True)


def needed(*names: str) -> ModuleType:
    """Import the modules, and return the first. Without one of them the tests of the calling module are left out."""
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            missing(f"{name} is not installed ({error})")
    return modules[0]


def serving_tls(*, client_certificate: bool = False) -> ssl.SSLContext:
    """For a server on localhost and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(AUTHORITY)
    return context


def trusting_tls(*, authority: str = "ca", certificate: str = "") -> ssl.SSLContext:
    """For a client that trusts the tests' authority, or the one that signed nothing: "stranger"."""
    context = ssl.create_default_context(cafile=CERTIFICATES / f"{authority}.pem")
    if certificate:
        context.load_cert_chain(CERTIFICATES / f"{certificate}.pem", CERTIFICATES / f"{certificate}.key")
    return context


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes whose order can be checked: no two neighbouring blocks are equal."""
    block = b"".join((seed + number).to_bytes(4, "big") for number in range(4096))
    return (block * (size // len(block) + 1))[:size]


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that knows CONNECT alone: its address, and the targets it was asked for."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.decode().split("\r\n")[0].split()
        assert method == "CONNECT"
        asked.append(target)
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        finally:
            for end in writer, far_writer:
                end.close()
            await asyncio.gather(writer.wait_closed(), far_writer.wait_closed(), return_exceptions=True)

    async with await asyncio.start_server(connect, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://{HOST}:{port}", asked
