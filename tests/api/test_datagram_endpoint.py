"""create_datagram_endpoint: every argument, the errors of wrong ones, and the sockets that it makes."""

import asyncio
import errno
import logging
import os
import re
import socket

import pytest

LOOPBACK = ("127.0.0.1", 0)


class Recorder(asyncio.DatagramProtocol):
    """Keeps received datagrams; ``lost`` is a future."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.got = asyncio.Queue()
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.put_nowait((data, addr))

    def error_received(self, exc):
        self.got.put_nowait(exc)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def closed(*protocols):
    for protocol in protocols:
        protocol.transport.close()
        assert await protocol.lost is None


def test_wrong_combinations(loop, run):
    make = loop.create_datagram_endpoint
    with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket() as stream:
        for options, error, text in (
            ({}, ValueError, "unexpected address family"),
            ({"sock": stream}, ValueError, f"A datagram socket was expected, got {stream!r}"),
            ({"local_addr": "127.0.0.1"}, TypeError, "2-tuple is expected"),
            ({"local_addr": ("127.0.0.1", 0, 0)}, TypeError, "2-tuple is expected"),
            ({"remote_addr": ["127.0.0.1", 1]}, TypeError, "2-tuple is expected"),
            ({"family": socket.AF_UNIX, "local_addr": ("x", 1)}, TypeError, "string is expected"),
            ({"family": socket.AF_UNIX, "remote_addr": b"x"}, TypeError, "string is expected"),
            (
                {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 1)},
                ValueError,
                "can not get address information",
            ),
            (
                {"sock": sock, "local_addr": ("127.0.0.1", 0), "reuse_port": True, "flags": 0},
                ValueError,
                "socket modifier keyword arguments can not be used when sock is specified. "
                "(local_addr=('127.0.0.1', 0), reuse_port=True)",
            ),
            (
                {"sock": sock, "family": 2, "proto": 17, "flags": 1, "allow_broadcast": True},
                ValueError,
                "socket modifier keyword arguments can not be used when sock is specified. "
                "(family=2, proto=17, flags=1, allow_broadcast=True)",
            ),
        ):
            with pytest.raises(error, match=f"^{re.escape(text)}$"):
                run(make(Recorder, **options))


def test_every_address_fails(loop, run):
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(LOOPBACK)
        with pytest.raises(OSError, match="in use") as caught:
            run(loop.create_datagram_endpoint(Recorder, taken.getsockname()))
        assert caught.value.errno == errno.EADDRINUSE


def test_addresses_are_tried_in_turn(loop, run, monkeypatch):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind(LOOPBACK)
            port = taken.getsockname()[1]

            async def getaddrinfo(host, *args, **options):
                return [
                    (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port)),
                    (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", port, 0, 0)),
                ]

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
            transport, protocol = await loop.create_datagram_endpoint(Recorder, ("two-addresses", port))
            assert transport.get_extra_info("sockname") == ("::1", port, 0, 0)
            await closed(protocol)

    run(main())


def test_local_and_remote(loop, run):
    async def main():
        server, first = await loop.create_datagram_endpoint(Recorder, LOOPBACK)
        address = server.get_extra_info("sockname")
        client, second = await loop.create_datagram_endpoint(Recorder, LOOPBACK, address)
        client.sendto(b"question")
        data, addr = await first.got.get()
        assert (data, addr) == (b"question", client.get_extra_info("sockname"))
        server.sendto(b"answer", addr)
        assert await second.got.get() == (b"answer", address)
        await closed(first, second)

    run(main())


def test_names_are_resolved(loop, run):
    async def main():
        server, first = await loop.create_datagram_endpoint(Recorder, LOOPBACK)
        port = server.get_extra_info("sockname")[1]
        client, second = await loop.create_datagram_endpoint(
            Recorder, remote_addr=("localhost", port), family=socket.AF_INET
        )
        client.sendto(b"x")
        assert (await first.got.get())[0] == b"x"
        await closed(first, second)

    run(main())


def test_a_family_alone_makes_an_unbound_socket(loop, run):
    async def main():
        transport, protocol = await loop.create_datagram_endpoint(Recorder, family=socket.AF_INET)
        assert transport.get_extra_info("sockname") == ("0.0.0.0", 0)
        await closed(protocol)

    run(main())


def test_a_given_socket_is_used(loop, run):
    async def main():
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind(LOOPBACK)
        transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sock)
        assert sock.gettimeout() == 0
        assert transport.get_extra_info("sockname") == sock.getsockname()
        with pytest.raises(RuntimeError, match="is used by transport <DatagramTransport"):
            loop.add_reader(sock, print)
        await closed(protocol)
        assert sock.fileno() == -1

    run(main())


def test_reuse_port(loop, run):
    async def main():
        first, one = await loop.create_datagram_endpoint(Recorder, LOOPBACK, reuse_port=True)
        address = first.get_extra_info("sockname")
        _, two = await loop.create_datagram_endpoint(Recorder, address, reuse_port=True)
        with pytest.raises(OSError, match="in use"):
            await loop.create_datagram_endpoint(Recorder, address)
        await closed(one, two)

    run(main())


def test_broadcast_is_refused_without_leave(loop, run):
    async def main():
        everybody = ("127.255.255.255", 9)
        with pytest.raises(PermissionError):
            await loop.create_datagram_endpoint(Recorder, remote_addr=everybody)
        transport, protocol = await loop.create_datagram_endpoint(Recorder, LOOPBACK)
        transport.sendto(b"x", everybody)
        assert isinstance(protocol.got.get_nowait(), PermissionError)
        await closed(protocol)

        receiver, other = await loop.create_datagram_endpoint(Recorder, ("0.0.0.0", 0))
        everybody = ("127.255.255.255", receiver.get_extra_info("sockname")[1])
        transport, protocol = await loop.create_datagram_endpoint(
            Recorder, remote_addr=everybody, allow_broadcast=True
        )
        assert transport.get_extra_info("peername") is None, "answers may come from anywhere"
        assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        transport.sendto(b"to all")
        assert (await other.got.get())[0] == b"to all"
        with pytest.raises(ValueError, match="^Invalid address: must be None or "):
            transport.sendto(b"x", ("127.0.0.1", 9))
        await closed(protocol, other)

    run(main())


def test_ipv6_with_flow_and_scope(loop, run):
    async def main():
        server, first = await loop.create_datagram_endpoint(Recorder, ("::1", 0))
        port = server.get_extra_info("sockname")[1]
        client, second = await loop.create_datagram_endpoint(Recorder, ("::1", 0))
        name = client.get_extra_info("sockname")
        scope = socket.if_nametoindex("lo")
        for address in (("::1", port), ("::1", port, 0), ("::1", port, 0, 0), ("::1", port, 0, scope)):
            client.sendto(b"x", address)
            assert await first.got.get() == (b"x", name)
        # Python refuses values out of range.
        client.sendto(b"x", ("127.0.0.1", port))
        assert isinstance(second.got.get_nowait(), socket.gaierror)
        await closed(first, second)

    run(main())


@pytest.mark.parametrize("abstract", [False, True])
def test_unix_datagrams(loop, run, tmp_path, abstract):
    def path(name):
        return f"\0{tmp_path}/{name}" if abstract else str(tmp_path / name)

    def seen(name):
        return os.fsencode(path(name)) if abstract else path(name)

    async def main():
        server, first = await loop.create_datagram_endpoint(Recorder, path("server"), family=socket.AF_UNIX)
        client, second = await loop.create_datagram_endpoint(
            Recorder, path("client"), path("server"), family=socket.AF_UNIX
        )
        assert client.get_extra_info("peername") == seen("server")
        client.sendto(b"x" * 100_000)
        assert await first.got.get() == (b"x" * 100_000, seen("client"))
        for address in (path("client"), os.fsencode(path("client"))):
            server.sendto(b"answer", address)
            assert await second.got.get() == (b"answer", seen("server"))
        nameless, third = await loop.create_datagram_endpoint(
            Recorder, remote_addr=path("server"), family=socket.AF_UNIX
        )
        nameless.sendto(b"from nowhere")
        assert await first.got.get() == (b"from nowhere", None)
        server.sendto(b"x", path("nobody"))
        assert isinstance(first.got.get_nowait(), ConnectionRefusedError if abstract else FileNotFoundError)
        await closed(first, second, third)

    run(main())


def test_a_stale_unix_socket_is_removed_and_nothing_else(loop, run, tmp_path, caplog):
    stale, file, link = (tmp_path / name for name in ("stale", "file", "nowhere/x"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(stale))
    file.write_text("precious")

    async def main():
        _, protocol = await loop.create_datagram_endpoint(Recorder, str(stale), family=socket.AF_UNIX)
        await closed(protocol)
        for path, text in ((file, "in use"), (link, "No such file")):
            with pytest.raises(OSError, match=text):
                await loop.create_datagram_endpoint(Recorder, str(path), family=socket.AF_UNIX)
        assert file.read_text() == "precious"
        assert not caplog.records
        # A path through a file can't even be looked at.
        with caplog.at_level(logging.ERROR, "asyncio"), pytest.raises(NotADirectoryError):
            await loop.create_datagram_endpoint(Recorder, f"{file}/x", family=socket.AF_UNIX)
        assert caplog.messages[0].startswith("Unable to check or remove stale UNIX socket")

    run(main())


def test_a_family_whose_addresses_only_the_socket_module_knows(loop, run):
    async def main():
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
        except OSError as exc:
            pytest.skip(f"no netlink here: {exc}")
        transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sock)
        # RTM_GETLINK, a dump: the kernel answers with as many datagrams as it needs.
        request = (17 + 3).to_bytes(4, "little") + (18).to_bytes(2, "little") + (0x301).to_bytes(2, "little")
        transport.sendto(request + bytes(12), (0, 0))
        data, addr = await protocol.got.get()
        assert addr == (0, 0)
        assert len(data) >= 16
        await closed(protocol)

    run(main())


def test_the_factory_fails(loop, run):
    async def main():
        def factory():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await loop.create_datagram_endpoint(factory, LOOPBACK)
        sock = socket.socket(type=socket.SOCK_DGRAM)
        with pytest.raises(ZeroDivisionError):
            await loop.create_datagram_endpoint(factory, sock=sock)
        assert sock.fileno() != -1, "the caller's"
        sock.close()

    run(main())


def test_cancelled_while_it_begins(loop, run):
    async def main():
        made = []

        def factory():
            made.append(Recorder())
            asyncio.current_task().cancel()
            return made[0]

        task = loop.create_task(loop.create_datagram_endpoint(factory, LOOPBACK))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await made[0].lost is None

    run(main())


def test_debug_mode_logs_it(loop, run, caplog):
    async def main():
        loop.set_debug(True)
        with caplog.at_level(logging.DEBUG, "asyncio"):
            transport, protocol = await loop.create_datagram_endpoint(Recorder, LOOPBACK)
            address = transport.get_extra_info("sockname")
            _, other = await loop.create_datagram_endpoint(Recorder, remote_addr=address)
        texts = [text for text in caplog.messages if text.startswith("Datagram endpoint")]
        assert texts[0].startswith(f"Datagram endpoint local_addr={LOOPBACK} remote_addr=None created: (<")
        assert texts[1].startswith(f"Datagram endpoint remote_addr={address} created: (<")
        loop.set_debug(False)
        await closed(protocol, other)

    run(main())
