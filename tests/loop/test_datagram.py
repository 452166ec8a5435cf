"""The datagram transport on real sockets: receiving, sending, and how it ends."""

import asyncio
import contextvars
import errno
import logging
import re
import socket
import weakref

import pytest

from .datagrams import LOOPBACK, Echo, Recorder, address_of, plain
from .support import collected


@pytest.fixture
def peer():
    with plain() as sock:
        yield sock


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_echo(run, endpoint, host, connected):
    async def main():
        server, echo = await endpoint(Echo(), (host, 0))
        address = address_of(server)
        if connected:
            client, protocol = await endpoint(None, remote_addr=address[:2])
            assert client.get_extra_info("peername") == address
        else:
            client, protocol = await endpoint(None, (host, 0))
            assert client.get_extra_info("peername") is None
        datagrams = [b"", b"x", b"y" * 1024, b"z" * 65507, bytes(range(256))]
        if host == "::1":
            datagrams[3] = b"z" * 65000
        for data in datagrams:
            client.sendto(data, None if connected else address)
            await protocol.received(len(protocol.got) + 1)
        assert protocol.got == [(data, address) for data in datagrams]
        assert [data for data, _ in echo.got] == datagrams
        assert not protocol.errors

    run(main())


def test_a_burst_comes_in_order_and_is_answered(run, endpoint):
    async def main():
        server, echo = await endpoint(Echo())
        clients = [plain() for _ in range(40)]
        wanted = {}
        for number in range(4):
            for client in clients:
                client.sendto(b"%d" % number, address_of(server))
                wanted.setdefault(client.getsockname(), []).append(b"%d" % number)
        await echo.received(4 * len(clients))
        got = {}
        for data, addr in echo.got:
            got.setdefault(addr, []).append(data)
        assert got == wanted
        for client in clients:
            with client:
                for number in range(4):
                    assert client.recvfrom(100) == (b"%d" % number, address_of(server))

    run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, "with gaps", "subclass"])
def test_data_types(run, endpoint, peer, kind):
    class Subclass(bytes):
        pass

    data = b"0123456789"
    given = {
        "with gaps": lambda: memoryview(b"0_1_2_3_4_5_6_7_8_9_")[::2],
        "subclass": lambda: Subclass(data),
    }.get(kind, lambda: kind(data))()

    async def main():
        transport, _ = await endpoint()
        transport.sendto(given, peer.getsockname())
        assert peer.recv(100) == data
        transport.sendto(data=given, addr=peer.getsockname())
        assert peer.recv(100) == data

    run(main())


def test_data_of_a_wrong_type_is_refused(run, endpoint, peer):
    async def main():
        transport, _ = await endpoint()
        for data, name in (("text", "str"), (1, "int"), (None, "NoneType"), ([b"x"], "list")):
            with pytest.raises(TypeError, match=f"^data argument must be a bytes-like object, not '{name}'$"):
                transport.sendto(data, peer.getsockname())
        with pytest.raises(TypeError):
            transport.sendto()
        with pytest.raises(TypeError):
            transport.sendto(b"", None, None)
        with pytest.raises(TypeError):
            transport.sendto(b"", address=None)

    run(main())


def test_a_connected_transport_sends_to_its_peer_only(run, endpoint, peer):
    address = peer.getsockname()

    async def main():
        transport, _ = await endpoint(None, remote_addr=address)
        for addr in (None, address, (address[0], int(str(address[1])))):
            transport.sendto(b"x", addr)
            assert peer.recv(10) == b"x"
        for wrong in (("127.0.0.1", 1), "elsewhere", 5):
            text = re.escape(f"Invalid address: must be None or {address}")
            with pytest.raises(ValueError, match=f"^{text}$"):
                transport.sendto(b"x", wrong)

    run(main())


def test_a_socket_connected_by_its_maker_sends_to_its_peer_whatever_the_address(run, endpoint, peer):
    async def main():
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.connect(peer.getsockname())
        transport, _ = await endpoint(None, sock=sock)
        transport.sendto(b"a", ("127.0.0.1", 1))
        transport.sendto(b"b")
        assert [peer.recv(10), peer.recv(10)] == [b"a", b"b"]

    run(main())


@pytest.mark.parametrize("host", ["localhost", "127.1", "<broadcast>", ""])
def test_hosts_that_only_python_understands(run, endpoint, peer, contexts, host):
    async def main():
        transport, protocol = await endpoint()
        transport.sendto(b"x", (host, peer.getsockname()[1]))
        if host == "<broadcast>":
            assert isinstance(protocol.errors[0], PermissionError)
        else:
            assert peer.recv(10) == b"x"
            assert protocol.errors == []
        assert contexts == []
        assert not transport.is_closing()

    run(main())


def test_python_resolves_out_of_a_batch_too(run, endpoint, peer):
    class Answers(Recorder):
        def datagram_received(self, data, addr):
            for host in ("127.0.0.1", "localhost", "127.0.0.1", "::1"):
                self.transport.sendto(data, (host, addr[1]))
            super().datagram_received(data, addr)

    async def main():
        transport, protocol = await endpoint(Answers())
        for number in range(2):
            peer.sendto(b"%d" % number, address_of(transport))
        await protocol.received(2)
        assert [peer.recv(10) for _ in range(6)] == [b"0"] * 3 + [b"1"] * 3
        await protocol.until(lambda: len(protocol.errors) == 2)
        assert all(isinstance(exc, socket.gaierror) for exc in protocol.errors)

    run(main())


@pytest.mark.parametrize(
    "addr",
    [("127.0.0.1", 65536), ("127.0.0.1", -1), ("127.0.0.1",), None, ("127.0.0.1", "80"), ["127.0.0.1", 80]],
    ids=repr,
)
def test_a_senseless_address_ends_the_transport(run, endpoint, contexts, addr):
    async def main():
        transport, protocol = await endpoint()
        transport.sendto(b"x", addr)
        assert transport.is_closing()
        await protocol.event("lost")
        assert len(contexts) == 1
        assert contexts[0]["message"] == "Fatal write error on datagram transport"
        assert contexts[0]["exception"] is protocol.lost_with[0]
        assert isinstance(protocol.lost_with[0], (TypeError, OverflowError))

    run(main())


def test_refused_datagrams_are_reported_and_the_transport_goes_on(run, endpoint):
    async def main():
        with plain() as gone:
            address = gone.getsockname()
        transport, protocol = await endpoint(None, remote_addr=address)
        transport.sendto(b"to nobody")
        await protocol.event("error")
        assert isinstance(protocol.errors[0], ConnectionRefusedError)
        assert protocol.errors[0].errno == errno.ECONNREFUSED
        assert not transport.is_closing()
        with plain(address) as there:
            transport.sendto(b"again")
            assert there.recv(10) == b"again"
            there.sendto(b"back", address_of(transport))
            assert await protocol.received(1) == [(b"back", address)]

    run(main())


def test_a_datagram_too_large_is_reported_and_the_next_ones_are_sent(run, endpoint, peer):
    class Answers(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(b"x" * 65508, addr)
            self.transport.sendto(data, addr)

    peer.setblocking(False)

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await endpoint(Answers())
        transport.sendto(b"x" * 65508, peer.getsockname())
        assert [exc.errno for exc in protocol.errors] == [errno.EMSGSIZE]
        # Answered at once, and out of a batch.
        for count in (1, 5):
            for number in range(count):
                peer.sendto(b"%d" % number, address_of(transport))
            got = [await loop.sock_recv(peer, 10) for _ in range(count)]
            assert got == [b"%d" % number for number in range(count)]
        assert [exc.errno for exc in protocol.errors] == [errno.EMSGSIZE] * 7
        assert not transport.is_closing()

    run(main())


@pytest.mark.parametrize("ways", [("close",), ("abort",), ("close", "abort"), ("abort", "close")])
def test_connection_lost_comes_once_and_later(run, endpoint, ways):
    async def main():
        transport, protocol = await endpoint()
        sock = transport.get_extra_info("socket")
        for way in ways:
            getattr(transport, way)()
        assert transport.is_closing()
        assert "lost" not in protocol.log, "called inside the call"
        await protocol.event("lost")
        await asyncio.sleep(0)
        assert protocol.log == ["made", "lost"]
        assert protocol.lost_with == [None]
        assert sock.fileno() == -1
        assert repr(transport) == "<DatagramTransport closed>"

    run(main())


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("count", [1, 6])
def test_closed_while_a_batch_is_delivered(run, endpoint, peer, way, count):
    """Earlier answers are sent; later datagrams are not delivered."""

    class Closing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(b"answer", addr)
            getattr(self.transport, way)()

    async def main():
        transport, protocol = await endpoint(Closing())
        for _ in range(count):
            peer.sendto(b"x", address_of(transport))
        await protocol.event("lost")
        assert protocol.log == ["made", "datagram", "lost"]
        assert peer.recv(10) == b"answer"

    run(main())


def test_the_protocol_is_replaced_while_a_batch_is_delivered(run, endpoint, peer):
    class First(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.set_protocol(second)

    second = Recorder()

    async def main():
        transport, first = await endpoint(First())
        for number in range(4):
            peer.sendto(b"%d" % number, address_of(transport))
        await second.received(3)
        assert transport.get_protocol() is second
        assert [data for data, _ in first.got + second.got] == [b"0", b"1", b"2", b"3"]
        assert len(first.got) == 1
        transport.close()
        await second.event("lost")
        assert "lost" not in first.log

    run(main())


def test_paused_while_a_batch_is_delivered_loses_nothing(run, endpoint, peer):
    class Pausing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    async def main():
        transport, protocol = await endpoint(Pausing())
        for number in range(5):
            peer.sendto(b"%d" % number, address_of(transport))
        for count in range(1, 6):
            await protocol.received(count)
            # Some turns, in which more would come if reading were not paused.
            for _ in range(3):
                await asyncio.sleep(0)
            assert [data for data, _ in protocol.got] == [b"%d" % number for number in range(count)]
            assert not transport.is_reading()
            transport.resume_reading()
        assert transport.is_reading()

    run(main())


@pytest.mark.parametrize("count", [1, 5])
def test_an_error_of_the_protocol_is_reported_and_the_next_datagram_comes(
    run, endpoint, peer, contexts, count
):
    class Failing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ZeroDivisionError(data)

    async def main():
        transport, protocol = await endpoint(Failing())
        for number in range(count):
            peer.sendto(b"%d" % number, address_of(transport))
        await protocol.received(count)
        await asyncio.sleep(0)
        assert [str(context["exception"]) for context in contexts] == [
            str(b"%d" % number) for number in range(count)
        ]
        for context in contexts:
            assert "datagram_received" in context["message"]
            assert context["transport"] is transport
            assert context["protocol"] is protocol
        assert not transport.is_closing()

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_the_loop_and_loses_no_datagram(loop, run, endpoint, peer, error):
    class Interrupting(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(data, addr)
            if data == b"1":
                raise error

    transport, protocol = run(endpoint(Interrupting()))
    for number in range(5):
        peer.sendto(b"%d" % number, address_of(transport))
    with pytest.raises(error):
        loop.run_forever()
    assert [data for data, _ in protocol.got] == [b"0", b"1"]
    # Answered before the interrupt left.
    assert [peer.recv(10), peer.recv(10)] == [b"0", b"1"]
    run(protocol.received(5))
    assert [data for data, _ in protocol.got] == [b"%d" % number for number in range(5)]
    assert not transport.is_closing()


def test_an_error_of_error_received_reaches_the_sender(run, endpoint, peer):
    class Failing(Recorder):
        def error_received(self, exc):
            raise ZeroDivisionError

    async def main():
        transport, _ = await endpoint(Failing())
        with pytest.raises(ZeroDivisionError):
            transport.sendto(b"x" * 65508, peer.getsockname())
        assert not transport.is_closing()

    run(main())


def test_writes_after_the_end_are_counted(run, endpoint, peer, caplog):
    async def main():
        transport, protocol = await endpoint(None, remote_addr=peer.getsockname())
        transport.abort()
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(4):
                transport.sendto(b"x")
            assert caplog.messages == []
            transport.sendto(b"x")
            assert caplog.messages == ["socket.send() raised exception."]
            await protocol.event("lost")
            transport.sendto(b"x")
        assert len(caplog.messages) == 2
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)

    run(main())


def test_a_last_datagram_from_connection_lost(run, endpoint, peer):
    """An unconnected socket is open, and sends, until connection_lost(): as in asyncio."""

    class Farewell(Recorder):
        def connection_lost(self, exc):
            self.transport.sendto(b"farewell", peer.getsockname())
            super().connection_lost(exc)

    async def main():
        transport, protocol = await endpoint(Farewell())
        transport.close()
        await protocol.event("lost")
        assert peer.recv(10) == b"farewell"

    run(main())


def test_callbacks_scheduled_before_run_before_received_datagrams(loop, run, endpoint, peer):
    transport, protocol = run(endpoint())
    for _ in range(3):
        peer.sendto(b"x", address_of(transport))
    loop.call_soon(protocol.note, "scheduled")
    run(protocol.received(3))
    assert protocol.log == ["made", "scheduled", "datagram", "datagram", "datagram"]


def test_callbacks_run_in_the_context_of_the_maker(run, endpoint, peer):
    variable = contextvars.ContextVar("variable", default="elsewhere")
    seen = []

    class Looking(Recorder):
        def note(self, *event):
            seen.append((*event, variable.get()))
            super().note(*event)

    async def main():
        variable.set("maker")
        with plain() as gone:
            address = gone.getsockname()
        connected, first = await endpoint(Looking(), remote_addr=address)
        transport, second = await endpoint(Looking())
        variable.set("changed")
        for _ in range(3):
            peer.sendto(b"x", address_of(transport))
        await second.received(3)
        connected.sendto(b"to nobody")
        await first.event("error")
        transport.close()
        await second.event("lost")
        assert {event for event, _ in seen} == {"made", "datagram", "error", "lost"}
        assert {value for _, value in seen} == {"maker"}

    run(main())


def test_slow_protocols_are_named_in_debug_mode(loop, run, endpoint, peer, caplog):
    loop.slow_callback_duration = 0

    async def main():
        transport, protocol = await endpoint()
        loop.set_debug(True)
        with caplog.at_level(logging.WARNING, "asyncio"):
            peer.sendto(b"x", address_of(transport))
            await protocol.received(1)
        assert any(repr(protocol) in text and "took" in text for text in caplog.messages)
        loop.set_debug(False)

    run(main())


def test_extra_info(run, endpoint, peer):
    async def main():
        transport, _ = await endpoint(None, LOOPBACK, peer.getsockname())
        sock = transport.get_extra_info("socket")
        assert sock.family == socket.AF_INET and sock.type == socket.SOCK_DGRAM
        assert transport.get_extra_info("sockname") == sock.getsockname()
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.get_extra_info(name="nothing", default=6) == 6
        assert isinstance(transport, asyncio.DatagramTransport)
        assert isinstance(transport, asyncio.Transport)
        assert repr(transport).startswith("<DatagramTransport fd=")
        name = sock.getsockname()
        transport.close()
        assert "closing" in repr(transport)
        await transport.get_protocol().event("lost")
        assert transport.get_extra_info("sockname") == name

    run(main())


def test_dropped_unclosed_it_warns_and_closes(run, loop):
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(LOOPBACK)

    async def main():
        transport, _ = await loop.create_datagram_endpoint(Recorder, sock=sock)
        return weakref.ref(transport)

    reference = run(main())
    assert reference() is not None, "the loop keeps it"
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport <DatagramTransport fd="):
        assert collected(reference)
    assert sock.fileno() == -1


@pytest.mark.parametrize("connected", [False, True])
def test_a_closed_transport_goes_with_its_protocol(loop, run, peer, connected):
    async def main():
        options = {"remote_addr": peer.getsockname()} if connected else {"local_addr": LOOPBACK}
        transport, protocol = await loop.create_datagram_endpoint(Echo, **options)
        transport.sendto(b"x", peer.getsockname())
        peer.sendto(*peer.recvfrom(10))
        await protocol.received(1)
        transport.close()
        await protocol.event("lost")
        assert protocol.transport is transport
        return weakref.ref(transport), weakref.ref(protocol)

    for reference in run(main()):
        assert collected(reference)


def test_another_thread_is_refused(elsewhere):
    async def make():
        return await elsewhere.loop.create_datagram_endpoint(Recorder, LOOPBACK)

    transport, protocol = elsewhere.wait(make())
    address = address_of(transport)
    for call in (lambda: transport.sendto(b"x", address), transport.close, transport.abort):
        with pytest.raises(RuntimeError, match="elsewhere"):
            call()
    assert not transport.is_closing()
    assert transport.get_write_buffer_size() == 0

    async def close():
        transport.close()
        await protocol.event("lost")

    elsewhere.wait(close())
