"""Transports on the ends of pipes and on sockets."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import weakref
from contextvars import ContextVar
from io import FileIO

import pytest

from .support import Recorder, collected


@pytest.fixture
def ends():
    """The reading and the writing end of a pipe, as unbuffered file objects."""
    read, write = (FileIO(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    with read, write:
        yield read, write


async def reader(loop, pipe):
    return await loop.connect_read_pipe(Recorder, pipe)


async def writer(loop, pipe):
    return await loop.connect_write_pipe(Recorder, pipe)


def fill(fd):
    """Fill a non-blocking pipe; returns how much went in."""
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(fd, b"." * 4096)
    return size


def test_bytes_go_through_a_pipe_and_its_end_is_reported(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        receiving, receiver = await reader(loop, ends[0])
        assert isinstance(receiving, asyncio.ReadTransport)
        assert isinstance(sending, asyncio.WriteTransport)
        assert not isinstance(receiving, asyncio.WriteTransport)
        assert not isinstance(sending, asyncio.ReadTransport)
        assert receiving.get_extra_info("pipe") is ends[0]
        assert sending.get_extra_info("pipe") is ends[1]
        assert receiving.get_extra_info("socket", 7) == 7
        assert not os.get_blocking(ends[0].fileno()) and not os.get_blocking(ends[1].fileno())
        sending.write(b"one ")
        sending.writelines([b"two ", bytearray(b"three "), memoryview(b"four")])
        assert await receiver.received(18) == b"one two three four"
        assert sending.can_write_eof()
        sending.write_eof()
        assert sending.is_closing() and await sender.lost() is None
        assert await receiver.lost() is None
        assert receiver.log[-2:] == ["eof", "lost"] and receiver.log[0] == "made"
        assert receiving.is_closing() and not receiving.is_reading()
        assert ends[0].closed and ends[1].closed
        assert repr(receiving) == "<ReadPipeTransport closed>"
        assert repr(sending) == "<WritePipeTransport closed>"

    run(main())


def test_much_data_arrives_whole_and_in_order(loop, run, ends):
    data = bytes(range(256)) * 40_000

    async def main():
        sending, sender = await writer(loop, ends[1])
        sending.set_write_buffer_limits(high=1 << 16)
        _, receiver = await reader(loop, ends[0])
        for start in range(0, len(data), 1 << 20):
            sending.write(memoryview(data)[start : start + (1 << 20)])
        assert sending.get_write_buffer_size() > 0
        sending.close()
        assert await receiver.received(len(data)) == data
        await sender.lost()
        assert sender.log[:2] == ["made", "pause"] and "resume" in sender.log

    run(main())


def test_flow_control_pauses_above_and_resumes_below(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        sending.set_write_buffer_limits(high=1000, low=10)
        assert sending.get_write_buffer_limits() == (10, 1000)
        filled = fill(ends[1].fileno())
        sending.write(b"x" * 1000)
        assert "pause" not in sender.log
        sending.write(b"y")
        assert "pause" in sender.log and sending.get_write_buffer_size() == 1001
        receiving, receiver = await reader(loop, ends[0])
        await sender.event("resume")
        assert (await receiver.received(filled + 1001)).endswith(b"xy")
        receiving.close()
        sending.abort()
        await sender.lost()

    run(main())


def test_reading_pauses_and_resumes(loop, run, ends):
    async def main():
        receiving, receiver = await reader(loop, ends[0])
        receiving.pause_reading()
        receiving.pause_reading()
        assert not receiving.is_reading()
        os.write(ends[1].fileno(), b"early")
        other, other_end = (FileIO(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        beside, neighbour = await reader(loop, other)
        other_end.write(b"x")
        other_end.close()
        await neighbour.lost()  # The loop has polled since, and reported nothing about the other.
        assert receiver.data == b""
        receiving.resume_reading()
        receiving.resume_reading()
        assert await receiver.received(5) == b"early"
        assert receiving.is_reading()
        receiving.close()
        assert not receiving.is_reading()
        receiving.pause_reading()
        receiving.resume_reading()
        await receiver.lost()
        assert beside.is_closing()

    run(main())


def test_nothing_is_read_before_connection_made(loop, run, ends):
    ends[1].write(b"early")

    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        receiving, receiver = await loop.connect_read_pipe(Pausing, ends[0])
        assert receiver.log == ["made"]
        receiving.resume_reading()
        await receiver.received(5)
        receiving.close()
        await receiver.lost()

    run(main())


def test_close_in_connection_made(loop, run, ends):
    class Closing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async def main():
        for pipe, connect in zip(ends, (loop.connect_read_pipe, loop.connect_write_pipe), strict=True):
            _, protocol = await connect(Closing, pipe)
            await protocol.lost()
            assert protocol.log == ["made", "lost"] and pipe.closed

    run(main())


def test_the_reader_going_away_is_noticed_without_writing(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        ends[0].close()
        assert await sender.lost() is None
        assert sending.is_closing() and ends[1].closed

    run(main())


def test_the_reader_going_away_fails_queued_writes(loop, run, ends, contexts):
    async def main():
        sending, sender = await writer(loop, ends[1])
        fill(ends[1].fileno())
        sending.write(b"never read")
        ends[0].close()
        assert isinstance(await sender.lost(), BrokenPipeError)
        assert contexts == []

    run(main())


def test_the_reader_going_away_ends_a_closing_transport(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        fill(ends[1].fileno())
        sending.write(b"never read")
        sending.close()
        sending.close()
        ends[0].close()
        assert isinstance(await sender.lost(), BrokenPipeError)
        assert sender.log.count("lost") == 1

    run(main())


def test_a_write_into_a_broken_pipe_is_lost_quietly_and_later_ones_are_logged(
    loop, run, ends, contexts, caplog
):
    class Never(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            ends[0].close()
            transport.write(b"x")

    async def main():
        sending, sender = await loop.connect_write_pipe(Never, ends[1])
        assert sending.is_closing()
        for _ in range(6):
            sending.write(b"x")
        assert isinstance(await sender.lost(), BrokenPipeError)
        assert contexts == []

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    assert {record.getMessage() for record in caplog.records} == {
        "pipe closed by peer or os.write(pipe, data) raised exception."
    }


def test_writing_after_close_is_ignored(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        filled = fill(ends[1].fileno())
        sending.write(b"kept")
        sending.write_eof()
        sending.write(b"ignored")
        sending.writelines([b"ignored"])
        _, receiver = await reader(loop, ends[0])
        await receiver.lost()
        assert receiver.data == b"." * filled + b"kept"
        assert await sender.lost() is None

    run(main())


def test_abort_discards_the_queue(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        filled = fill(ends[1].fileno())
        sending.write(b"lost")
        sending.abort()
        assert sending.get_write_buffer_size() == 0
        assert await sender.lost() is None
        _, receiver = await reader(loop, ends[0])
        await receiver.lost()
        assert len(receiver.data) == filled

    run(main())


def test_errors_of_data_received_are_reported_and_reading_goes_on(loop, run, ends, contexts):
    class Failing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if len(self.data) == 1:
                raise ZeroDivisionError

    async def main():
        receiving, receiver = await loop.connect_read_pipe(Failing, ends[0])
        ends[1].write(b"1")
        await receiver.received(1)
        ends[1].write(b"2")
        await receiver.received(2)
        ends[1].close()
        assert await receiver.lost() is None
        (context,) = contexts
        assert isinstance(context["exception"], ZeroDivisionError)
        assert context["transport"] is receiving and context["protocol"] is receiver

    run(main())


def test_errors_of_other_callbacks_are_reported_and_the_end_comes(loop, run, ends, contexts):
    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise LookupError("made")

        def eof_received(self):
            super().eof_received()
            raise LookupError("eof")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise LookupError("lost")

    async def main():
        _, receiver = await loop.connect_read_pipe(Failing, ends[0])
        ends[1].close()
        await receiver.lost()
        assert ends[0].closed

    run(main())
    assert [str(context["exception"]) for context in contexts] == ["made", "eof", "lost"]


def test_a_protocol_without_eof_received_is_reported(loop, run, ends, contexts):
    class Bare(asyncio.BaseProtocol):
        def __init__(self):
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        _, protocol = await loop.connect_read_pipe(Bare, ends[0])
        ends[1].close()
        assert await protocol.lost is None
        assert isinstance(contexts[0]["exception"], AttributeError)

    run(main())


def test_a_buffered_protocol_gets_data_received(loop, run, ends):
    class Buffered(Recorder, asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            raise AssertionError("not asked for")

    async def main():
        receiving, receiver = await loop.connect_read_pipe(Buffered, ends[0])
        ends[1].write(b"abc")
        assert await receiver.received(3) == b"abc"
        receiving.set_protocol(receiver)
        ends[1].write(b"def")
        assert await receiver.received(6) == b"abcdef"
        receiving.close()
        await receiver.lost()

    run(main())


def test_another_protocol_takes_over(loop, run, ends):
    async def main():
        receiving, first = await reader(loop, ends[0])
        second = Recorder()
        receiving.set_protocol(second)
        assert receiving.get_protocol() is second
        ends[1].write(b"x")
        ends[1].close()
        assert await second.received(1) == b"x"
        await second.lost()
        assert first.log == ["made"]

    run(main())


def test_callbacks_run_in_the_context_of_the_call(loop, run, ends):
    variable = ContextVar("variable", default=None)
    seen = []

    class Looking(Recorder):
        def note(self, *event):
            seen.append(variable.get())
            super().note(*event)

    async def main():
        variable.set("mine")
        _, receiver = await loop.connect_read_pipe(Looking, ends[0])
        variable.set("later")
        ends[1].write(b"x")
        ends[1].close()
        await receiver.lost()
        assert receiver.log == ["made", ("data", 1), "eof", "lost"]
        assert seen == ["mine"] * 4

    run(main())


@pytest.mark.parametrize("end", [0, 1])
def test_a_cancelled_connect_closes_the_pipe(loop, run, ends, end):
    async def main():
        connect = (loop.connect_read_pipe, loop.connect_write_pipe)[end]
        task = loop.create_task(connect(Recorder, ends[end]))
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        closed = loop.create_future()
        loop.call_soon(closed.set_result, None)
        await closed
        assert ends[end].closed

    run(main())


@pytest.mark.parametrize("name", ["connect_read_pipe", "connect_write_pipe"])
def test_a_regular_file_is_refused_and_left_alone(loop, run, tmp_path, name):
    with FileIO(tmp_path / "file", "w+b") as file:
        with pytest.raises(ValueError, match="^Pipe transport is (only )?for pipes"):
            run(getattr(loop, name)(Recorder, file))
        assert not file.closed and os.get_blocking(file.fileno())


@pytest.mark.parametrize("name", ["connect_read_pipe", "connect_write_pipe"])
def test_a_closed_descriptor_is_an_error(loop, run, name):
    class Gone:
        def fileno(self):
            return 10**6

    with pytest.raises(OSError, match="Bad file descriptor"):
        run(getattr(loop, name)(Recorder, Gone()))


def test_a_socket_serves_as_either_end(loop, run):
    async def main():
        near, far = socket.socketpair()
        sending, sender = await writer(loop, near)
        receiving, receiver = await reader(loop, far)
        sending.write(b"x" * 300_000)
        await receiver.received(300_000)
        receiving.close()
        assert await sender.lost() is None
        assert near.fileno() == -1 == far.fileno()

    run(main())


def test_a_datagram_socket_is_read_message_by_message(loop, run):
    async def main():
        near, far = socket.socketpair(type=socket.SOCK_DGRAM)
        with far:
            for message in (b"a", b"bb", b"ccc"):
                far.send(message)
            receiving, receiver = await reader(loop, near)
            await receiver.received(6)
            assert receiver.log == ["made", ("data", 1), ("data", 2), ("data", 3)]
            receiving.close()
            await receiver.lost()

    run(main())


def test_a_pipe_of_packets_is_read_packet_by_packet(loop, run):
    read, write = os.pipe2(os.O_DIRECT)
    for packet in (b"a", b"bb", b"ccc"):
        os.write(write, packet)

    async def main():
        _, receiver = await reader(loop, FileIO(read, "rb"))
        await receiver.received(6)
        assert receiver.log == ["made", ("data", 1), ("data", 2), ("data", 3)]
        os.close(write)
        await receiver.lost()

    run(main())


def test_an_endless_device_does_not_starve_others(loop, run, ends):
    async def main():
        endless, zeros = await reader(loop, FileIO("/dev/zero", "rb"))
        other, receiver = await reader(loop, ends[0])
        for n in range(10):
            loop.call_soon(ends[1].write, b"x")
            await receiver.received(n + 1)
            await asyncio.sleep(0.001)
            zeros.data.clear()
        endless.pause_reading()
        read = len(zeros.log)
        ends[1].write(b"x")
        await receiver.received(11)
        assert len(zeros.log) == read
        endless.resume_reading()
        await zeros.until(lambda: len(zeros.log) > read)
        endless.close()
        await zeros.lost()
        other.close()
        await receiver.lost()

    run(main())


def test_a_failed_read_is_reported(loop, run, contexts):
    async def main():
        near, far = socket.socketpair()
        far.send(b"x")  # Unread data when that end closes: this end gets a reset.
        near.send(b"y")
        receiving, receiver = await reader(loop, far)
        await receiver.received(1)
        far_copy = receiving.get_extra_info("pipe")
        near.close()
        lost = await receiver.lost()
        assert isinstance(lost, ConnectionResetError) and far_copy.fileno() == -1
        assert contexts[0]["message"] == "Fatal read error on pipe transport"
        assert contexts[0]["transport"] is receiving

    run(main())


def test_unclosed_transports_warn_when_the_loop_closed(loop, ends):
    async def main():
        return (await reader(loop, ends[0]))[0], (await writer(loop, ends[1]))[0]

    transports = list(loop.run_until_complete(main()))
    loop.close()
    names = [
        f"unclosed transport <{kind}PipeTransport fd={end.fileno()} open "
        for kind, end in zip(("Read", "Write"), ends, strict=True)
    ]
    for name in names:
        reference = weakref.ref(transports[0])
        with pytest.warns(ResourceWarning, match=name):
            del transports[0]
            gc.collect()
        assert collected(reference)
    assert ends[0].closed and ends[1].closed


def test_debug_mode_logs_the_closing_by_the_peer(loop, run, ends, caplog):
    loop.set_debug(True)

    async def main():
        _, receiver = await reader(loop, ends[0])
        ends[1].close()
        await receiver.lost()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main())
    assert any("was closed by peer" in record.getMessage() for record in caplog.records)
    assert any(record.getMessage().startswith("Read pipe ") for record in caplog.records)


def test_wrong_types_are_refused(loop, run, ends):
    async def main():
        sending, sender = await writer(loop, ends[1])
        with pytest.raises(TypeError, match="bytes, bytearray, or memoryview"):
            sending.write("text")
        assert not hasattr(sending, "pause_reading")
        sending.close()
        await sender.lost()

    run(main())
