"""getaddrinfo and getnameinfo."""

import logging
import socket
import threading

import pytest


def test_numeric_hosts_are_answered_as_the_socket_module_does(loop, run):
    questions = [
        ("127.0.0.1", 80, {}),
        ("127.0.0.1", "80", {"type": socket.SOCK_STREAM}),
        (b"127.0.0.1", None, {"family": socket.AF_INET}),
        ("::1", 443, {"type": socket.SOCK_DGRAM}),
        ("127.1", 1, {"type": socket.SOCK_STREAM}),
        (None, 8080, {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE}),
        ("127.0.0.1", 80, {"type": socket.SOCK_STREAM, "flags": socket.AI_CANONNAME}),
        ("127.0.0.1", b"80", {"family": socket.AF_INET6, "flags": socket.AI_V4MAPPED}),
        ("fe80::1%lo", 80, {"type": socket.SOCK_STREAM}),
    ]

    async def main():
        for host, port, options in questions:
            answer = await loop.getaddrinfo(host, port, **options)
            assert answer == socket.getaddrinfo(host, port, **options)
            assert isinstance(answer[0][0], socket.AddressFamily)
            assert isinstance(answer[0][1], socket.SocketKind)

    run(main())


def test_numeric_hosts_need_no_thread(loop, run):
    async def main():
        before = threading.active_count()
        steps = []
        loop.call_soon(steps.append, "turn")
        await loop.getaddrinfo("10.1.2.3", 80)
        await loop.getnameinfo(("10.1.2.3", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        assert steps == []
        assert threading.active_count() == before

    run(main())


def test_names_are_resolved_without_blocking(loop, run):
    async def main():
        answer = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert answer == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert isinstance(answer[0][0], socket.AddressFamily)
        assert await loop.getaddrinfo(b"localhost", None) == socket.getaddrinfo(b"localhost", None)
        answer = await loop.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM)
        assert answer[0][4] == ("127.0.0.1", 80)

    run(main())


def test_unknown_names_raise_gaierror(loop, run):
    async def main():
        with pytest.raises(socket.gaierror) as here:
            await loop.getaddrinfo("127.0.0.1.invalid", 80, flags=socket.AI_NUMERICHOST)
        assert here.value.errno == socket.EAI_NONAME
        with pytest.raises(socket.gaierror) as there:
            await loop.getaddrinfo("localhost", "no such service")
        assert there.value.errno == socket.EAI_SERVICE
        with pytest.raises(socket.gaierror) as nothing:
            await loop.getaddrinfo(None, None)
        assert nothing.value.errno == socket.EAI_NONAME

    run(main())


def test_bad_arguments_get_the_socket_module_s_errors(loop, run):
    async def main():
        with pytest.raises(TypeError, match=r"getaddrinfo\(\) argument 1 must be string or None"):
            await loop.getaddrinfo(1, 80)
        with pytest.raises(TypeError, match=r"getaddrinfo\(\) argument 1 must be string or None"):
            await loop.getaddrinfo(1, "http")
        with pytest.raises(OSError, match="Int or String expected"):
            await loop.getaddrinfo("localhost", 1.5)
        with pytest.raises(TypeError):
            await loop.getaddrinfo("localhost", 80, family="x")
        with pytest.raises(UnicodeError):
            await loop.getaddrinfo("\u20ac" * 100 + ".example", 80)
        with pytest.raises(TypeError, match=r"getnameinfo\(\) argument 1 must be a tuple"):
            await loop.getnameinfo("127.0.0.1")
        with pytest.raises(socket.gaierror):
            await loop.getnameinfo(("not a number", 80))

    run(main())


def test_names_beyond_ascii_are_encoded(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("b\xfccher.invalid", 80)

    run(main())


def test_getnameinfo(loop, run):
    async def main():
        for flags in (0, socket.NI_NUMERICHOST, socket.NI_NUMERICSERV):
            answer = await loop.getnameinfo(("127.0.0.1", 80), flags)
            assert answer == socket.getnameinfo(("127.0.0.1", 80), flags)
        assert await loop.getnameinfo(("::1", 80, 0, 0), socket.NI_NUMERICHOST) == ("::1", "http")
        assert await loop.getnameinfo(("127.1", 80), 0) == socket.getnameinfo(("127.1", 80), 0)
        with pytest.raises(socket.gaierror) as nameless:
            await loop.getnameinfo(("192.0.2.1", 80), socket.NI_NAMEREQD | socket.NI_NUMERICHOST)
        assert nameless.value.errno == socket.EAI_NONAME

    run(main())


def test_debug_mode_logs_the_question(loop, run, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    loop.set_debug(True)
    run(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    texts = [record.getMessage() for record in caplog.records]
    assert f"Get address info 127.0.0.1:80, type={socket.SOCK_STREAM!r}" in texts
    assert any(text.startswith("Getting address info 127.0.0.1:80") and "ms: [(" in text for text in texts)


def test_a_replaced_getaddrinfo_is_asked(loop, run, monkeypatch):
    """A program may pin names or forbid addresses that way."""
    asked = []

    def pinned(*args):
        asked.append((args, threading.current_thread() is threading.main_thread()))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", pinned)

    async def main():
        for host in ("example.invalid", "192.0.2.1"):
            answer = await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
            assert answer[0][4] == ("127.0.0.1", 80)
        assert asked == [
            (("example.invalid", 80, 0, socket.SOCK_STREAM, 0, 0), False),
            (("192.0.2.1", 80, 0, socket.SOCK_STREAM, 0, 0), False),
        ]

    run(main())


def test_a_replaced_getnameinfo_is_asked(loop, run, monkeypatch):
    monkeypatch.setattr(socket, "getnameinfo", lambda *args: args)
    assert run(loop.getnameinfo(("192.0.2.1", 80), 3)) == (("192.0.2.1", 80), 3)
