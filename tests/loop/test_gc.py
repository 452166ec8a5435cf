"""Unreferenced objects are collected, in cycles too; unclosed ones warn."""

import asyncio
import gc
import socket
import threading
import warnings
import weakref

import pytest

import tokioloop

from .support import Recorder, collected, python, unix_pair

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def quiet(caplog):
    """A task destroyed while pending is reported; these tests ignore that."""
    gc.collect()
    yield
    gc.collect()


def test_an_unclosed_loop_warns_and_is_closed():
    loop = tokioloop.TokioLoop()
    reference = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop <TokioLoop running=False closed=False"):
        del loop
        gc.collect()
    assert collected(reference)


def test_a_closed_loop_is_freed_without_the_collector():
    loop = tokioloop.TokioLoop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    reference = weakref.ref(loop)
    del loop
    assert collected(reference)


@pytest.mark.parametrize("close", [False, True])
def test_a_loop_in_a_cycle_with_its_callbacks(close):
    loop = tokioloop.TokioLoop()
    loop.run_until_complete(asyncio.sleep(0))

    class Payload:
        def __call__(self):
            pass

    payload = Payload()
    payload.loop = loop
    loop.call_soon(payload)
    loop.call_later(100, payload)
    loop.call_soon_threadsafe(payload)
    loop.set_exception_handler(payload)
    loop.set_task_factory(payload)
    loop.attribute = payload
    references = [weakref.ref(loop), weakref.ref(payload)]
    if close:
        loop.close()
    del loop, payload
    assert all(collected(reference) for reference in references)


def test_an_unclosed_loop_with_readers():
    loop = tokioloop.TokioLoop()
    near, far = unix_pair()

    class Payload:
        def __call__(self):
            pass

    payload = Payload()
    payload.loop = loop
    loop.add_reader(near, payload)
    loop.add_writer(far, payload)
    references = [weakref.ref(loop), weakref.ref(payload)]
    del loop, payload
    assert all(collected(reference) for reference in references)
    near.close()
    far.close()


@pytest.mark.parametrize("close", [False, True])
def test_a_loop_in_a_cycle_with_a_transport(close):
    loop = tokioloop.TokioLoop()
    near, far = unix_pair()
    protocol = Recorder()
    made = [protocol]
    transport = loop.run_until_complete(loop.create_connection(made.pop, sock=near))[0]
    protocol.loop = loop
    references = [weakref.ref(it) for it in (loop, protocol, transport)]
    if close:
        loop.close()
    del loop, protocol, transport
    assert all(collected(reference) for reference in references)
    assert near.fileno() == -1, "the transport's socket was left open"
    far.close()


def test_an_unclosed_transport_warns():
    loop = tokioloop.TokioLoop()
    near, far = unix_pair()
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport <StreamTransport"):
        del transport
        gc.collect()
    far.close()


def test_the_warning_may_bring_a_transport_back_to_life():
    loop = tokioloop.TokioLoop()
    near, far = unix_pair()
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport
        gc.collect()
    revived = next(it.source for it in caught if "unclosed transport" in str(it.message))
    assert "closed" in repr(revived)
    assert revived.get_write_buffer_size() == 0
    reference = weakref.ref(revived)
    del revived
    caught.clear()
    assert collected(reference)
    far.close()


def test_a_closed_transport_is_freed(loop, run, link):
    async def main():
        protocol = Recorder()
        transport, _far = await link(protocol)
        transport.close()
        await protocol.lost()
        return weakref.ref(protocol)

    protocol = run(main())
    # The fixture keeps the transport, and that its protocol; both go with the fixture.
    assert protocol() is None or protocol().transport.is_closing()


def test_closed_connections_leave_nothing_behind(loop, run):
    references = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            references.extend([weakref.ref(self), weakref.ref(transport)])

    async def main():
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        for _ in range(20):
            _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())
    assert len(references) == 40
    assert all(collected(reference) for reference in references)


@pytest.mark.parametrize("call", ["sock_recv", "sock_accept", "sock_sendall", "sock_recv_into"])
def test_a_task_that_waits_for_a_socket_forever(call, caplog):
    """The collector did not see the future inside the call: task, loop and locals stayed."""
    loop = tokioloop.TokioLoop()
    near, far = unix_pair()
    argument = {"sock_recv": (10,), "sock_recv_into": (bytearray(10),), "sock_sendall": (bytes(1 << 22),)}

    class Local:
        pass

    references = []

    async def main():
        loop = asyncio.get_running_loop()
        local = Local()
        references.append(weakref.ref(local))
        if call == "sock_accept":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.setblocking(False)
                await loop.sock_accept(listener)
        else:
            await getattr(loop, call)(near, *argument[call])

    task = loop.create_task(main())
    loop.stop()
    loop.run_forever()
    loop.stop()
    loop.run_forever()
    assert not task.done()
    references += [weakref.ref(task), weakref.ref(loop)]
    loop.close()
    del task, loop
    assert all(collected(reference) for reference in references)
    near.close()
    far.close()


def test_a_pending_lookup_does_not_keep_a_closed_loop():
    loop = tokioloop.TokioLoop()
    task = loop.create_task(loop.getnameinfo(("127.0.0.1", 80)))
    task._log_destroy_pending = False
    loop.stop()
    loop.run_forever()
    loop.close()
    reference = weakref.ref(loop)
    del loop, task
    assert collected(reference)


def test_collecting_in_another_thread_while_the_loop_works(elsewhere):
    """The collector looks into a loop that another thread runs, sleeping or busy."""
    stop = threading.Event()

    def churn():
        elsewhere.loop.call_later(100, object, object()).cancel()
        if not stop.is_set():
            elsewhere.loop.call_soon(churn)

    for busy in (False, True):
        if busy:
            elsewhere.loop.call_soon_threadsafe(churn)
        for _ in range(50):
            gc.collect()
    stop.set()
    assert elsewhere.call(lambda: 5) == 5


def test_a_loop_of_c_callbacks_lets_the_collector_in():
    """It never passed a safe point: gc.collect() in another thread hung."""
    python(
        """
        import functools, gc, threading, faulthandler, tokioloop
        faulthandler.dump_traceback_later(60, exit=True)
        loop = tokioloop.TokioLoop()
        again = functools.partial(loop.call_soon)
        again.__setstate__((loop.call_soon, (again,), {}, {}))
        started = threading.Event()
        loop.call_soon(started.set)
        loop.call_soon(again)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        started.wait()
        gc.collect()
        loop.stop()
        thread.join()
        loop.close()
        """
    )


def test_loops_lists_live_loops_only():
    before = set(map(id, tokioloop.loops().values()))
    loop = tokioloop.TokioLoop()
    del loop
    gc.collect()
    assert set(map(id, tokioloop.loops().values())) == before


@pytest.mark.parametrize("cancel", [False, True])
def test_an_object_that_keeps_the_handle_of_its_own_post(elsewhere, cancel):
    """``self.handle = loop.call_soon_threadsafe(self.method)``: the cycle goes through what was sent across."""

    class Owner:
        def method(self, *args):
            pass

    references = []
    for _ in range(3):
        owner = Owner()
        owner.handle = elsewhere.loop.call_soon_threadsafe(owner.method, owner, owner, owner)
        if cancel:
            owner.handle.cancel()
        references.append(weakref.ref(owner))
    del owner
    elsewhere.call(lambda: None)
    assert all(collected(reference) for reference in references)


def test_the_same_on_a_loop_that_never_runs_again(loop):
    class Owner:
        def method(self):
            pass

    def post(owner):
        owner.handle = loop.call_soon_threadsafe(owner.method)

    owner = Owner()
    thread = threading.Thread(target=post, args=(owner,))
    thread.start()
    thread.join()
    del thread
    reference = weakref.ref(owner)
    del owner
    loop.close()
    assert collected(reference)


def test_a_loop_left_open_at_the_interpreters_end_warns():
    done = python(
        """
        import warnings
        warnings.simplefilter("default")
        import tokioloop
        loops = [tokioloop.TokioLoop()]
        """
    )
    assert "ResourceWarning: unclosed event loop" in done.stderr
    assert "Exception ignored" not in done.stderr
