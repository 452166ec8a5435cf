"""sock_recvfrom, sock_recvfrom_into, sock_sendto."""

import asyncio
import contextlib
import os
import socket
import struct

import pytest

from .support import unix_pair

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")


def bound(family, address):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(address)
    return sock


def inet(tmp_path):
    return bound(socket.AF_INET, ("127.0.0.1", 0))


def inet6(tmp_path):
    return bound(socket.AF_INET6, ("::1", 0))


def path(tmp_path):
    return bound(socket.AF_UNIX, str(tmp_path / f"s\udcff{len(list(tmp_path.iterdir()))}"))


def abstract(tmp_path):
    return bound(socket.AF_UNIX, b"\0" + os.urandom(8))


@pytest.fixture(params=[inet, pytest.param(inet6, marks=needs_ipv6), path, abstract])
def ends(request, tmp_path):
    """Two bound datagram sockets of each family."""
    with request.param(tmp_path) as near, request.param(tmp_path) as far:
        yield near, far


@pytest.fixture
def udp(tmp_path):
    with inet(tmp_path) as near, inet(tmp_path) as far:
        yield near, far


def test_datagrams_come_with_their_sender(loop, run, ends):
    near, far = ends

    async def main():
        assert await loop.sock_sendto(near, b"hello", far.getsockname()) == 5
        assert await loop.sock_recvfrom(far, 100) == (b"hello", near.getsockname())
        buffer = bytearray(8)
        await loop.sock_sendto(far, memoryview(b"back"), near.getsockname())
        assert await loop.sock_recvfrom_into(near, buffer) == (4, far.getsockname())
        assert buffer == b"back\0\0\0\0"

    run(main())


def test_a_receive_waits(loop, run, ends):
    near, far = ends

    async def main():
        buffer = bytearray(10)
        for receiving in (loop.sock_recvfrom(far, 10), loop.sock_recvfrom_into(far, buffer)):
            task = asyncio.create_task(receiving)
            await asyncio.sleep(0)
            assert not task.done()
            near.sendto(b"later", far.getsockname())
            assert await task in [(b"later", near.getsockname()), (5, near.getsockname())]
        assert buffer == b"later" + bytes(5)

    run(main())


def test_empty_datagrams(loop, run, ends):
    near, far = ends

    async def main():
        assert await loop.sock_sendto(near, b"", far.getsockname()) == 0
        assert await loop.sock_recvfrom(far, 10) == (b"", near.getsockname())
        assert await loop.sock_sendto(near, b"", far.getsockname()) == 0
        assert await loop.sock_recvfrom_into(far, bytearray(1)) == (0, near.getsockname())

    run(main())


@pytest.mark.parametrize("limit", [0, 1, 999, 1000, 16 * 1024, 16 * 1024 + 1, 1 << 20])
def test_what_does_not_fit_is_cut_off(loop, run, udp, limit):
    near, far = udp

    async def main():
        data = os.urandom(1000)
        for _ in range(2):
            await loop.sock_sendto(near, data, far.getsockname())
        assert await loop.sock_recvfrom(far, limit) == (data[:limit], near.getsockname())
        buffer = bytearray(1 << 20)
        size, _ = await loop.sock_recvfrom_into(far, buffer, limit)
        assert size == (min(limit, 1000) or 1000)  # Zero means the whole buffer.
        assert buffer[:1001] == data[:size] + bytes(1001 - size)

    run(main())


def test_into_an_empty_buffer(loop, run, udp):
    near, far = udp

    async def main():
        await loop.sock_sendto(near, b"gone", far.getsockname())
        await loop.sock_sendto(near, b"next", far.getsockname())
        assert await loop.sock_recvfrom_into(far, bytearray()) == (0, near.getsockname())
        assert (await loop.sock_recvfrom(far, 10))[0] == b"next"

    run(main())


def test_an_unnamed_sender(loop, run, tmp_path):
    with path(tmp_path) as far, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as near:
        near.setblocking(False)

        async def main():
            await loop.sock_sendto(near, b"anonymous", far.getsockname())
            assert await loop.sock_recvfrom(far, 10) == (b"anonymous"[:10], None)

        run(main())


def test_a_stream_names_no_sender(loop, run):
    near, far = unix_pair()
    with near, far:
        far.send(b"data")
        assert run(loop.sock_recvfrom(near, 10)) == (b"data", None)
        far.send(b"data")
        assert run(loop.sock_recvfrom_into(near, bytearray(10))) == (4, None)


def test_another_family(loop, run):
    """Netlink: the socket object's own addresses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.setblocking(False)
        sock.bind((0, 0))
        # A request for all links (RTM_GETLINK), answered by the kernel, whose address is (0, 0).
        request = struct.pack("=LHHLLBxHiLL", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0)

        async def main():
            receiving = asyncio.create_task(loop.sock_recvfrom(sock, 1 << 16))
            await asyncio.sleep(0)
            assert not receiving.done()
            assert await loop.sock_sendto(sock, request, (0, 0)) == len(request)
            data, sender = await receiving
            assert data and sender == (0, 0)
            while struct.unpack_from("=LH", data)[1] != 3:  # NLMSG_DONE
                data = (await loop.sock_recvfrom(sock, 1 << 16))[0]
            await loop.sock_sendto(sock, request, (0, 0))
            size, sender = await loop.sock_recvfrom_into(sock, bytearray(1 << 16))
            assert size > 0 and sender == (0, 0)

        run(main())


@needs_ipv6
def test_ipv6_addresses(loop, run, tmp_path):
    with inet6(tmp_path) as near, inet6(tmp_path) as far:
        host, port, _, _ = far.getsockname()

        async def main():
            for address in [(host, port), (host, port, 0), (host, port, 0, 0), ("::0:1", port)]:
                await loop.sock_sendto(near, b"x", address)
                assert await loop.sock_recvfrom(far, 1) == (b"x", near.getsockname())
            for address, error in [
                ((host, port, 1 << 20), OverflowError),
                (("127.0.0.1", port), OSError),
                ((host,), TypeError),
                ((host, port, 0, 0, 0), TypeError),
            ]:
                with pytest.raises(error):
                    await loop.sock_sendto(near, b"x", address)

        run(main())


def test_addresses_that_only_the_socket_module_knows(loop, run, udp):
    near, far = udp
    port = far.getsockname()[1]

    async def main():
        for host in ("localhost", "127.1", "127.0.0.1"):
            await loop.sock_sendto(near, host.encode(), (host, port))
            assert (await loop.sock_recvfrom(far, 20))[0] == host.encode()

    run(main())


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("127.0.0.1", 1 << 16), OverflowError),
        (("127.0.0.1", -1), OverflowError),
        (("127.0.0.1", "1"), TypeError),
        (("127.0.0.1",), TypeError),
        (("127.0.0.1", 1, 0), TypeError),
        (("::1", 1), OSError),
        ("127.0.0.1", TypeError),
        (None, TypeError),
    ],
)
def test_bad_addresses_are_refused_as_the_socket_module_does(loop, run, udp, address, error):
    near, _ = udp
    with pytest.raises(error) as theirs:
        near.sendto(b"x", address)
    with pytest.raises(error) as ours:
        run(loop.sock_sendto(near, b"x", address))
    assert ours.type is theirs.type and str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("method", "args", "error", "text"),
    [
        ("sock_recvfrom", (-1,), ValueError, "negative buffersize in recvfrom"),
        ("sock_recvfrom", ("1",), TypeError, None),
        ("sock_recvfrom_into", (bytearray(1), -1), ValueError, "negative buffersize in recvfrom_into"),
        ("sock_recvfrom_into", (bytearray(1), 2), ValueError, "nbytes is greater than the length"),
        ("sock_recvfrom_into", (b"read-only",), (TypeError, BufferError), None),
        ("sock_sendto", ("text", ("127.0.0.1", 1)), TypeError, None),
    ],
)
def test_bad_arguments(loop, run, udp, method, args, error, text):
    near, _ = udp

    async def main():
        await getattr(loop, method)(near, *args)

    with pytest.raises(error, match=text):
        run(main())


def test_debug_mode_wants_non_blocking_sockets(loop, run, udp):
    near, _ = udp
    near.setblocking(True)
    loop.set_debug(True)
    for call in (
        loop.sock_recvfrom(near, 1),
        loop.sock_recvfrom_into(near, bytearray(1)),
        loop.sock_sendto(near, b"", ("127.0.0.1", 1)),
    ):
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            run(call)


def test_a_closed_socket(loop, run, udp):
    near, _ = udp
    near.close()
    for call in (
        loop.sock_recvfrom(near, 1),
        loop.sock_recvfrom_into(near, bytearray(1)),
        loop.sock_sendto(near, b"", ("127.0.0.1", 1)),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            run(call)


def test_errors_of_the_network(loop, run, udp):
    near, far = udp

    async def main():
        with pytest.raises(OSError, match="too long"):
            await loop.sock_sendto(near, bytes(70000), far.getsockname())
        near.connect(far.getsockname())
        far.close()
        near.send(b"nobody listens")
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_recvfrom(near, 1)

    run(main())


def test_a_send_waits_for_room(loop, run, tmp_path):
    with path(tmp_path) as near, path(tmp_path) as far:
        near.connect(far.getsockname())
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(b"%d" % sent)
                sent += 1

        async def main():
            sending = asyncio.create_task(loop.sock_sendto(near, b"last", far.getsockname()))
            await asyncio.sleep(0)
            assert not sending.done()
            for n in range(sent):
                assert (await loop.sock_recvfrom(far, 10))[0] == b"%d" % n
            assert await sending == 4
            assert (await loop.sock_recvfrom(far, 10))[0] == b"last"

        run(main())


def test_a_cancelled_receive_loses_no_datagram(loop, run, udp):
    """Cancelled at every moment: before, while and after one comes."""
    near, far = udp

    async def main():
        got = []
        for n in range(200):
            task = asyncio.create_task(loop.sock_recvfrom(far, 100))
            if n % 3:
                await asyncio.sleep(0)
            near.sendto(b"%03d" % n, far.getsockname())
            for _ in range(n % 5):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got.append((await task)[0])
        while len(got) < 200:
            got.append((await loop.sock_recvfrom(far, 100))[0])
        assert got == [b"%03d" % n for n in range(200)]

    run(main())


def test_a_buffer_is_released(loop, run, udp):
    _, far = udp

    async def main():
        buffer = bytearray(10)
        task = asyncio.create_task(loop.sock_recvfrom_into(far, buffer))
        await asyncio.sleep(0)
        with pytest.raises(BufferError):
            buffer.append(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        buffer.append(0)
        assert len(buffer) == 11

    run(main())
