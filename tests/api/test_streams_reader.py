"""A native stream reader on its own: what a read takes, and the buffer, as asyncio has it."""

import asyncio
import threading
from contextlib import suppress

import pytest

import tokioloop

from .streams_support import at_once


def test_a_read_that_finds_its_bytes_awaits_nothing(reader):
    reader.feed_data(b"one\ntwo\nand so on")
    assert at_once(reader.readline()) == b"one\n"
    assert at_once(reader.readuntil(b"\n")) == b"two\n"
    assert at_once(reader.readexactly(3)) == b"and"
    assert at_once(reader.read(100)) == b" so on"
    assert reader._waiter is None


def test_a_piece_that_is_read_as_a_whole_is_not_copied(reader):
    piece = b"a piece of some length"
    for read in (reader.read, reader.readexactly):
        reader.feed_data(piece)
        assert at_once(read(len(piece))) is piece
    reader.feed_data(b"line\n")
    line = b"another line\n"
    assert at_once(reader.readline()) == b"line\n"
    reader.feed_data(line)
    assert at_once(reader.readline()) is line


def test_a_read_that_is_cancelled_takes_nothing(loop, run, reader):
    async def main():
        for already_woken in (False, True):
            reading = loop.create_task(reader.readexactly(2))
            await asyncio.sleep(0)
            waiter = reader._waiter
            assert waiter is not None
            if already_woken:
                reader.feed_data(b"ab")
                assert waiter.done()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert reader._waiter is None
            if not already_woken:
                reader.feed_data(b"xy")
            assert at_once(reader.read(2)) == (b"ab" if already_woken else b"xy")

    run(main())


def test_sizes_beyond_any_stream(loop):
    reader = tokioloop.StreamReader(2**80, loop)
    reader.feed_data(b"abc")
    assert at_once(reader.read(2**70)) == b"abc"
    reader.feed_data(b"line\n")
    assert at_once(reader.readline()) == b"line\n"
    reader.feed_data(b"all")
    reader.feed_eof()
    assert at_once(reader.read(-(2**70))) == b"all"
    with pytest.raises(asyncio.IncompleteReadError):
        reader.readexactly(2**70).send(None)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_above_zero(loop, limit):
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        tokioloop.StreamReader(limit, loop)


def test_the_buffer_is_live(reader):
    reader.feed_data(b"abc")
    buffer = reader._buffer
    assert isinstance(buffer, bytearray) and buffer == b"abc"
    buffer += b"def"
    reader.feed_data(b"ghi")
    assert at_once(reader.read(4)) == b"abcd"
    assert reader._buffer is buffer and buffer == b"efghi"
    buffer.clear()
    reader.feed_data(b"x")
    assert buffer == b"x"
    reader._buffer = bytearray(b"other")
    assert at_once(reader.read(10)) == b"other"
    with pytest.raises(TypeError):
        reader._buffer = b"bytes"


def test_a_buffer_that_is_held_refuses_to_grow(reader):
    reader.feed_data(b"abc")
    with memoryview(reader._buffer) as view:
        with pytest.raises(BufferError):
            reader.feed_data(b"d")
        assert view == b"abc"
    reader.feed_data(b"d")
    assert at_once(reader.read(10)) == b"abcd"


def test_fed_and_read_by_many_threads(loop):
    """A reader belongs to one thread; several threads may mix up its results, but not corrupt its memory."""
    reader = tokioloop.StreamReader(1000, loop)
    failures: list[BaseException] = []
    end = threading.Event()

    def work(n: int) -> None:
        try:
            for count in range(3000):
                if end.is_set():
                    return
                if n % 2:
                    reader.feed_data(b"line %d\n" % count)
                else:
                    read = [reader.readline, lambda: reader.read(7), lambda: reader.readexactly(3)][
                        count % 3
                    ]()
                    with suppress(StopIteration, RuntimeError, ValueError, asyncio.LimitOverrunError):
                        read.send(None)
                    read.close()
                    repr(reader)
        except BaseException as error:
            failures.append(error)
            end.set()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
