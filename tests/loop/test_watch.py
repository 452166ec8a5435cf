"""add_reader and add_writer."""

import gc
import os
import socket
import tempfile
import weakref

import pytest

from .support import collected, unix_pair


def test_readers_are_level_triggered(loop, pair):
    near, far = pair
    got = []

    def readable():
        got.append(near.recv(1))
        if len(got) == 5:
            loop.stop()

    far.send(b"abcde")
    loop.add_reader(near, readable)
    loop.run_forever()
    assert b"".join(got) == b"abcde"
    assert loop.remove_reader(near) is True and loop.remove_reader(near) is False


def test_writers_are_level_triggered(loop, pair):
    near, _ = pair
    count = 0

    def writable():
        nonlocal count
        count += 1
        if count == 5:
            loop.remove_writer(near)
            loop.stop()

    loop.add_writer(near, writable)
    loop.run_forever()
    assert count == 5


def test_reader_and_writer_of_one_descriptor(loop, pair):
    near, far = pair
    got = []

    def writable():
        got.append("w")
        loop.remove_writer(near)
        far.send(b"x")

    def readable():
        got.append("r")
        near.recv(1)
        loop.remove_reader(near)
        loop.stop()

    loop.add_reader(near, readable)
    loop.add_writer(near, writable)
    loop.run_forever()
    assert got == ["w", "r"]


def test_a_reader_is_replaced(loop, pair):
    near, far = pair
    got = []
    loop.add_reader(near, got.append, "first")
    loop.add_reader(near, lambda: (got.append("second"), loop.remove_reader(near), loop.stop()))
    far.send(b"x")
    loop.run_forever()
    assert got == ["second"]


def test_a_callback_replaces_itself(loop, pair):
    near, far = pair
    got = []

    def first():
        got.append("first")
        loop.add_reader(near, second)

    def second():
        got.append("second")
        loop.remove_reader(near)
        loop.stop()

    far.send(b"x")
    loop.add_reader(near, first)
    loop.run_forever()
    assert got == ["first", "second"]


def test_removed_by_the_callback_of_another_descriptor(loop):
    pairs = [unix_pair() for _ in range(2)]
    got = []

    def readable(mine, other):
        got.append(mine)
        loop.remove_reader(pairs[mine][0])
        loop.remove_reader(pairs[other][0])
        loop.call_soon(loop.stop)

    for n in range(2):
        pairs[n][1].send(b"x")
        loop.add_reader(pairs[n][0], readable, n, 1 - n)
    loop.run_forever()
    assert len(got) == 1
    for near, far in pairs:
        near.close()
        far.close()


def test_the_callback_is_released(loop, pair):
    near, _ = pair

    class Callback:
        def __call__(self):
            pass

    references = []
    for add, remove in ((loop.add_reader, loop.remove_reader), (loop.add_writer, loop.remove_writer)):
        for _ in range(2):
            callback = Callback()
            references.append(weakref.ref(callback))
            add(near, callback)
            del callback
        remove(near)
    assert all(collected(reference) for reference in references)


def test_a_hang_up_wakes_readers_and_writers(loop):
    near, far = unix_pair()
    got = []

    def ready(name, remove):
        got.append(name)
        remove(near)
        if len(got) == 2:
            loop.stop()

    far.close()
    loop.add_reader(near, ready, "reader", loop.remove_reader)
    loop.add_writer(near, ready, "writer", loop.remove_writer)
    loop.run_forever()
    assert sorted(got) == ["reader", "writer"]
    near.close()


def test_pipes(loop):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    got = []

    def readable():
        data = os.read(reading, 100)
        got.append(data)
        if not data:
            loop.remove_reader(reading)
            loop.stop()

    loop.add_reader(reading, readable)
    loop.call_soon(os.write, writing, b"through the pipe")
    loop.call_later(0.001, os.close, writing)
    loop.run_forever()
    assert b"".join(got) == b"through the pipe"
    os.close(reading)


def test_regular_files_cannot_be_watched(loop):
    with tempfile.TemporaryFile() as file:
        for add in (loop.add_reader, loop.add_writer):
            with pytest.raises(PermissionError):
                add(file, print)
        assert loop.remove_reader(file) is False


@pytest.mark.parametrize("bad", [-1, "file", None, object(), 1.5, 2**40])
def test_an_object_that_is_not_a_descriptor(loop, bad):
    with pytest.raises((ValueError, TypeError, OverflowError)):
        loop.add_reader(bad, print)


def test_a_closed_descriptor(loop):
    near, far = unix_pair()
    number = near.fileno()
    near.close()
    far.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.add_reader(number, print)
    assert loop.remove_reader(number) is False


@pytest.mark.parametrize("way", ["reader", "writer"])
def test_the_callback_of_a_closed_socket_is_removed_by_the_socket(loop, way):
    """As asyncio's selectors allow: many a program closes first and removes then."""
    add, remove = getattr(loop, f"add_{way}"), getattr(loop, f"remove_{way}")

    class Callback:
        def __call__(self):
            pass

    near, far = unix_pair()
    callback = Callback()
    reference = weakref.ref(callback)
    add(near, callback)
    del callback
    near.close()
    far.close()
    assert remove(near) is True
    assert collected(reference)
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        remove(near)


def test_a_closed_socket_removes_nothing_of_the_next_owner_of_its_number(loop):
    old, far = unix_pair()
    loop.add_reader(old, pytest.fail, "the old one was called")
    number = old.fileno()
    old.close()
    far.close()
    near, far = unix_pair()
    try:
        if near.fileno() != number:
            os.dup2(near.fileno(), number)
            near.close()
            near = socket.socket(fileno=number)
        loop.add_reader(near, lambda: (loop.remove_reader(near), loop.stop()))
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            loop.remove_reader(old)
        far.send(b"x")
        loop.run_forever()
        assert near.recv(1) == b"x"
    finally:
        near.close()
        far.close()


def test_a_closed_loop_has_nothing_to_remove_from_a_closed_socket(loop):
    near, far = unix_pair()
    loop.add_reader(near, print)
    loop.close()
    near.close()
    far.close()
    assert loop.remove_reader(near) is False
    assert loop.remove_writer(near) is False


def test_a_watched_socket_stays_alive(loop):
    near, far = unix_pair()
    reference = weakref.ref(near)
    loop.add_reader(near, loop.stop)
    del near
    gc.collect()
    far.send(b"x")
    loop.run_forever()
    near = reference()
    assert near is not None
    loop.remove_reader(near)
    near.close()
    far.close()
    del near
    assert collected(reference)


def test_a_descriptor_closed_under_its_watch_and_used_again(loop):
    near, far = unix_pair()
    number = near.fileno()
    loop.add_reader(number, pytest.fail, "the old one was called")
    near.close()
    far.close()
    near, far = unix_pair()
    try:
        if near.fileno() != number:
            os.dup2(near.fileno(), number)
            near.close()
            near = socket.socket(fileno=number)
        loop.add_reader(near, lambda: (loop.remove_reader(near), loop.stop()))
        far.send(b"x")
        loop.run_forever()
        assert near.recv(1) == b"x"
    finally:
        near.close()
        far.close()


def test_a_stale_wait_does_not_hurt_the_next_owner_of_the_number(loop, run):
    """A sock_recv whose socket was closed under it: cancelling it later silenced the transport that got the number."""
    import asyncio

    from .support import Recorder

    async def main():
        near, far = unix_pair()
        number = near.fileno()
        waiting = asyncio.create_task(loop.sock_recv(near, 1))
        await asyncio.sleep(0)
        near.close()
        far.close()
        near, far = unix_pair()
        if near.fileno() != number:
            os.dup2(near.fileno(), number)
            near.close()
            near = socket.socket(fileno=number)
            near.setblocking(False)
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        transport.abort()
        await protocol.lost()
        far.close()

    run(main())


def test_errors_of_watch_callbacks_are_reported_and_the_watch_stays(loop, pair, contexts):
    near, far = pair
    calls = []

    def readable():
        calls.append(1)
        if len(calls) == 3:
            loop.remove_reader(near)
            loop.stop()
        raise LookupError

    far.send(b"x")
    loop.add_reader(near, readable)
    loop.run_forever()
    assert len(calls) == len(contexts) == 3


def test_a_destructor_that_comes_back_when_replacing_its_watch_fails(loop):
    """A failing add_reader drops the former callback; that may run code which uses the loop."""
    near, far = unix_pair()
    number = near.fileno()
    seen = []

    class Callback:
        def __call__(self):
            pass

        def __del__(self):
            loop.call_soon(seen.append, 1)
            loop.add_reader(far, print)
            loop.remove_reader(far)

    loop.add_reader(number, Callback())
    near.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.add_reader(number, print)
    gc.collect()
    loop.remove_reader(number)
    loop.stop()
    loop.run_forever()
    assert seen == [1]
    far.close()


def test_many_descriptors(loop):
    pairs = [unix_pair() for _ in range(200)]
    got = []

    def readable(near, n):
        got.append(n)
        near.recv(1)
        loop.remove_reader(near)
        if len(got) == len(pairs):
            loop.stop()

    for n, (near, far) in enumerate(pairs):
        loop.add_reader(near, readable, near, n)
        far.send(b"x")
    loop.run_forever()
    assert sorted(got) == list(range(200))
    for near, far in pairs:
        near.close()
        far.close()
