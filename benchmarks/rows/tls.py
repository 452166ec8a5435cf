"""Served rows over TLS 1.3: the load generator checks the certificate and never resumes a session."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

from ..model import Loop, Row, Serve, Target
from .served import Echo, EchoOnce

CERTIFICATES = Path(__file__).parent.parent / "certificates"
CHAIN, KEY = str(CERTIFICATES / "server.pem"), str(CERTIFICATES / "server.key")
#: The module whose configurations take the place of an `ssl.SSLContext`.
RUSTLS = "tokioloop.tls"


def of_ssl() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CHAIN, KEY)
    return context


def of_rustls() -> Any:
    return importlib.import_module(RUSTLS).ServerConfig(certificate=CHAIN, key=KEY)


def serving(protocol: type[Echo], secured: Callable[[], Any]) -> Serve:
    """Serves `protocol`; `secured` makes its `ssl` argument."""

    async def serve(loop: Loop, listener: socket) -> Callable[[], None]:
        return (await loop.create_server(protocol, sock=listener, backlog=1024, ssl=secured())).close

    return serve


TLS = ("--tls", str(CERTIFICATES / "ca.pem"))
ECHO = ("echo", "--size", "1024", "--connections", "64", *TLS)
ECHO_64K = ("echo", "--size", "65536", "--connections", "64", *TLS)
HANDSHAKE = ("connect", "--closer", "server", "--connections", "16", *TLS)

ROWS = (
    Row(
        "tls_echo",
        "echo of 1 KiB over TLS, SSLContext, 64 connections",
        "tls",
        serve=serving(Echo, of_ssl),
        load=ECHO,
        two_threads=True,
        target=Target(times=1.45),
    ),
    Row(
        "tls_echo_rustls",
        "echo of 1 KiB over TLS, rustls, 64 connections",
        "tls",
        serve=serving(Echo, of_rustls),
        load=ECHO,
        target=Target(times=1.0, than="tls_echo"),
        loops=("tokioloop",),
        needs=RUSTLS,
    ),
    Row(
        "tls_echo_64k",
        "echo of 64 KiB over TLS, SSLContext, 64 connections",
        "tls",
        serve=serving(Echo, of_ssl),
        load=ECHO_64K,
        target=Target(times=1.35),
    ),
    Row(
        "tls_echo_64k_rustls",
        "echo of 64 KiB over TLS, rustls, 64 connections",
        "tls",
        serve=serving(Echo, of_rustls),
        load=ECHO_64K,
        target=Target(times=1.0, than="tls_echo_64k"),
        loops=("tokioloop",),
        needs=RUSTLS,
    ),
    Row(
        "tls_handshake",
        "connect, TLS handshake, echo of one byte, close by the server; 16 at a time",
        "tls",
        serve=serving(EchoOnce, of_ssl),
        load=HANDSHAKE,
        target=Target(times=1.0),
    ),
)
