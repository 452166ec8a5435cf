"""The addresses that create_connection tries, and its errors for those that fail."""

import socket

import pytest

import tokioloop


class Stop(Exception):
    """Raised instead of connecting."""


class Recording(tokioloop.TokioLoop):
    """Records its address instead of connecting."""

    def __init__(self):
        super().__init__()
        self.tried = []

    async def sock_connect(self, sock, address):
        self.tried.append((sock.family, address))
        raise Stop


@pytest.fixture
def loop():
    loop = Recording()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.mark.parametrize(
    ("host", "port", "family", "address"),
    [
        ("1.2.3.4", 80, socket.AF_INET, ("1.2.3.4", 80)),
        (b"1.2.3.4", "80", socket.AF_INET, ("1.2.3.4", 80)),
        ("127.0.0.1", "http", socket.AF_INET, ("127.0.0.1", 80)),
        ("127.0.0.1", b"http", socket.AF_INET, ("127.0.0.1", 80)),
        ("::1", 80, socket.AF_INET6, ("::1", 80, 0, 0)),
        ("fe80::1%1", 80, socket.AF_INET6, ("fe80::1", 80, 0, 1)),
    ],
)
def test_the_address_of_a_numeric_host(loop, run, host, port, family, address):
    with pytest.raises(Stop):
        run(loop.create_connection(None, host, port))
    assert loop.tried == [(family, address)]


@pytest.mark.parametrize("service", ["nonsense", b"nonsense"])
def test_a_service_that_is_unknown(loop, run, service):
    with pytest.raises(socket.gaierror):
        run(loop.create_connection(None, "127.0.0.1", service))
    assert loop.tried == []


def test_an_error_of_closing_does_not_hide_why(loop, run, monkeypatch):
    class Stubborn(socket.socket):
        def close(self):
            super().close()
            raise OSError("cannot be closed")

    monkeypatch.setattr(socket, "socket", Stubborn)
    with pytest.raises(Stop):
        run(loop.create_connection(None, "127.0.0.1", 80))
    monkeypatch.undo()


def test_reuse_port_where_there_is_none(loop, run, monkeypatch):
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(ValueError, match="reuse_port not supported by socket module"):
        run(loop.create_server(None, "127.0.0.1", 0, reuse_port=True))
