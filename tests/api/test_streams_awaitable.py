"""A read of a native stream as an awaitable: its steps, its end, its names, and the thread that steps it."""

import asyncio
import gc
import threading

import pytest

import tokioloop

from ..loop.support import PATIENCE
from .streams_support import LIMIT, at_once


def test_nothing_happens_before_it_is_awaited(reader):
    read = reader.read(2)
    reader.feed_data(b"abc")
    assert reader._buffer == b"abc"
    assert at_once(read) == b"ab"


@pytest.mark.parametrize("name", ["read", "readline", "readuntil", "__anext__"])
def test_a_read_that_is_never_awaited_warns(reader, name):
    with pytest.warns(RuntimeWarning, match=rf"coroutine 'StreamReader.{name}' was never awaited"):
        getattr(reader, name)()


def test_its_names(reader):
    read = reader.readexactly(1)
    assert (read.__name__, read.__qualname__) == ("readexactly", "StreamReader.readexactly")
    assert repr(read).startswith("<coroutine object StreamReader.readexactly at 0x")
    assert asyncio.iscoroutine(read)
    read.close()


def test_once_only(reader):
    reader.feed_data(b"a")
    read = reader.read(1)
    at_once(read)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.throw(KeyError)
    read.close()
    closed = reader.read(1)
    closed.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        closed.send(None)


def test_a_set_stop_iteration_is_not_a_result(reader):
    reader.set_exception(StopIteration("no result"))
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        reader.read(1).send(None)


def test_in_a_task(loop, run, reader):
    async def main():
        tasks = [loop.create_task(reader.readexactly(3)), loop.create_task(reader.read(1))]
        await asyncio.sleep(0)
        assert "StreamReader.readexactly" in repr(tasks[0])
        with pytest.raises(RuntimeError, match=r"read\(\) called while another coroutine is already waiting"):
            await tasks[1]
        reader.feed_data(b"abc")
        assert await tasks[0] == b"abc"
        reader.feed_data(b"d")
        assert await asyncio.wait_for(reader.read(10), PATIENCE) == b"d"
        reader.feed_eof()
        assert await asyncio.gather(reader.read(1), reader.read()) == [b"", b""]

    run(main())


def test_a_read_that_is_dropped_waits_no_more(reader):
    read = reader.read(1)
    read.send(None)
    assert reader._waiter is not None
    del read
    gc.collect()
    assert reader._waiter is None


def test_one_thread_steps_it(loop, reader):
    """While it is being stepped, other threads are refused; nothing breaks."""

    class Transport:
        def pause_reading(self):
            pass

        def resume_reading(self):
            inside.set()
            assert go_on.wait(PATIENCE)

    inside, go_on = threading.Event(), threading.Event()
    reader.set_transport(Transport())
    reader.feed_data(bytes(3 * LIMIT))
    read = reader.read(2 * LIMIT)
    results = []
    thread = threading.Thread(target=lambda: results.append(at_once(read)))
    thread.start()
    assert inside.wait(PATIENCE)
    for step in (lambda: read.send(None), lambda: read.throw(KeyError), read.close):
        with pytest.raises(ValueError, match="already executing"):
            step()
    assert read.cr_running
    go_on.set()
    thread.join()
    assert results == [bytes(2 * LIMIT)]


def test_reading_cr_await_does_not_block_a_step(loop, run, reader):
    under_way, end = [], threading.Event()

    def look():
        while not end.is_set():
            for read in under_way[-1:]:
                read.cr_await  # noqa: B018 - that it is looked up is the test
                read.cr_running  # noqa: B018

    async def main():
        for n in range(5000):
            read = reader.readexactly(1)
            under_way.append(read)
            task = loop.create_task(read)
            await asyncio.sleep(0)
            reader.feed_data(b"%d" % (n % 10))
            assert await task == b"%d" % (n % 10)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        run(main())
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize(
    "make", [tokioloop.TokioLoop, asyncio.SelectorEventLoop], ids=["tokioloop", "asyncio"]
)
def test_errors_of_a_step_on_any_loop(make):
    async def main():
        reader = tokioloop.StreamReader()
        with pytest.raises(TypeError, match="bytes-like"):
            await reader.readuntil(1)
        reader.set_exception(StopIteration("no result"))
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as refusal:
            await reader.read(1)
        assert isinstance(refusal.value.__cause__, StopIteration)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())
