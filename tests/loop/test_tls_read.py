"""From a TLS connection to the protocol: pausing, BufferedProtocol, other protocols, callbacks that raise."""

import asyncio
import contextvars
import random
import signal

import pytest

from .support import BufferedRecorder, Recorder
from .tls_support import TLS_1_2, TLS_1_3, against_peer, linked

BIG = 1 << 20


def pattern(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def test_bytes_pass_both_ways(secure, version):
    async def main():
        async with linked(version=version) as link:
            link.near.write(b"there")
            assert await link.server.received(5) == b"there"
            link.far.write(pattern(BIG))
            assert await link.client.received(BIG) == pattern(BIG)
            assert link.near.get_extra_info("ssl_object").version() == version.name.replace("v1_", "v1.")

    secure.run(main())
    assert secure.contexts == []


def test_paused_in_the_handshake_nothing_is_delivered(secure_ours):
    class Paused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        async with against_peer(Paused(), handshake=False) as (protocol, peer):
            await peer.handshake()
            # Behind the handshake's last flight, in one segment with it or not.
            await peer.send(peer.encrypted(b"early"))
            transport, _ = await protocol.connecting
            assert not transport.is_reading()
            # A turn for what came in to be looked at.
            await peer.write(b" late")
            for _ in range(5):
                await asyncio.sleep(0)
            assert protocol.log == ["made"]
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.received(10) == b"early late"

    secure_ours.run(main())


@pytest.mark.parametrize("ending", ["close_notify", "end of stream", "both"])
def test_what_came_before_the_end_is_delivered_first_though_paused(secure, ending):
    async def main():
        async with against_peer() as (protocol, peer):
            protocol.transport.pause_reading()
            await peer.send(peer.encrypted(b"last words"))
            if ending != "end of stream":
                await peer.send(peer.goodbye())
            if ending != "close_notify":
                peer.sock.shutdown(1)
            for _ in range(10):
                await asyncio.sleep(0)
            if secure.is_ours:
                assert protocol.log == ["made"]
            protocol.transport.resume_reading()
            await protocol.event("eof") if secure.is_ours else None
            if ending == "close_notify":
                peer.close()
            await protocol.lost()
            if secure.is_ours or ending != "end of stream":
                assert protocol.data == b"last words"
                assert protocol.log == ["made", ("data", 10), "eof", "lost"]

    secure.run(main())


@pytest.mark.parametrize("ending", ["close_notify", "end of stream"])
def test_paused_again_while_resumed_data_comes_in(secure_ours, ending):
    """The end waits until the last byte is delivered, however often reading is paused."""

    class Hesitant(BufferedRecorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        async with against_peer(Hesitant(1000)) as (protocol, peer):
            protocol.transport.pause_reading()
            data = pattern(5500)
            await peer.send(peer.encrypted(data[:3000]) + peer.encrypted(data[3000:]))
            if ending == "close_notify":
                await peer.send(peer.goodbye())
            peer.sock.shutdown(1)
            for _ in range(10):
                await asyncio.sleep(0)
            assert protocol.log == ["made"]
            seen = 0
            while seen < len(data):
                protocol.transport.resume_reading()
                await protocol.until(lambda: len(protocol.data) > seen)  # noqa: B023
                assert len(protocol.data) <= seen + 1000
                seen = len(protocol.data)
                assert "eof" not in protocol.log or seen == len(data)
            assert protocol.data == data
            protocol.transport.resume_reading()
            await protocol.lost()
            assert protocol.log[-2:] == ["eof", "lost"]

    secure_ours.run(main())


def test_reading_below_is_paused_while_much_waits(secure):
    async def main():
        async with against_peer() as (protocol, peer):
            transport = protocol.transport
            transport.pause_reading()
            size = 16 << 20
            data = pattern(size)
            sending = asyncio.create_task(peer.send(peer.encrypted(data)))
            await asyncio.wait([sending], timeout=0.05)
            assert not sending.done(), "received megabytes without a reader"
            assert protocol.log == ["made"]
            transport.resume_reading()
            assert await protocol.received(size) == data
            await sending

    secure.run(main())


def test_pausing_and_resuming_at_random_keeps_the_order(secure):
    async def main():
        numbers = random.Random(3)
        data = pattern(2 << 20)

        class Moody(Recorder):
            def data_received(self, received):
                super().data_received(received)
                if numbers.random() < 0.5:
                    self.transport.pause_reading()
                    asyncio.get_running_loop().call_soon(self.transport.resume_reading)
                    if numbers.random() < 0.5:
                        self.transport.resume_reading()
                        self.transport.pause_reading()

        async with linked(server=Moody()) as link:
            view = memoryview(data)
            while view:
                size = numbers.choice([1, 100, 16384, 16385, 60_000])
                link.near.write(view[:size])
                view = view[size:]
                if numbers.random() < 0.2:
                    await asyncio.sleep(0)
            assert await link.server.received(len(data)) == data

    secure.run(main())


@pytest.mark.parametrize("size", [1, 7, 1000, 16384, 100_000])
def test_buffered_protocols_of_any_size(secure_ours, size):
    async def main():
        async with linked(server=BufferedRecorder(size)) as link:
            data = pattern(min(50_000, size * 3000))
            link.near.write(data)
            assert await link.server.received(len(data)) == data
            link.near.close()
            await link.server.lost()
            assert link.server.log[-2:] == ["eof", "lost"]

    secure_ours.run(main())


def test_a_buffer_may_be_replaced_in_every_callback(secure):
    class Changing(BufferedRecorder):
        def get_buffer(self, sizehint):
            self.buffer = bytearray(len(self.data) % 50 + 1)
            return memoryview(self.buffer)

    async def main():
        async with linked(server=Changing()) as link:
            data = pattern(5000)
            link.near.write(data)
            assert await link.server.received(len(data)) == data

    secure.run(main())


def test_a_buffer_is_released_before_buffer_updated(secure_ours):
    class Resizing(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.buffer.extend(b"grown")  # BufferError while a view of it exists.

    async def main():
        async with linked(server=Resizing(10)) as link:
            link.near.write(pattern(200))
            assert await link.server.received(200) == pattern(200)

    secure_ours.run(main())
    assert secure_ours.contexts == []


@pytest.mark.parametrize("buffer", [b"", bytearray(), b"read only", 5, None])
def test_a_buffer_that_is_none(secure_ours, buffer):
    class Wrong(BufferedRecorder):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        async with linked(server=Wrong()) as link:
            link.near.write(b"x")
            assert isinstance(await link.server.lost(), (TypeError, BufferError, RuntimeError))

    secure_ours.run(main())
    assert len(secure_ours.contexts) == 1


@pytest.mark.parametrize("first", [Recorder, lambda: BufferedRecorder(5)], ids=["copied", "buffered"])
@pytest.mark.parametrize("second", [Recorder, lambda: BufferedRecorder(5)], ids=["copied", "buffered"])
def test_another_protocol_takes_over_in_the_middle(secure, first, second):
    async def main():
        before, after = first(), second()
        received = before.data_received

        def take_over(data):
            received(data)
            before.transport.set_protocol(after)
            after.connection_made(before.transport)

        before.data_received = take_over
        async with linked(server=before) as link:
            link.near.write(b"12345")
            await after.event("made")
            assert link.far.get_protocol() is after
            link.near.write(b"67890abc")
            await after.received(8)
            assert before.data + after.data == b"1234567890abc"
            link.near.close()
            await after.lost()
            assert before.log == ["made", ("data", 5)]
            before.connection_lost(None)

    secure.run(main())


@pytest.mark.parametrize("where", ["data_received", "get_buffer", "buffer_updated", "eof_received"])
def test_an_error_of_the_protocol_ends_the_connection(secure, where):
    def fail(*_):
        raise LookupError("mine")

    async def main():
        buffered = where in ("get_buffer", "buffer_updated")
        server = BufferedRecorder() if buffered else Recorder()
        setattr(server, where, fail)
        async with linked(server=server) as link:
            link.near.write(b"x")
            if where == "eof_received":
                await server.received(1)
                link.near.close()
            assert isinstance(await server.lost(), LookupError)
            await link.client.lost()
            assert link.far.is_closing()

    secure.run(main())
    (context,) = secure.contexts
    assert isinstance(context["exception"], LookupError)


def test_an_error_of_connection_made(secure):
    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise LookupError("mine")

    async def main():
        async with against_peer(Failing(), handshake=False) as (protocol, peer):
            with pytest.raises(LookupError):
                await asyncio.gather(protocol.connecting, peer.handshake())
            assert isinstance(await protocol.lost(), LookupError)

    secure.run(main())
    (context,) = secure.contexts
    assert isinstance(context["exception"], LookupError)


@pytest.mark.parametrize("where", ["pause_writing", "resume_writing"])
def test_an_error_of_flow_control_is_reported_only(secure_ours, where):
    def fail():
        client.note(where)
        raise LookupError("mine")

    client = Recorder()

    async def main():
        setattr(client, where, fail)
        async with linked(client) as link:
            link.far.pause_reading()
            data = pattern(16 << 20)
            link.near.write(data)
            link.far.resume_reading()
            assert await link.server.received(len(data)) == data
            await client.event(where)

    secure_ours.run(main())
    assert {type(context["exception"]) for context in secure_ours.contexts} == {LookupError}


def test_an_error_of_connection_lost_is_reported(secure):
    def fail(error):
        Recorder.connection_lost(client, error)
        raise LookupError("mine")

    client = Recorder()

    async def main():
        client.connection_lost = fail
        async with linked(client) as link:
            link.near.abort()
            await link.server.lost()
            await client.lost()

    secure.run(main())
    (context,) = secure.contexts
    assert isinstance(context["exception"], LookupError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_what_ends_the_run_leaves_it(secure, where, error):
    loop = secure.loop
    client = Recorder()
    raised = []

    def leave(*args):
        getattr(Recorder, where)(client, *args)
        if not raised:
            raised.append(where)
            raise error

    async def main():
        setattr(client, where, leave)
        async with against_peer(client, handshake=False) as (_, peer):
            await peer.handshake()
            await asyncio.wait([client.connecting], timeout=0 if where == "connection_made" else None)
            await peer.write(b"one")
            await client.received(3)
            await peer.write(b"two")
            await client.received(6)
            await peer.send(peer.goodbye())
            if where == "eof_received":
                # It left before the transport could close.
                await client.event("eof")
                client.transport.close()
            await peer.read_all()
            await client.lost()

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    assert raised == [where]
    assert secure.contexts == []
    if where == "connection_made":
        # connection_made() was never called.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            secure.run(settled(task))
        return
    # The connection goes on where it was.
    secure.run(settled(task))
    assert client.data == b"onetwo"
    assert client.log.count("lost") == 1


async def settled(task):
    return await task


def test_control_c_while_data_is_delivered(secure_ours):
    async def main():
        client = Recorder()
        client.data_received = lambda data: signal.raise_signal(signal.SIGINT)
        async with against_peer(client) as (_, peer):
            await peer.write(b"x")
            await asyncio.get_running_loop().create_future()

    runner = asyncio.Runner(loop_factory=secure_ours.make_loop)
    with runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())


def test_callbacks_run_in_the_context_of_the_connect(secure_ours):
    variable = contextvars.ContextVar("variable")

    class Protocol(Recorder):
        def note(self, *event):
            super().note(event[0], variable.get("unset"))

        async def lost(self):
            await self.until(lambda: self.lost_with)

    async def main():
        variable.set("connecting")
        client = Protocol()
        async with against_peer(client) as (_, peer):
            variable.set("later")
            client.transport.set_write_buffer_limits(1000)
            client.transport.write(bytes(4 << 20))
            await peer.read_exactly(4 << 20)
            await client.until(lambda: any(event[0] == "resume" for event in client.log))
            await peer.write(b"x")
            await peer.send(peer.goodbye())
            await peer.read_all()
            await client.lost()
        return set(client.log)

    at_connect = {(name, "connecting") for name in ("made", "resume", "data", "eof", "lost")}
    # Called by write() itself.
    assert secure_ours.run(main()) == at_connect | {("pause", "later")}


def test_a_server_reads_nothing_after_a_bad_record(secure):
    """What stood before the broken record is delivered, nothing behind it."""

    async def main():
        async with against_peer(server_side=True) as (protocol, peer):
            good, bad, late = (bytearray(peer.encrypted(data)) for data in (b"good", b"bad", b"late"))
            bad[-1] ^= 1
            await peer.send(bytes(good + bad + late))
            error = await protocol.lost()
            assert getattr(error, "reason", None) in (
                "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
                "SSLV3_ALERT_BAD_RECORD_MAC",
            )
            assert protocol.data in ((b"good",) if secure.is_ours else (b"good", b""))

    secure.run(main())
