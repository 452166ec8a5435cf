"""One loop, one thread: what other threads may do, and the errors that they get."""

import asyncio
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import tokioloop

from .support import Recorder, collected, python, tcp_pair, unix_pair


def in_thread(function, *args):
    """Run a function in a thread of its own; its result or exception."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def test_made_here_and_run_there(loop):
    got = []

    def there():
        loop.run_until_complete(asyncio.sleep(0))
        got.append(threading.get_ident())
        assert tokioloop.loops()[threading.get_ident()] is loop

    loop.call_soon(lambda: got.append(threading.get_ident()))
    in_thread(there)
    assert len(set(got)) == 1 and got[0] != threading.get_ident()
    loop.run_until_complete(asyncio.sleep(0))


def test_what_was_set_up_here_works_there(loop):
    near, far = unix_pair()
    protocol = Recorder()

    async def begin():
        await loop.create_connection(lambda: protocol, sock=near)

    async def go_on():
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        protocol.transport.write(b"back")
        assert await loop.sock_recv(far, 10) == b"back"
        protocol.transport.close()
        await protocol.lost()

    loop.run_until_complete(begin())
    timer = loop.call_later(0.001, protocol.note, "timer")
    in_thread(loop.run_until_complete, go_on())
    loop.run_until_complete(protocol.event("timer"))
    assert not timer.cancelled()
    far.close()


def test_a_loop_passed_around_many_threads(loop):
    got = []
    for n in range(50):
        loop.call_soon(got.append, n)
        loop.call_soon(loop.stop)
        in_thread(loop.run_forever)
    assert got == list(range(50))


def test_two_loops_in_two_threads_do_not_meet():
    barrier = threading.Barrier(2)

    def work():
        loop = tokioloop.TokioLoop()

        async def main():
            barrier.wait()
            assert asyncio.get_running_loop() is loop
            for _ in range(200):
                await asyncio.sleep(0)
                assert asyncio.get_running_loop() is loop
                assert tokioloop._tokioloop.get_event_loop() is loop
                assert tokioloop._tokioloop.get_running_loop() is loop
            return threading.get_ident()

        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    with ThreadPoolExecutor(2) as pool:
        idents = list(pool.map(lambda _: work(), range(2)))
    assert idents[0] != idents[1]


@pytest.fixture
def connected(elsewhere):
    """A transport on a loop that runs in another thread, and its peer."""
    near, far = tcp_pair()
    protocol = Recorder()

    async def connect():
        transport, _ = await elsewhere.loop.create_connection(lambda: protocol, sock=near)
        return transport

    transport = elsewhere.wait(connect())
    yield transport, far

    async def end():
        transport.abort()
        await protocol.lost()

    elsewhere.wait(end())
    far.close()


MUTATING = {
    "call_soon": lambda loop, sock: loop.call_soon(print),
    "call_later": lambda loop, sock: loop.call_later(1, print),
    "call_at": lambda loop, sock: loop.call_at(1, print),
    "run_forever": lambda loop, sock: loop.run_forever(),
    "close": lambda loop, sock: loop.close(),
    "set_task_factory": lambda loop, sock: loop.set_task_factory(None),
    "set_exception_handler": lambda loop, sock: loop.set_exception_handler(None),
    "add_reader": lambda loop, sock: loop.add_reader(sock, print),
    "remove_reader": lambda loop, sock: loop.remove_reader(sock),
    "add_writer": lambda loop, sock: loop.add_writer(sock, print),
    "remove_writer": lambda loop, sock: loop.remove_writer(sock),
    "run_in_executor": lambda loop, sock: loop.run_in_executor(None, print),
    "set_default_executor": lambda loop, sock: loop.set_default_executor(None),
    "add_signal_handler": lambda loop, sock: loop.add_signal_handler(10, print),
    "remove_signal_handler": lambda loop, sock: loop.remove_signal_handler(10),
    "slow_callback_duration": lambda loop, sock: setattr(loop, "slow_callback_duration", 1.0),
    "_make_socket_transport": lambda loop, sock: loop._make_socket_transport(sock, asyncio.Protocol()),
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1).send(None),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)).send(None),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x").send(None),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock).send(None),
}


@pytest.mark.parametrize("name", MUTATING)
def test_a_foreign_thread_is_refused(elsewhere, name):
    near, far = unix_pair()
    with near, far, pytest.raises(RuntimeError) as caught:
        MUTATING[name](elsewhere.loop, near)
    if name not in ("run_forever", "close"):
        message = str(caught.value)
        assert f"elsewhere (ident {elsewhere.thread.ident})" in message
        assert f"{threading.current_thread().name} (ident {threading.get_ident()})" in message
    assert elsewhere.call(lambda: "unharmed") == "unharmed"


def test_create_task_from_a_foreign_thread_is_refused(elsewhere):
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="elsewhere"):
        elsewhere.loop.create_task(coro)
    coro.close()


def test_threads_unknown_to_threading_are_refused_as_well():
    """It aborted the process."""
    python(
        """
        import _thread, asyncio, threading, tokioloop
        loop = tokioloop.TokioLoop()
        started, done, told = threading.Event(), threading.Event(), []
        loop.call_soon(started.set)

        def refused():
            coro = asyncio.sleep(0)
            for call in (lambda: loop.call_soon(print), lambda: loop.call_later(1, print), timer.cancel,
                         lambda: loop.create_task(coro), lambda: loop.add_reader(0, print)):
                try:
                    call()
                except RuntimeError as error:
                    told.append(str(error))
            coro.close()
            loop.stop()
            done.set()

        timer = loop.call_later(100, print)
        _thread.start_new_thread(lambda: (loop.run_forever(), done.set()), ())
        started.wait()
        _thread.start_new_thread(refused, ())
        done.wait()
        assert len(told) == 5 and all("ident" in it for it in told), told
        """
    )


@pytest.mark.parametrize(
    "name",
    "write writelines write_eof close abort pause_reading resume_reading set_protocol set_write_buffer_limits".split(),
)
def test_a_foreign_threads_transport_calls_are_refused(connected, name):
    transport, _ = connected
    args = {"write": (b"x",), "writelines": ([b"x"],), "set_protocol": (asyncio.Protocol(),)}.get(name, ())
    with pytest.raises(RuntimeError, match="elsewhere"):
        getattr(transport, name)(*args)
    assert not transport.is_closing()


def test_getters_answer_any_thread(elsewhere, connected):
    loop = elsewhere.loop
    transport, far = connected
    assert loop.is_running() and not loop.is_closed() and loop.get_debug() is False
    assert loop.time() > 0
    assert repr(loop) == "<TokioLoop running=True closed=False debug=False>"
    assert transport.is_reading() and not transport.is_closing()
    assert transport.get_write_buffer_size() == 0
    assert transport.get_write_buffer_limits() == (16384, 65536)
    assert isinstance(transport.get_protocol(), Recorder)
    assert transport.get_extra_info("peername") == far.getsockname()
    assert transport.get_extra_info("sockname") == far.getpeername()
    assert transport.get_extra_info("socket").getsockname() == far.getpeername()
    assert transport.can_write_eof()
    assert "StreamTransport fd=" in repr(transport)


def test_what_foreign_threads_refuse_leaves_no_references(elsewhere):
    class Payload:
        def __call__(self):
            pass

    payload = Payload()
    reference = weakref.ref(payload)
    for _ in range(10):
        for schedule in (elsewhere.loop.call_soon, lambda it: elsewhere.loop.call_later(1, it)):
            with pytest.raises(RuntimeError):
                schedule(payload)
    del payload
    assert collected(reference)


def test_set_debug_from_another_thread(elsewhere):
    elsewhere.loop.set_debug(True)
    assert elsewhere.call(elsewhere.loop.get_debug) is True
    elsewhere.loop.set_debug(False)


def test_loops_while_loops_come_and_go():
    stop = threading.Event()
    errors = []

    def churn():
        try:
            while not stop.is_set():
                loop = tokioloop.TokioLoop()
                loop.run_until_complete(asyncio.sleep(0))
                loop.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        for loop in tokioloop.loops().values():
            assert "TokioLoop" in repr(loop)
            loop.is_running(), loop.is_closed()
            del loop
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_thread_that_ends_with_an_open_loop():
    made = []

    def work():
        made.append(tokioloop.TokioLoop())
        made[0].run_until_complete(asyncio.sleep(0))

    in_thread(work)
    loop = made.pop()
    assert not loop.is_closed()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_daemon_thread_with_a_loop_at_exit():
    for kind in ("parked", "timers", "busy"):
        python(
            """
            import sys, threading, time, tokioloop
            loop = tokioloop.TokioLoop()
            started = threading.Event()
            def tick():
                loop.call_later(0.0001, tick)
            def busy():
                loop.call_soon(busy)
            loop.call_soon({"parked": int, "timers": tick, "busy": busy}[sys.argv[1]])
            loop.call_soon(started.set)
            threading.Thread(target=loop.run_forever, daemon=True).start()
            started.wait()
            class Slow:
                def __del__(self, sleep=time.sleep):
                    sleep(0.05)
            slow = Slow()
            """,
            kind,
        )
