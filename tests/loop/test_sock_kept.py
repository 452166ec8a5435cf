"""What the registrations that sock_* keep between waits must not break: numbers used again, other users, ends."""

import asyncio
import contextlib
import gc
import os
import re
import socket
import weakref
from pathlib import Path

import pytest

import tokioloop

from .support import Recorder, collected, receive_exactly, reset, tcp_pair, unix_pair

PAIRS = pytest.mark.parametrize("make", [tcp_pair, unix_pair], ids=["tcp", "unix"])


def registered() -> dict[int, int]:
    """The descriptors that the process's epoll instances know, with their events."""
    found = {}
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except OSError:
            continue
        for number, events in re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", text):
            found[int(number)] = int(events, 16)
    return found


def dead_references() -> int:
    return sum(type(it) is weakref.ref and it() is None for it in gc.get_objects())


async def waiting(coro):
    """A task that runs *coro* and has come to wait."""
    task = asyncio.ensure_future(coro)
    await asyncio.sleep(0)
    return task


async def exchange(loop, near, far, data=b"data"):
    """One receive that waits."""
    task = await waiting(loop.sock_recv(near, 1000))
    assert not task.done()
    far.send(data)
    assert await task == data


async def move(sock, number):
    """*sock* under another number, which nobody has."""
    if sock.fileno() != number:
        os.dup2(sock.fileno(), number)
        sock.close()
        sock = socket.socket(fileno=number)
        sock.setblocking(False)
    return sock


def test_a_registration_stays_and_grows(loop, run, pair):
    near, far = pair
    edge, readable, writable = 1 << 31, 1, 4

    async def main():
        await exchange(loop, near, far)
        first = registered()[near.fileno()]
        assert first & edge and first & readable and not first & writable
        await exchange(loop, near, far)
        assert registered()[near.fileno()] == first
        sending = await waiting(loop.sock_sendall(near, bytes(4 << 20)))
        assert registered()[near.fileno()] == first | writable
        await receive_exactly(far, 4 << 20)
        await sending
        await exchange(loop, near, far)

    run(main())


@PAIRS
def test_a_number_used_again_many_times(loop, run, make):
    async def main():
        old, far = make()
        number = old.fileno()
        objects = []
        for n in range(100):
            await exchange(loop, old, far, b"%d" % n)
            if n % 2:
                objects.append(old)  # Alive, but closed.
            old.close()
            far.close()
            old, far = make()
            old = await move(old, number)
        old.close()
        far.close()

    run(main())


@PAIRS
@pytest.mark.parametrize("end", ["close", "detach", "forget"])
def test_a_number_used_again_while_the_old_call_waits(loop, run, make, end):
    async def main():
        old, old_far = make()
        number = old.fileno()
        await exchange(loop, old, old_far)
        stale = await waiting(loop.sock_recv(old, 10))
        if end == "detach":
            os.close(old.detach())
        else:
            old.close()
        old_far.close()
        if end == "forget":
            del old
        near, far = make()
        near = await move(near, number)
        await exchange(loop, near, far)
        stale.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stale
        await exchange(loop, near, far)
        near.close()
        far.close()

    run(main())


@PAIRS
def test_the_old_readiness_is_not_the_new_sockets(loop, run, make):
    """An edge on its way when the socket is closed and its number used again wakes nobody in vain, and hides nothing."""

    async def main():
        old, old_far = make()
        number = old.fileno()
        await exchange(loop, old, old_far)
        old_far.send(b"for the old one")
        old.close()
        near, far = make()
        near = await move(near, number)
        await exchange(loop, near, far)
        for sock in (old_far, near, far):
            sock.close()

    run(main())


@PAIRS
def test_a_duplicate_keeps_the_kernels_registration(loop, run, make):
    """The first number is closed, the file lives on: its events must not be taken for those of the number's next owner."""

    async def main():
        old, old_far = make()
        number = old.fileno()
        await exchange(loop, old, old_far)
        duplicate = old.dup()
        duplicate.setblocking(False)
        old.close()
        near, far = make()
        near = await move(near, number)
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 10))
        for _ in range(5):
            old_far.send(b"old")
            await asyncio.sleep(0)
            assert await loop.sock_recv(duplicate, 10) == b"old"
            assert not task.done()
        far.send(b"new")
        assert await task == b"new"
        await exchange(loop, duplicate, old_far)
        for sock in (duplicate, old_far, near, far):
            sock.close()

    run(main())


def test_another_object_of_the_same_number(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        second = socket.socket(fileno=os.dup(near.fileno()))
        second.setblocking(False)
        await exchange(loop, second, far)
        await exchange(loop, near, far)
        third = socket.socket(fileno=second.detach())
        third.setblocking(False)
        await exchange(loop, third, far)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await loop.sock_recv(second, 1)
        third.close()
        await exchange(loop, near, far)

    run(main())


@pytest.mark.parametrize("moment", range(4))
def test_cancelled_and_called_again(loop, run, pair, moment):
    near, far = pair

    async def main():
        got = bytearray()
        for n in range(100):
            task = await waiting(loop.sock_recv(near, 100))
            if n % 3 == 0:
                far.send(b"%03d" % n)
            for _ in range(moment):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += await task
        far.send(b"end")
        while not got.endswith(b"end"):
            got += await loop.sock_recv(near, 1000)
        assert got == b"".join(b"%03d" % n for n in range(0, 100, 3)) + b"end"

    run(main())


def test_cancelled_while_sending_and_called_again(loop, run, pair):
    near, far = pair

    async def main():
        task = await waiting(loop.sock_sendall(near, bytes(4 << 20)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await waiting(loop.sock_sendall(near, b"end"))
        got = bytearray()
        while not got.endswith(b"end"):
            got += await loop.sock_recv(far, 1 << 18)
        await again

    run(main())


def test_the_next_of_two_calls_replaces_the_first(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        first = await waiting(loop.sock_recv(near, 10))
        second = await waiting(loop.sock_recv(near, 10))
        far.send(b"data")
        assert await second == b"data"
        assert not first.done()
        first.cancel()
        await exchange(loop, near, far)

    run(main())


@pytest.mark.parametrize("short", [True, False])
def test_a_peer_that_writes_between_a_short_read_and_the_next_wait(loop, run, pair, short):
    near, far = pair

    async def main():
        buffer = bytearray(100)
        for n in range(200):
            task = await waiting(loop.sock_recv(near, 100 if short else 4))
            far.send(b"%04d" % n)
            assert await task == b"%04d" % n
            far.send(b"next")
            if n % 2:
                await asyncio.sleep(0)
            assert await loop.sock_recv_into(near, buffer) == 4
            # Nothing is left: waits, and gets what comes in the same turn.
            task = asyncio.ensure_future(loop.sock_recv(near, 100))
            loop.call_soon(far.send, b"last")
            assert await task == b"last"

    run(main())


@PAIRS
@pytest.mark.parametrize("turns", range(3))
@pytest.mark.parametrize("way", ["half-close", "close"])
def test_the_end_after_a_short_read(loop, run, make, turns, way):
    """It is the last edge: who reads a little, and again, must see it."""

    async def main():
        near, far = make()
        with near, far:
            await exchange(loop, near, far)
            task = await waiting(loop.sock_recv(near, 100))
            far.send(b"last")
            if turns == 0:
                far.shutdown(socket.SHUT_WR)
            assert await task == b"last"
            if turns == 1:
                far.shutdown(socket.SHUT_WR)
            if turns == 2:
                task = await waiting(loop.sock_recv(near, 100))
                far.shutdown(socket.SHUT_WR) if way == "half-close" else far.close()
                assert await task == b""
            for _ in range(3):
                assert await loop.sock_recv(near, 100) == b""
            if way == "half-close":
                await loop.sock_sendall(near, b"still open")
                assert await loop.sock_recv(far, 100) == b"still open"

    run(main())


def test_shut_down_here_while_it_waits(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 100))
        near.shutdown(socket.SHUT_RDWR)
        assert await task == b""
        assert await loop.sock_recv(near, 100) == b""

    run(main())


@pytest.mark.parametrize("early", [True, False])
def test_a_reset_after_a_short_read(loop, run, early):
    async def main():
        near, far = tcp_pair()
        with near:
            await exchange(loop, near, far)
            if early:
                reset(far)
                await asyncio.sleep(0)
            task = await waiting(loop.sock_recv(near, 100))
            if not early:
                reset(far)
            with pytest.raises(ConnectionResetError):
                await task

    run(main())


def test_a_reset_wakes_reader_and_writer(loop, run):
    async def main():
        near, far = tcp_pair()
        with near:
            await exchange(loop, near, far)
            reading = await waiting(loop.sock_recv(near, 100))
            writing = await waiting(loop.sock_sendall(near, bytes(8 << 20)))
            reset(far)
            # One takes the error off the socket, the other sees the end.
            ends = await asyncio.gather(reading, writing, return_exceptions=True)
            assert ends[0] == b"" or isinstance(ends[0], ConnectionError)
            assert isinstance(ends[1], ConnectionError)

    run(main())


@pytest.mark.parametrize("inline", [True, False])
def test_urgent_data_ends_a_read_early(loop, run, inline):
    async def main():
        near, far = tcp_pair()
        with near, far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
            await exchange(loop, near, far)
            task = await waiting(loop.sock_recv(near, 100))
            far.send(b"before")
            far.send(b"!", socket.MSG_OOB)
            far.send(b"after")
            got = await task
            wanted = b"before!after" if inline else b"beforeafter"
            while len(got) < len(wanted):
                got += await loop.sock_recv(near, 100)
            assert got == wanted

    run(main())


def test_a_low_water_mark(loop, run):
    """The kernel reports nothing below it, but a call takes what is there."""

    async def main():
        near, far = tcp_pair()
        with near, far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
            await exchange(loop, near, far, b"0123456789")
            for _ in range(3):
                far.send(b"01")
                assert await loop.sock_recv(near, 100) == b"01"

    run(main())


def test_somebody_else_reads_the_socket(loop, run, pair):
    """Directly, by another object and by another loop: what is left is received, and nothing is waited for in vain."""
    near, far = pair
    other = tokioloop.TokioLoop()

    async def main():
        await exchange(loop, near, far)
        for n in range(50):
            far.send(b"%02d" % n)
            await asyncio.sleep(0)
            assert near.recv(1) == b"%d" % (n // 10)
            assert await loop.sock_recv(near, 10) == b"%d" % (n % 10)
        for _ in range(50):
            far.send(b"x")
            await asyncio.sleep(0)
            assert near.recv(10) == b"x"
        await exchange(loop, near, far)

    async def elsewhere():
        for _ in range(50):
            await exchange(other, near, far)

    run(main())
    other.run_until_complete(elsewhere())
    run(main())
    other.close()


def test_what_nobody_heeds_is_let_go(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        assert near.fileno() in registered()
        sent = 0
        while near.fileno() in registered():
            far.send(b"x")
            sent += 1
            await asyncio.sleep(0)
        assert sent > 2
        assert await receive_exactly(near, sent) == b"x" * sent
        await exchange(loop, near, far)

    run(main())


def test_what_is_read_without_waiting_stays_registered(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        for limit in (4, 100):
            for _ in range(100):
                far.send(b"data")
                await asyncio.sleep(0)
                assert await loop.sock_recv(near, limit) == b"data"
        assert near.fileno() in registered()

    run(main())


def test_mixed_with_callbacks(loop, run, pair):
    near, far = pair

    async def main():
        for n in range(20):
            await exchange(loop, near, far)
            called = loop.create_future()
            loop.add_reader(near, lambda called=called: called.done() or called.set_result(near.recv(10)))
            far.send(b"callback")
            assert await called == b"callback"
            if n % 2:
                await loop.sock_sendall(near, b"x")
                assert await loop.sock_recv(far, 10) == b"x"
            assert loop.remove_reader(near) is True
            assert loop.remove_reader(near) is False
            await exchange(loop, near, far)
            loop.add_writer(near, lambda: loop.remove_writer(near))
            await exchange(loop, near, far)
            assert loop.remove_writer(near) is False
            task = await waiting(loop.sock_recv(near, 10))
            loop.add_writer(near.fileno(), lambda: loop.remove_writer(near.fileno()))
            far.send(b"both")
            assert await task == b"both"

    run(main())


def test_a_callback_replaces_a_waiting_call(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 10))
        called = loop.create_future()
        loop.add_reader(near, lambda: called.done() or called.set_result(near.recv(10)))
        far.send(b"data")
        assert await called == b"data"
        assert not task.done()
        task.cancel()
        assert loop.remove_reader(near) is True

    run(main())


def test_given_to_a_transport(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        await exchange(loop, near, far)
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        with pytest.raises(RuntimeError, match="used by transport"):
            await loop.sock_recv(near, 1)
        transport.write(b"answer")
        assert await loop.sock_recv(far, 10) == b"answer"
        transport.close()
        await protocol.lost()

    run(main())


def test_given_to_a_transport_while_a_call_waits(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        task = await waiting(loop.sock_recv(near, 10))
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        transport.close()
        await protocol.lost()

    run(main())


def test_given_to_a_transport_and_back(loop, run, pair):
    near, far = pair

    async def main():
        for n in range(30):
            kept = socket.socket(fileno=os.dup(near.fileno()))
            kept.setblocking(False)
            await exchange(loop, kept, far)
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda protocol=protocol: protocol, sock=kept)
            far.send(b"data")
            assert await protocol.received(4) == b"data"
            transport.abort()
            await protocol.lost()
            if n % 3 == 0:
                await exchange(loop, near, far)

    run(main())


def test_thousands_of_sockets_come_and_go(loop, run):
    """At once and one after the other; neither descriptors nor what the loop notes of them pile up."""

    async def main():
        before = len(os.listdir("/proc/self/fd")), dead_references()
        for _ in range(3):
            pairs = [unix_pair() for _ in range(400)]
            tasks = [await waiting(loop.sock_recv(near, 10)) for near, _ in pairs]
            for _, far in pairs:
                far.send(b"x")
            assert await asyncio.gather(*tasks) == [b"x"] * len(pairs)
            for pair in pairs:
                for sock in pair:
                    sock.close()
        del pairs, pair, sock, far
        for n in range(1000):
            near, far = unix_pair()
            await exchange(loop, near, far)
            if n % 2:
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
                transport.abort()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            near.close()
            far.close()
        del near, far
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before[0] + 10
        assert dead_references() - before[1] < 200

    run(main())


def test_nothing_is_kept_alive(loop, run):
    references = []

    async def main():
        near, far = unix_pair()
        await exchange(loop, near, far)
        references.append(weakref.ref(near))
        near.close()
        far.close()

    run(main())
    assert collected(references[0])
    near, far = unix_pair()
    loop.run_until_complete(exchange(loop, near, far))
    reference = weakref.ref(loop)
    assert reference() is not None
    loop.close()
    other = tokioloop.TokioLoop()
    other.run_until_complete(exchange(other, near, far))
    reference = weakref.ref(other)
    other.close()
    del other
    assert collected(reference)
    near.close()
    far.close()


def test_a_call_dropped_while_it_waits(loop, run, pair):
    near, far = pair

    async def main():
        await exchange(loop, near, far)
        call = loop.sock_recv(near, 10)
        call.send(None)
        del call
        await exchange(loop, near, far)

    run(main())


def test_a_socket_of_another_class(loop, run, pair):
    class Mine(socket.socket):
        pass

    near, far = pair

    async def main():
        mine = Mine(fileno=os.dup(near.fileno()))
        mine.setblocking(False)
        for _ in range(5):
            await exchange(loop, mine, far)
            await exchange(loop, near, far)
        mine.close()

    run(main())


def test_a_datagram_socket_waits_for_room_at_its_receiver(loop, run, tmp_path):
    """It has no edge for that: the loop looks again and again, as asyncio does."""

    async def main():
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there,
        ):
            here.setblocking(False)
            there.setblocking(False)
            there.bind(str(tmp_path / "there"))
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    here.sendto(b"x", str(tmp_path / "there"))
                    sent += 1
            task = await waiting(loop.sock_sendto(here, b"last", str(tmp_path / "there")))
            for _ in range(sent):
                assert await loop.sock_recv(there, 10) == b"x"
            assert await task == 4
            assert await loop.sock_recv(there, 10) == b"last"

    run(main())


def test_awaited_in_a_task_of_its_own_and_by_name(loop, run, pair):
    near, far = pair

    async def main():
        far.send(b"data")
        assert await loop.create_task(loop.sock_recv(near, 10)) == b"data"
        assert await loop.create_task(loop.sock_sendall(sock=near, data=b"x")) is None
        assert await loop.sock_recv(far, n=10) == b"x"
        for wrong in [(), (near,), (near, 1, 2)]:
            with pytest.raises(TypeError):
                loop.sock_recv(*wrong)
        with pytest.raises(TypeError):
            loop.sock_recv(near, limit=1)
        with pytest.raises(TypeError):
            loop.sock_recv(near, 1, n=1)

    run(main())
