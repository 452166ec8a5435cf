"""TLS by rustls: certificates that are refused, and arguments that are."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from tokioloop.tls import ClientConfig, ServerConfig

from .rustls_support import (
    CA,
    HERE,
    KEY,
    SERVER,
    Run,
    Side,
    client_config,
    client_context,
    connected,
    echoing,
    server_config,
    server_context,
)


@pytest.mark.parametrize("make_server", [server_config, server_context])
@pytest.mark.parametrize(
    ("server", "client", "name", "code", "text"),
    [
        ("expired", {}, "localhost", 10, "expired"),
        (
            "server",
            {},
            "other.example",
            62,
            "Hostname mismatch, certificate is not valid for 'other.example'",
        ),
        ("server", {}, "127.0.0.2", 64, "IP address mismatch, certificate is not valid for '127.0.0.2'"),
        ("server", {"roots": HERE / "stranger.pem"}, "localhost", 20, "local issuer"),
        (
            "revoked",
            {"roots": HERE / "revoker.pem", "crls": HERE / "revoker.crl"},
            "localhost",
            23,
            "revoked",
        ),
    ],
)
def test_a_bad_certificate_is_named(
    run: Run, make_server: Any, server: str, client: Any, name: str, code: int, text: str
) -> None:
    async def main() -> None:
        terms = make_server(certificate=HERE / f"{server}.pem", key=HERE / f"{server}.key")
        async with echoing(terms) as port:
            with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                async with connected(port, client_config(**client), name):
                    pass
            error = caught.value
            assert error.verify_code == code
            assert text in error.verify_message and text in str(error)
            assert (error.library, error.reason) == ("SSL", "CERTIFICATE_VERIFY_FAILED")

    run(main())


def test_a_list_without_the_certificate_lets_it_pass(run: Run) -> None:
    """The authority of the list has signed it."""

    async def main() -> None:
        terms = server_config(certificate=HERE / "standing.pem", key=HERE / "standing.key")
        config = client_config(roots=HERE / "revoker.pem", crls=HERE / "revoker.crl")
        async with echoing(terms) as port, connected(port, config) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"

    run(main())


CLIENT = {"certificate": HERE / "client.pem", "key": HERE / "client.key"}


@pytest.mark.parametrize("make_client", [client_config, client_context])
@pytest.mark.parametrize(
    ("client_auth", "client", "accepted"),
    [
        ("required", CLIENT, True),
        ("optional", CLIENT, True),
        ("optional", {}, True),
        ("required", {}, False),
        ("required", {"certificate": HERE / "revoked.pem", "key": HERE / "revoked.key"}, False),
        ("optional", {"certificate": HERE / "revoked.pem", "key": HERE / "revoked.key"}, False),
    ],
)
def test_client_authentication(
    run: Run, contexts: list[Any], make_client: Any, client_auth: str, client: Any, accepted: bool
) -> None:
    async def main() -> None:
        async with echoing(server_config(client_auth=client_auth, roots=CA)) as port:

            async def talk() -> None:
                async with connected(port, make_client(**client)) as (reader, writer):
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"

            if accepted:
                await talk()
            else:
                # In TLS 1.3 the client has finished before the server checks; the alert comes with its next read.
                with pytest.raises(ssl.SSLError, match="(?i)alert"):
                    await talk()

    run(main())


def test_a_server_learns_why_it_was_refused(run: Run) -> None:
    """By the alert: here OpenSSL's in blocking mode, outside any loop."""

    async def main() -> None:
        def serve(sock: socket.socket) -> str:
            with sock, contextlib.suppress(OSError):
                try:
                    server_context().wrap_socket(sock, server_side=True).recv(1)
                except ssl.SSLError as error:
                    return error.reason
            return "nothing"

        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepting = asyncio.create_task(asyncio.to_thread(lambda: serve(listener.accept()[0])))
            terms = client_config(roots=HERE / "stranger.pem")
            with pytest.raises(ssl.SSLCertVerificationError):
                async with connected(listener.getsockname()[1], terms):
                    pass
            assert await accepting == "TLSV1_ALERT_UNKNOWN_CA"

    run(main())


def test_pem_text_instead_of_files(run: Run) -> None:
    async def main() -> None:
        terms = server_config(certificate=SERVER.read_bytes(), key=bytearray(KEY.read_bytes()))
        async with echoing(terms) as port, connected(port, client_config(roots=CA.read_bytes())):
            pass

    run(main())


def test_the_systems_roots_do_not_know_our_authority(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(HERE / "stranger.pem"))

    async def main() -> None:
        async with echoing(server_config()) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                async with connected(port, ClientConfig()):
                    pass
            monkeypatch.setenv("SSL_CERT_FILE", str(CA))
            async with connected(port, ClientConfig()):
                pass

    run(main())


NOTHING = b"no certificate in here"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ServerConfig("/nonexistent.pem", KEY), FileNotFoundError, "/nonexistent.pem"),
        (lambda: ServerConfig(SERVER, HERE / "other.key"), ssl.SSLError, "KEY_VALUES_MISMATCH"),
        (lambda: ServerConfig(NOTHING, KEY), ssl.SSLError, "certificate: no certificate"),
        (lambda: ServerConfig(SERVER, SERVER), ssl.SSLError, "key: no private key"),
        (lambda: ServerConfig(b"-----BEGIN CERTIFICATE-----\n!", KEY), ssl.SSLError, "certificate"),
        (lambda: ServerConfig(SERVER, 5), TypeError, "int"),
        (lambda: ServerConfig(SERVER, KEY, client_auth="maybe", roots=CA), ValueError, "client_auth"),
        (lambda: ServerConfig(SERVER, KEY, client_auth="required"), ValueError, "roots"),
        (lambda: ServerConfig(SERVER, KEY, roots=CA), ValueError, "client_auth"),
        (lambda: ServerConfig(SERVER, KEY, session_tickets=-1), OverflowError, "negative"),
        (lambda: ClientConfig(certificate=SERVER), ValueError, "together"),
        (lambda: ClientConfig(roots=NOTHING), ssl.SSLError, "roots: no certificate"),
        (lambda: ClientConfig(roots=CA, crls=NOTHING), ssl.SSLError, "crls: no revocation list"),
        (lambda: ClientConfig(roots=CA, alpn="h2"), TypeError, "several"),
        (lambda: ClientConfig(roots=CA, alpn=[""]), ValueError, "1 to 255"),
        (lambda: ClientConfig(roots=CA, minimum_version=ssl.TLSVersion.TLSv1_1), ValueError, "TLSv1_2"),
    ],
)
def test_invalid_material_is_refused(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_a_minimum_version_holds(run: Run) -> None:
    async def main() -> None:
        old = client_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with echoing(server_config(minimum_version=ssl.TLSVersion.TLSv1_3)) as port:
            with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
                async with connected(port, old):
                    pass

    run(main())


def test_each_side_takes_only_its_own_kind(run: Run, listener: socket.socket) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError, match="ServerConfig"):
            await loop.create_server(Side, "127.0.0.1", 0, ssl=client_config())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="ClientConfig"):
            await loop.create_connection(
                Side,
                *listener.getsockname(),
                ssl=server_config(),  # type: ignore[arg-type]
                server_hostname="localhost",
            )
        with pytest.raises(ValueError, match="server_hostname"):
            await loop.create_connection(
                Side, *listener.getsockname(), ssl=client_config(), server_hostname=""
            )
        with pytest.raises(ValueError, match="server_hostname"):
            await loop.create_connection(
                Side, *listener.getsockname(), ssl=client_config(), server_hostname="not a name"
            )
        with pytest.raises(TypeError, match="SSLContext"):
            await loop.create_server(Side, "127.0.0.1", 0, ssl=True)  # type: ignore[arg-type]

    run(main())


def test_configurations_are_immutable() -> None:
    for config in (server_config(), client_config()):
        with pytest.raises(AttributeError):
            config.alpn = ["h2"]  # type: ignore[union-attr]
