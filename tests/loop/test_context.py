"""Every callback runs in the context of the code that asked for it."""

import asyncio
import contextvars
import os
import signal
import threading

import pytest

from .support import BufferedRecorder, Recorder

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def given():
    context = contextvars.Context()
    context.run(variable.set, "given")
    return context


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_scheduled_callbacks(loop, turn, given, method):
    args = (0,) if method in ("call_later", "call_at") else ()
    got = []
    schedule = getattr(loop, method)
    schedule(*args, lambda: got.append(variable.get()), context=given)
    given.run(schedule, *args, lambda: got.append(variable.get()))
    schedule(*args, lambda: got.append(variable.get()))
    turn()
    assert got == ["given", "given", "unset"]


def test_a_callback_changes_its_own_context_only(loop, turn, given):
    loop.call_soon(variable.set, "changed", context=given)
    loop.call_soon(variable.set, "lost")
    turn()
    assert given[variable] == "changed"
    assert variable.get() == "unset"


def test_an_error_leaves_the_context(loop, turn, contexts, given):
    loop.call_soon(lambda: 1 / 0, context=given)
    turn()
    given.run(lambda: None)
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)


@pytest.mark.parametrize("bad", [5, "context", object()])
def test_an_invalid_context_is_reported_not_fatal(loop, turn, contexts, bad):
    try:
        loop.call_soon(print, context=bad)
    except TypeError:
        return
    turn()
    assert isinstance(contexts[0]["exception"], (TypeError, AttributeError))


def test_a_context_that_is_entered_already(loop, turn, caplog, given):
    got = []
    loop.call_soon(got.append, 1, context=given)
    given.run(turn)
    assert got == []
    assert "is already entered" in caplog.text


def test_readers_and_writers(loop, pair, given):
    near, far = pair
    got = []

    def ready(remove):
        got.append(variable.get())
        remove(near)
        if len(got) == 2:
            loop.stop()

    far.send(b"x")
    given.run(loop.add_reader, near, ready, loop.remove_reader)
    given.run(loop.add_writer, near, ready, loop.remove_writer)
    loop.run_forever()
    assert got == ["given", "given"]


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_protocol_callbacks(loop, run, pair, kind):
    near, far = pair

    class Protocol(kind):
        def note(self, *event):
            super().note(event[0], variable.get())

    async def main():
        variable.set("connecting")
        protocol = Protocol()
        _transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        variable.set("later")
        far.send(b"data")
        far.shutdown(1)
        await protocol.until(lambda: len(protocol.lost_with) == 1)
        return protocol.log

    assert set(run(main())) == {(name, "connecting") for name in ("made", "data", "eof", "lost")}


def test_flow_control_callbacks(loop, run, link):
    class Protocol(Recorder):
        def note(self, *event):
            super().note(event[0], variable.get())

    async def main():
        protocol = Protocol()
        variable.set("connecting")
        transport, far = await link(protocol)
        transport.set_write_buffer_limits(0)
        variable.set("writing")
        size = 4 << 20
        transport.write(bytes(size))
        while size:
            size -= len(await loop.sock_recv(far, 1 << 20))
        await protocol.until(lambda: any(event[0] == "resume" for event in protocol.log))
        return protocol.log

    # pause_writing() is called inside write(), as on asyncio; resume_writing() when the kernel has taken the rest.
    assert run(main()) == [("made", "connecting"), ("pause", "writing"), ("resume", "connecting")]


def test_flow_control_inside_a_callback_of_the_protocol(loop, run, link):
    """More pieces than one system call takes are sent, and the protocol resumed, within its own callback."""

    class Protocol(Recorder):
        def data_received(self, data):
            self.transport.writelines([b"x"] * 200)
            super().data_received(data)

        def note(self, *event):
            super().note(event[0], variable.get())

    async def main():
        variable.set("connecting")
        protocol = Protocol()
        transport, far = await link(protocol)
        transport.set_write_buffer_limits(0)
        variable.set("later")
        far.send(b"question")
        await protocol.until(lambda: ("data", "connecting") in protocol.log)
        received = b""
        while len(received) < 200:
            received += await loop.sock_recv(far, 1000)
        return protocol.log[1:], received

    log, received = run(main())
    assert received == b"x" * 200
    assert log == [(name, "connecting") for name in ("pause", "resume", "data")]


def test_done_callbacks_and_executor_results(loop, run, given):
    got = []

    async def main():
        future = loop.create_future()
        future.add_done_callback(lambda _: got.append(variable.get()), context=given)
        given.run(future.add_done_callback, lambda _: got.append(variable.get()))
        future.set_result(None)
        in_thread = loop.run_in_executor(None, lambda: None)
        in_thread.add_done_callback(lambda _: got.append(variable.get()), context=given)
        await in_thread
        await loop.shutdown_default_executor()

    run(main())
    assert got == ["given"] * 3


def test_accepted_connections_each_have_their_own_copy(loop, run):
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(variable.get())
            variable.set("of the connection")
            transport.close()

    async def main():
        variable.set("serving")
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        variable.set("later")
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return variable.get()

    assert run(main()) == "later"
    assert seen == ["serving"] * 3


def test_signal_handlers(loop, given):
    got = []

    def handler():
        got.append(variable.get())
        loop.stop()

    given.run(loop.add_signal_handler, signal.SIGUSR1, handler)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert got == ["given"]


def test_many_threads_post_into_contexts_of_their_own(elsewhere):
    results = []

    def produce(name):
        variable.set(name)
        for _ in range(200):
            elsewhere.loop.call_soon_threadsafe(lambda: results.append(variable.get() == name))

    threads = [threading.Thread(target=produce, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elsewhere.call(lambda: None)
    assert results == [True] * 800


def test_a_posted_callback_runs_in_the_very_context_it_was_given(elsewhere):
    """An empty context was treated as unused, and another one took its place."""
    context = contextvars.Context()
    handle = elsewhere.loop.call_soon_threadsafe(variable.set, "there", context=context)
    elsewhere.call(lambda: None)
    assert context.get(variable) == "there"
    assert handle.get_context() is context
