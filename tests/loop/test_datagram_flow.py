"""Datagrams that the kernel does not take at once: the queue, flow control, and the end of a transport with a queue."""

import asyncio
import errno
import socket

import pytest

from .datagrams import Recorder, plain, unix_datagram_pair

# Of linux/in6.h; the socket module does not know it.
IPV6_MTU = 24


def fill(transport, size=1000):
    """Send until the kernel refuses; how many datagrams were sent or queued."""
    count = 0
    while not transport.get_write_buffer_size():
        transport.sendto(count.to_bytes(4) + bytes(size - 4))
        count += 1
    return count


async def drain(sock, count):
    loop = asyncio.get_running_loop()
    return [int.from_bytes((await loop.sock_recv(sock, 1 << 18))[:4]) for _ in range(count)]


def test_refused_datagrams_are_queued_and_sent_later(run, endpoint):
    async def main():
        near, far = unix_datagram_pair()
        with far:
            transport, protocol = await endpoint(None, sock=near)
            count = fill(transport)
            assert transport.get_write_buffer_size() == 1008, "asyncio counts 8 bytes more for each"
            transport.sendto(b"")
            assert transport.get_write_buffer_size() == 1016
            while "pause" not in protocol.log:
                transport.sendto(count.to_bytes(4) + bytes(996))
                count += 1
            assert transport.get_write_buffer_size() > 65536
            got = await drain(far, count + 1)
            await protocol.event("resume")
            assert transport.get_write_buffer_size() == 0
            assert [number for number in got if number] == list(range(1, count))
            assert protocol.log == ["made", "pause", "resume"]

    run(main())


@pytest.mark.parametrize("count", [10_000])
def test_ten_thousand_both_ways_and_none_is_lost(run, endpoint, count):
    class Paced(Recorder):
        def __init__(self):
            super().__init__()
            self.may_send = asyncio.Event()
            self.may_send.set()

        def pause_writing(self):
            self.may_send.clear()

        def resume_writing(self):
            self.may_send.set()

        async def send_all(self):
            for number in range(count):
                await self.may_send.wait()
                self.transport.sendto(number.to_bytes(4) + bytes(number % 700))

    async def main():
        near, far = unix_datagram_pair()
        _, first = await endpoint(Paced(), sock=near)
        _, second = await endpoint(Paced(), sock=far)
        async with asyncio.TaskGroup() as group:
            for protocol in (first, second):
                group.create_task(protocol.send_all())
                group.create_task(protocol.received(count))
        for protocol in (first, second):
            assert [int.from_bytes(data[:4]) for data, _ in protocol.got] == list(range(count))
            assert all(len(data) == 4 + number % 700 for number, (data, _) in enumerate(protocol.got))
            assert {addr for _, addr in protocol.got} == {None}

    run(main())


def test_an_echo_under_pressure_loses_nothing(run, endpoint):
    """Answers of a batch that the kernel does not take wait as any others."""

    class Echo(Recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(data)

    async def main():
        near, far = unix_datagram_pair()
        loop = asyncio.get_running_loop()
        with far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            transport, protocol = await endpoint(Echo(), sock=near)

            async def send():
                for number in range(2000):
                    await loop.sock_sendall(far, number.to_bytes(4) + bytes(300))

            sending = loop.create_task(send())
            got = await drain(far, 2000)
            await sending
            assert got == list(range(2000))
            assert transport.get_write_buffer_size() == 0
            assert protocol.errors == []

    run(main())


def test_close_sends_what_is_queued(run, endpoint):
    async def main():
        near, far = unix_datagram_pair()
        with far:
            transport, protocol = await endpoint(None, sock=near)
            count = fill(transport)
            for number in range(count, count + 50):
                transport.sendto(number.to_bytes(4))
            transport.close()
            transport.sendto((count + 50).to_bytes(4))
            assert "lost" not in protocol.log
            assert await drain(far, count + 51) == list(range(count + 51))
            await protocol.event("lost")
            assert protocol.lost_with == [None]

    run(main())


def test_abort_discards_the_queue(run, endpoint):
    async def main():
        near, far = unix_datagram_pair()
        with far:
            transport, protocol = await endpoint(None, sock=near)
            count = fill(transport)
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await protocol.event("lost")
            assert await drain(far, count - 1) == list(range(count - 1))
            with pytest.raises(BlockingIOError):
                far.recv(10)

    run(main())


def test_the_receiver_goes_away_while_datagrams_are_queued(run, endpoint):
    async def main():
        near, far = unix_datagram_pair()
        transport, protocol = await endpoint(None, sock=near)
        fill(transport)
        for _ in range(5):
            transport.sendto(b"more")
        transport.close()
        far.close()
        await protocol.event("lost")
        assert len(protocol.errors) == 6
        assert all(
            exc.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN) for exc in protocol.errors
        )

    run(main())


def test_mutable_data_is_copied_before_it_waits(run, endpoint):
    async def main():
        near, far = unix_datagram_pair()
        with far:
            transport, _ = await endpoint(None, sock=near)
            count = fill(transport)
            data = bytearray((count).to_bytes(4))
            transport.sendto(data)
            transport.sendto(memoryview(data))
            data[:] = b"\xff" * 4
            assert (await drain(far, count + 2))[-2:] == [count, count]

    run(main())


def test_limits(run, endpoint):
    async def main():
        near, far = unix_datagram_pair()
        with far:
            transport, protocol = await endpoint(None, sock=near)
            assert transport.get_write_buffer_limits() == (16384, 65536)
            transport.set_write_buffer_limits(0)
            assert transport.get_write_buffer_limits() == (0, 0)
            with pytest.raises(ValueError, match=r"^high \(1\) must be >= low \(2\) must be >= 0$"):
                transport.set_write_buffer_limits(high=1, low=2)
            count = fill(transport)
            assert protocol.log == ["made", "pause"]
            await drain(far, count)
            await protocol.event("resume")

    run(main())


def test_a_full_receiver_that_is_not_connected(run, endpoint, tmp_path):
    """A Unix socket counts as writable even though the receiver that refused it is full."""

    async def main():
        path = str(tmp_path / "receiver")
        with plain(path, socket.AF_UNIX) as receiver:
            receiver.setblocking(False)
            transport, protocol = await endpoint(None, family=socket.AF_UNIX)
            count = 0
            while not transport.get_write_buffer_size():
                transport.sendto(count.to_bytes(4), path)
                count += 1
            for _ in range(20):
                transport.sendto(count.to_bytes(4), path)
                count += 1
            assert await drain(receiver, count) == list(range(count))
            await asyncio.sleep(0)
            assert protocol.errors == []

    run(main())


@pytest.mark.skipif(not socket.has_ipv6, reason="what provokes it is an option of IPv6 only")
def test_no_buffers_is_reported_and_the_next_ones_are_sent(run, endpoint):
    """ENOBUFS is an error like any other, not a reason to wait, as on asyncio.

    The kernel gives it, and nothing else, when a datagram must be cut into fragments that the send buffer has no room for.
    """
    large, small = bytes(9000), b"small"

    class Answers(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(large, addr)
            self.transport.sendto(data, addr)

    def make():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, 1280)
        sock.bind(("::1", 0))
        return sock

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await endpoint(Answers(), sock=make())
        with plain(("::1", 0), socket.AF_INET6) as peer:
            peer.setblocking(False)
            transport.sendto(large, peer.getsockname())
            assert [exc.errno for exc in protocol.errors] == [errno.ENOBUFS]
            transport.sendto(small, peer.getsockname())
            assert await loop.sock_recv(peer, 9000) == small
            # Answered at once, and out of a batch.
            for count in (1, 5):
                for number in range(count):
                    peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
                got = [await loop.sock_recv(peer, 9000) for _ in range(count)]
                assert got == [b"%d" % number for number in range(count)]
        assert [exc.errno for exc in protocol.errors] == [errno.ENOBUFS] * 7
        assert protocol.log.count("pause") == 0
        assert transport.get_write_buffer_size() == 0
        assert not transport.is_closing()

    run(main())
