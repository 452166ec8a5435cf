"""From the protocol to the kernel: queueing, flow control, half-close, and what may be written."""

import array
import asyncio
import contextlib
import os
import random

import pytest

from .support import Recorder, receive_all, receive_exactly, reset

BIG = 4 << 20


def pattern(size, seed=0):
    return random.Random(seed).randbytes(size)


def test_megabytes_arrive_whole(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        data = pattern(BIG)
        transport.write(data)
        assert transport.get_write_buffer_size() > 0
        assert await receive_exactly(far, BIG) == data
        await protocol.event("resume")
        assert transport.get_write_buffer_size() == 0
        assert protocol.log.count("pause") == protocol.log.count("resume") == 1

    run(main())


def test_close_sends_what_is_queued(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        data = pattern(BIG)
        transport.write(data)
        transport.close()
        assert transport.is_closing()
        assert await receive_all(far) == data
        assert await protocol.lost() is None

    run(main())


def test_many_writes_of_many_sizes_keep_their_order(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        numbers = random.Random(1)
        pieces = [numbers.randbytes(numbers.choice([0, 1, 10, 1000, 70_000])) for _ in range(300)]
        receiving = asyncio.create_task(receive_all(far))
        for n, piece in enumerate(pieces):
            transport.write(piece)
            if n % 16 == 0:
                await asyncio.sleep(0)
        transport.close()
        assert await receiving == b"".join(pieces)

    run(main())


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 128, 129, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("size", [1, 700])
def test_writelines_of_any_length(loop, run, link, count, size):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        pieces = [bytes([n % 251]) * size for n in range(count)]
        receiving = asyncio.create_task(receive_all(far))
        transport.writelines(pieces)
        transport.writelines(iter(pieces))
        transport.close()
        assert await receiving == b"".join(pieces) * 2
        assert await protocol.lost() is None

    run(main())


def test_writelines_of_mixed_kinds_behind_a_full_queue(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.write(bytes(BIG))
        mutable = bytearray(b"mutable")
        transport.writelines([b"bytes", b"", mutable, memoryview(b"view"), memoryview(b"g.a.p.s.")[::2]])
        mutable[:] = b"changed"
        receiving = asyncio.create_task(receive_all(far))
        transport.close()
        assert (await receiving)[BIG:] == b"bytesmutableviewgaps"

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["empty queue", "full queue"])
@pytest.mark.parametrize("kind", ["bytearray", "memoryview", "gaps", "array", "subclass"])
def test_what_is_written_may_change_afterwards(loop, run, link, full, kind):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        before = b""
        if full:
            before = bytes(BIG)
            transport.write(before)
        base = bytearray(pattern(1000))
        data, expected = {
            "bytearray": lambda: (base, bytes(base)),
            "memoryview": lambda: (memoryview(base)[10:900], bytes(base[10:900])),
            "gaps": lambda: (memoryview(base)[::3], bytes(base[::3])),
            "array": lambda: (
                memoryview(array.array("I", range(100))),
                array.array("I", range(100)).tobytes(),
            ),
            "subclass": lambda: (type("Bytes", (bytes,), {})(base), bytes(base)),
        }[kind]()
        transport.write(data)
        base[:] = bytes(1000)
        if isinstance(data, memoryview):
            data.release()
        receiving = asyncio.create_task(receive_all(far))
        transport.close()
        assert (await receiving)[len(before) :] == expected

    run(main())


def test_a_bytearray_may_grow_again_after_the_write(loop, run, link):
    """The transport keeps no view of it."""

    async def main():
        transport, far = await link(Recorder())
        data = bytearray(BIG)
        transport.write(data)
        data += b"more"
        data.clear()
        assert await receive_exactly(far, BIG) == bytes(BIG)

    run(main())


@pytest.mark.parametrize("bad", ["text", 5, None, [1], object()])
def test_what_cannot_be_written(loop, run, link, bad):
    async def main():
        transport, _ = await link(Recorder())
        with pytest.raises(TypeError):
            transport.write(bad)
        with pytest.raises(TypeError):
            transport.writelines([b"x", bad])
        assert not transport.is_closing()

    run(main())


def test_a_released_memoryview(loop, run, link):
    async def main():
        transport, _ = await link(Recorder())
        view = memoryview(b"data")
        view.release()
        with pytest.raises(ValueError, match="released"):
            transport.write(view)

    run(main())


def test_limits(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=50)
        assert transport.get_write_buffer_limits() == (50, 200)
        for high, low in ((1, 2), (-1, None), (None, -1)):
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(high=high, low=low)
        transport.set_write_buffer_limits(high=0)
        transport.write(bytes(BIG))
        assert protocol.log[-1] == "pause"
        await receive_exactly(far, BIG)
        await protocol.event("resume")

    run(main())


def test_lowering_the_limit_pauses_at_once(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.set_write_buffer_limits(high=2 * BIG)
        transport.write(bytes(BIG))
        assert "pause" not in protocol.log
        transport.set_write_buffer_limits(high=10)
        assert "pause" in protocol.log
        await receive_exactly(far, BIG)
        await protocol.event("resume")

    run(main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_a_failing_flow_control_callback_is_reported(loop, run, link, contexts, method):
    async def main():
        protocol = Recorder()
        seen = protocol.note

        def fail():
            seen(method)
            raise LookupError(method)

        setattr(protocol, method, fail)
        transport, far = await link(protocol)
        transport.write(bytes(BIG))
        await receive_exactly(far, BIG)
        await protocol.event(method)
        assert not transport.is_closing()
        (context,) = contexts
        assert context["message"] == f"protocol.{method}() failed"
        assert context["transport"] is transport and context["protocol"] is protocol

    run(main())


@pytest.mark.parametrize("action", ["close", "abort", "write", "set_protocol"])
def test_acting_on_the_transport_in_pause_writing(loop, run, link, action):
    async def main():
        protocol = Recorder()

        def pause():
            protocol.note("pause")
            {
                "close": transport.close,
                "abort": transport.abort,
                "write": lambda: transport.write(b"tail"),
                "set_protocol": lambda: transport.set_protocol(other),
            }[action]()

        protocol.pause_writing = pause
        other = Recorder()
        transport, far = await link(protocol)
        receiving = asyncio.create_task(receive_all(far))
        transport.writelines([bytes(100_000)] * 100)
        assert "pause" in protocol.log
        if action == "write":
            transport.close()
        elif action == "set_protocol":
            await other.event("resume")
            transport.close()
        got = len(await receiving)
        assert got == {"write": 10_000_004, "close": 10_000_000, "set_protocol": 10_000_000}.get(action, got)

    run(main())


def test_half_close_after_the_queue_is_sent(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.write(bytes(BIG))
        transport.write_eof()
        transport.write_eof()
        assert transport.can_write_eof()
        for write in (lambda: transport.write(b"x"), lambda: transport.writelines([b"x"])):
            with pytest.raises(RuntimeError, match="after write_eof"):
                write()
        assert await receive_all(far) == bytes(BIG)
        assert not transport.is_closing()
        await loop.sock_sendall(far, b"the other way")
        assert await protocol.received(13) == b"the other way"
        far.shutdown(1)
        assert await protocol.lost() is None

    run(main())


def test_write_eof_on_an_empty_queue(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.write_eof()
        assert await receive_all(far) == b""
        transport.close()
        transport.write_eof()
        await protocol.lost()
        transport.write_eof()

    run(main())


def test_abort_drops_the_queue(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.write(bytes(BIG))
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.lost() is None
        with contextlib.suppress(ConnectionResetError):
            assert len(await receive_all(far)) < BIG

    run(main())


def test_writes_after_the_end_are_ignored_and_then_logged(loop, run, link, caplog):
    async def main():
        protocol = Recorder()
        transport, _far = await link(protocol)
        transport.close()
        for _ in range(3):
            transport.write(b"x")
        await protocol.lost()
        for _ in range(10):
            transport.write(b"x")
            transport.writelines([b"x"])
        assert "socket.send() raised exception." in caplog.text

    run(main())


def test_a_write_into_a_reset_connection(loop, run, link, contexts):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.pause_reading()
        reset(far)
        while not transport.is_closing():
            transport.write(bytes(100_000))
            await asyncio.sleep(0)
        assert isinstance(await protocol.lost(), ConnectionError)
        await asyncio.sleep(0)
        assert protocol.log.count("lost") == 1
        assert contexts == []

    run(main())


def test_a_peer_that_closes_with_our_queue_full(loop, run, link, contexts):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.write(bytes(BIG))
        reset(far)
        error = await protocol.lost()
        assert error is None or isinstance(error, ConnectionError)
        assert protocol.log.count("lost") == 1
        assert contexts == []

    run(main())


def test_a_writing_protocol_in_connection_made(loop, run, link):
    async def main():
        protocol = Recorder()
        made = protocol.connection_made

        def write_at_once(transport):
            made(transport)
            transport.write(b"hello")
            transport.close()

        protocol.connection_made = write_at_once
        _, far = await link(protocol)
        assert await receive_all(far) == b"hello"
        await protocol.lost()

    run(main())


# Several writes of one turn.


def test_a_turns_first_write_goes_at_once_and_the_others_together_at_its_end(loop, run, link):
    async def main():
        transport, far = await link(Recorder())
        await asyncio.sleep(0)
        for piece in (b"first", b"second", bytearray(b"third"), memoryview(b"fourth")):
            transport.write(piece)
        transport.writelines([b"fifth", b"sixth"])
        assert transport.get_write_buffer_size() == len(b"secondthirdfourthfifthsixth")
        assert far.recv(100) == b"first"
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == 0
        assert far.recv(100) == b"secondthirdfourthfifthsixth"
        transport.close()

    run(main())


def test_what_changes_after_a_write_was_held_was_copied(loop, run, link):
    async def main():
        transport, far = await link(Recorder())
        await asyncio.sleep(0)
        changes = bytearray(b"before")
        transport.write(b"first ")
        transport.write(changes)
        changes[:] = b"after!"
        await asyncio.sleep(0)
        assert far.recv(100) == b"first before"
        transport.close()

    run(main())


def test_long_pieces_and_much_are_not_held(loop, run, link):
    async def main():
        transport, far = await link(Recorder())
        await asyncio.sleep(0)
        transport.write(b"first")
        long = pattern(17 * 1024)
        transport.write(long)
        assert transport.get_write_buffer_size() == 0
        assert await receive_exactly(far, 5 + len(long)) == b"first" + long
        await asyncio.sleep(0)
        transport.write(b"first")
        piece = pattern(10_000)
        sizes = []
        for _ in range(7):
            transport.write(piece)
            sizes.append(transport.get_write_buffer_size())
        assert sizes == [10_000 * n for n in range(1, 7)] + [0]
        assert await receive_exactly(far, 5 + 70_000) == b"first" + 7 * piece
        transport.close()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
def test_what_is_held_is_sent_before_the_end(loop, run, link, end):
    async def main():
        transport, far = await link(Recorder())
        await asyncio.sleep(0)
        transport.write(b"first ")
        transport.write(b"second")
        getattr(transport, end)()
        assert await receive_all(far) == b"first second"
        transport.close()

    run(main())


def test_what_is_held_is_sent_when_the_run_ends(loop, run, link):
    async def write():
        await asyncio.sleep(0)
        transport.write(b"first ")
        transport.write(b"second")

    async def interrupted():
        await write()
        raise KeyboardInterrupt

    transport, far = run(link(Recorder()))
    for ends in (write, interrupted):
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_until_complete(ends())
        assert transport.get_write_buffer_size() == 0
        assert far.recv(100) == b"first second"
    # Outside of a run there is no turn.
    transport.write(b"third ")
    transport.write(b"fourth")
    assert far.recv(100) == b"third fourth"
    transport.close()
    run(asyncio.sleep(0))


def test_a_limit_of_nothing_holds_nothing(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        transport.set_write_buffer_limits(high=0)
        await asyncio.sleep(0)
        for _ in range(3):
            transport.write(b"piece ")
            assert transport.get_write_buffer_size() == 0
        assert far.recv(100) == 3 * b"piece "
        assert "pause" not in protocol.log
        transport.close()

    run(main())


def test_a_reset_is_reported_once_though_more_is_held(loop, run, link, contexts):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        await asyncio.sleep(0)
        transport.write(b"unread")
        await asyncio.sleep(0)
        reset(far)
        transport.write(b"first")
        transport.write(b"second")
        await protocol.lost()
        assert len(protocol.lost_with) == 1

    run(main())
    assert contexts == []


def test_what_is_held_goes_before_what_is_written_to_the_socket_itself(loop, run, link):
    async def main():
        transport, far = await link(Recorder())
        await asyncio.sleep(0)
        transport.write(b"first ")
        transport.write(b"second ")
        os.write(transport.get_extra_info("socket").fileno(), b"third")
        assert far.recv(100) == b"first second third"
        transport.close()

    run(main())


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_close_does_not_depend_on_what_was_held(loop, run, link, pieces):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        await asyncio.sleep(0)
        for _ in range(pieces):
            transport.write(b"before ")
        transport.close()
        transport.write(b"after")
        assert await receive_all(far) == pieces * b"before "
        await protocol.lost()

    run(main())


def test_a_new_limit_finds_nothing_held(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, far = await link(protocol)
        await asyncio.sleep(0)
        transport.write(b"first ")
        transport.write(b"second")
        transport.set_write_buffer_limits(high=0)
        assert "pause" not in protocol.log and transport.get_write_buffer_size() == 0
        assert far.recv(100) == b"first second"
        transport.close()

    run(main())
