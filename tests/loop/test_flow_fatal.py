"""Errors that leave the run from pause_writing() and resume_writing(): the connection goes on or ends all the same."""

import asyncio
import socket
import sys
from collections.abc import Callable

import pytest

import tokioloop

#: More than a socket takes at once.
LARGE = bytes(4_000_000)


class Interrupted(asyncio.Protocol):
    """Raises once from one of its methods."""

    def __init__(self, method: str, error: type[BaseException]) -> None:
        self.method: str | None = method
        self.error = error
        self.lost = False

    def _maybe(self, method: str) -> None:
        if self.method == method:
            self.method = None
            raise self.error

    def pause_writing(self) -> None:
        self._maybe("pause_writing")

    def resume_writing(self) -> None:
        self._maybe("resume_writing")

    def data_received(self, data: bytes) -> None:
        raise ValueError("of the program")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def read_all(event_loop: asyncio.AbstractEventLoop, peer: socket.socket) -> bytes:
    async def read() -> bytes:
        got = bytearray()
        while piece := await event_loop.sock_recv(peer, 1 << 20):
            got += piece
        return bytes(got)

    return event_loop.run_until_complete(asyncio.wait_for(read(), 20))


def connected(protocol: asyncio.Protocol) -> tuple[tokioloop.TokioLoop, asyncio.Transport, socket.socket]:
    event_loop = tokioloop.TokioLoop()
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    transport, _ = event_loop.run_until_complete(event_loop.connect_accepted_socket(lambda: protocol, ours))
    return event_loop, transport, peer


def read_though_interrupted(
    event_loop: tokioloop.TokioLoop, peer: socket.socket, error: type[BaseException]
) -> bytes:
    """The bytes that the peer gets until the end, while one error leaves the run."""
    got = bytearray()

    async def read() -> None:
        while piece := await event_loop.sock_recv(peer, 1 << 20):
            got.extend(piece)

    reading = event_loop.create_task(read())
    with pytest.raises(error):
        event_loop.run_until_complete(reading)
    event_loop.run_until_complete(asyncio.wait_for(reading, 20))
    return bytes(got)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("end", [asyncio.Transport.close, asyncio.Transport.write_eof])
def test_a_connection_ends_though_resume_writing_left_the_run(
    error: type[BaseException], end: Callable[[asyncio.Transport], None]
) -> None:
    protocol = Interrupted("resume_writing", error)
    event_loop, transport, peer = connected(protocol)
    transport.write(LARGE)
    getattr(transport, end.__name__)()
    assert read_though_interrupted(event_loop, peer, error) == LARGE
    transport.close()
    event_loop.run_until_complete(asyncio.sleep(0))
    event_loop.run_until_complete(asyncio.sleep(0))
    assert protocol.lost
    event_loop.close()
    peer.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_many_pieces_are_sent_though_pause_writing_left_the_call(error: type[BaseException]) -> None:
    protocol = Interrupted("pause_writing", error)
    event_loop, transport, peer = connected(protocol)
    transport.set_write_buffer_limits(0)
    with pytest.raises(error):
        transport.writelines([b"x"] * 5000)
    transport.close()
    assert read_all(event_loop, peer) == b"x" * 5000
    event_loop.run_until_complete(asyncio.sleep(0))
    assert protocol.lost
    event_loop.close()
    peer.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_connection_ends_though_the_report_of_its_error_left_the_run(error: type[BaseException]) -> None:
    def handle(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        raise error

    protocol = Interrupted("", error)
    event_loop, _, peer = connected(protocol)
    event_loop.set_exception_handler(handle)
    peer.send(b"x")
    with pytest.raises(error):
        event_loop.run_until_complete(asyncio.sleep(0.5))
    event_loop.run_until_complete(asyncio.sleep(0))
    assert protocol.lost
    assert read_all(event_loop, peer) == b""
    event_loop.close()
    peer.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_datagram_endpoint_ends_though_resume_writing_left_the_run(error: type[BaseException]) -> None:
    class Datagrams(Interrupted, asyncio.DatagramProtocol):
        pass

    protocol = Datagrams("resume_writing", error)
    event_loop = tokioloop.TokioLoop()
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.setblocking(False)
    transport, _ = event_loop.run_until_complete(
        event_loop.create_datagram_endpoint(lambda: protocol, sock=ours)
    )
    transport.set_write_buffer_limits(0)
    while not transport.get_write_buffer_size():
        transport.sendto(b"x")
    transport.close()

    async def read() -> None:
        while not protocol.lost:
            await event_loop.sock_recv(peer, 10)
            await asyncio.sleep(0)

    reading = event_loop.create_task(read())
    with pytest.raises(error):
        event_loop.run_until_complete(reading)
    for _ in range(3):
        event_loop.run_until_complete(asyncio.sleep(0))
    assert protocol.lost
    reading.cancel()
    event_loop.run_until_complete(asyncio.wait([reading]))
    event_loop.close()
    peer.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("closes", [False, True])
def test_datagrams_are_sent_though_error_received_left_the_run(
    error: type[BaseException], closes: bool
) -> None:
    """Answers to one batch leave together: the first one fails, the others are sent."""
    lost: list[Exception | None] = []

    class Answering(asyncio.DatagramProtocol):
        answers = 0

        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.answers += 1
            # Too long for UDP, then not.
            self.transport.sendto(bytes(70_000) if self.answers == 1 else b"answer", addr)  # type: ignore[arg-type]
            if closes and self.answers == 3:
                self.transport.close()

        def error_received(self, exc: Exception) -> None:
            raise error

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    event_loop = tokioloop.TokioLoop()
    transport, _ = event_loop.run_until_complete(
        event_loop.create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        # All have arrived before the loop polls.
        for _ in range(3):
            peer.sendto(b"x", transport.get_extra_info("sockname"))
        with pytest.raises(error):
            event_loop.run_until_complete(asyncio.sleep(5))

        async def read() -> list[bytes]:
            return [await event_loop.sock_recv(peer, 100) for _ in range(2)]

        assert event_loop.run_until_complete(asyncio.wait_for(read(), 20)) == [b"answer"] * 2
    transport.close()
    event_loop.run_until_complete(asyncio.sleep(0))
    event_loop.run_until_complete(asyncio.sleep(0))
    assert lost == [None]
    event_loop.close()


def fill(near: socket.socket) -> int:
    """Write to a socket until it takes no more; how much it took."""
    count = 0
    while True:
        try:
            count += near.send(b"f" * 64)
        except BlockingIOError:
            return count


def test_of_two_errors_at_one_turns_end_the_second_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_value))
    event_loop = tokioloop.TokioLoop()

    async def main() -> None:
        made = []
        for error in (KeyboardInterrupt, SystemExit):
            near, far = socket.socketpair()
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
            near.setblocking(False)
            far.setblocking(False)
            protocol = Interrupted("resume_writing", error)
            transport, _ = await event_loop.connect_accepted_socket(lambda p=protocol: p, near)
            transport.set_write_buffer_limits(high=100, low=10)
            made.append((transport, near, far))
        for transport, near, far in made:
            fill(near)
            far.recv(1 << 20)
            far.recv(fill(near) // 2)
            transport.write(b"1")  # At once; the next three wait for the turn's end.
            for _ in range(3):
                transport.write(b"y" * 50)
            fill(near)
            transport.write(b"z" * 60)  # Over the limit.
            while True:
                try:
                    far.recv(1 << 20)
                except BlockingIOError:
                    break
        await asyncio.sleep(0)
        raise AssertionError("the turn's end left the run")

    task = event_loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        event_loop.run_until_complete(task)
    assert [type(error) for error in shown] == [SystemExit]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        event_loop.run_until_complete(task)
    event_loop.run_until_complete(asyncio.sleep(0))
    event_loop.close()
