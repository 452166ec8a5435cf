"""A panic of ours is an ordinary exception, and leaves no trace: state set for a call into Python is restored.

Builds with assertions panic on request (`_panic_at`), each place once; a release build has no such places, and then there is nothing to
ask for: `PLACES` is what the build at hand can be asked.
"""

import asyncio
import gc
import signal
import socket
import sys
from functools import partial

import pytest

from tokioloop import TokioLoop, WorkerPool, _tokioloop

from ..children import finish
from .support import PATIENCE, python

panic_at = getattr(_tokioloop, "_panic_at", None)
#: Where a panic cuts the run short.
IN_A_RUN = ["turn", "handle", "call", "step", "set-up"]
PLACES = IN_A_RUN if panic_at else []


@pytest.fixture(autouse=True)
def nothing_is_left():
    """The awaited event has happened."""
    yield
    if panic_at:
        panic_at("nowhere")


def usable(event_loop):
    """Whether loop and thread are as before a run."""
    assert not event_loop.is_running()
    assert asyncio._get_running_loop() is None
    assert sys.get_asyncgen_hooks() == (None, None)
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(RuntimeError, match="no running event loop"):
        _tokioloop.get_running_loop()
    with pytest.raises(RuntimeError):
        asyncio.current_task()

    async def main():
        assert asyncio.current_task() is not None
        assert event_loop._current_handle is None or event_loop.get_debug()
        await asyncio.sleep(0)
        return sum([value async for value in numbers()])

    async def numbers():
        for value in range(3):
            yield value

    assert event_loop.run_until_complete(main()) == 3
    with asyncio.Runner(loop_factory=TokioLoop) as runner:
        assert runner.run(main_of_another()) == "another"
    event_loop.close()


async def main_of_another():
    return await asyncio.sleep(0, "another")


async def step():
    await asyncio.sleep(0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_a_panic_in_a_run_leaves_loop_and_thread_usable():
    for place in PLACES:
        event_loop = TokioLoop()
        event_loop.set_debug(place == "handle")
        before = _tokioloop._panics()
        if place == "step":
            task = event_loop.create_task(step())
        event_loop.call_soon(int)
        panic_at(place)
        text = rf"panicked at src/.*\.rs:\d+; this is a bug: as asked for in {place}"
        with pytest.raises(SystemError, match=text):
            event_loop.run_forever()
        assert _tokioloop._panics() == before + 1
        if place == "step":
            assert not asyncio.current_task(event_loop) and not task.done()
        usable(event_loop)


def test_a_panic_below_python_is_the_callbacks_error(loop, contexts):
    """Inside of a native call that a callback makes: pyo3 would have made a BaseException of it, and a panic of that again."""
    if panic_at is None:
        return

    def begin():
        panic_at("step")
        coro = step()
        try:
            _tokioloop.Task(coro, loop=loop, eager_start=True)
        finally:
            coro.close()

    loop.call_soon(begin)
    loop.call_soon(loop.stop)
    loop.run_forever()
    errors = [context["exception"] for context in contexts if "exception" in context]
    assert [type(error) for error in errors] == [SystemError]
    assert asyncio.current_task(loop) is None


def test_datagrams_that_were_on_their_way_come_again(loop, contexts):
    if panic_at is None:
        return
    got = []

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            got.append(data)
            if len(got) == 2:
                loop.stop()

    transport, _protocol = loop.run_until_complete(
        loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"1", transport.get_extra_info("sockname"))
        sender.sendto(b"2", transport.get_extra_info("sockname"))
    panic_at("datagrams")
    with pytest.raises(SystemError):
        loop.run_forever()
    loop.run_forever()
    assert got == [b"1", b"2"]
    transport.close()
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pool_whose_worker_panicked_is_broken():
    if panic_at is None:
        return
    pool = WorkerPool(1)
    pool.submit(panic_at, "job").result(PATIENCE)
    job = pool.submit(int)
    assert isinstance(job.exception(PATIENCE), Exception)
    pool.shutdown(timeout=PATIENCE)


def test_the_hook_is_silent_where_an_exception_is_raised():
    code = """
    import os
    from tokioloop import TokioLoop, _tokioloop
    loop = TokioLoop()
    panic_at = getattr(_tokioloop, "_panic_at", None)
    if panic_at:
        panic_at("turn")
        loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        except SystemError:
            pass
    loop.close()
    print("quiet")
    """
    answer = python(code, RUST_BACKTRACE="")
    assert (answer.stdout, answer.stderr) == ("quiet\n", "")


TOO_MANY = [2**62, 10**8, 10**7, 32768, 0, -1, -(2**63)]


@pytest.mark.parametrize("threads", TOO_MANY)
def test_a_number_of_workers_that_cannot_be(threads):
    before = _tokioloop._panics()
    with pytest.raises(ValueError, match="threads must be at"):
        WorkerPool(threads)
    assert _tokioloop._panics() == before


@pytest.mark.parametrize("threads", [2**63, -(2**64), 1.5, "2"])
def test_invalid_numbers_of_workers(threads):
    with pytest.raises((OverflowError, TypeError)):
        WorkerPool(threads)


@pytest.mark.parametrize("number", [1000, 65, 0, -1, 2**31 - 1, -(2**31)])
def test_a_number_that_no_signal_has(loop, number):
    for call in (loop._want_signal, loop._unwant_signal, _tokioloop._insist_on_signal):
        with pytest.raises(ValueError, match="invalid signal number"):
            call(number)
    assert not _tokioloop._is_signal_wanted(number)
    assert not _tokioloop._raise_signal(number)


def test_nonsense_in_callbacks(loop, turn, contexts):
    before = _tokioloop._panics()
    for threads in TOO_MANY:
        loop.call_soon(partial(WorkerPool, threads=threads))
    loop.call_soon(loop._want_signal, 1000)
    turn()
    assert [type(context["exception"]) for context in contexts] == [ValueError] * (len(TOO_MANY) + 1)
    assert not loop.is_running()
    assert _tokioloop._panics() == before


@pytest.mark.parametrize("seed", range(8))
def test_nonsense_makes_nothing_panic(seed):
    """Every method and function, with odd arguments, in odd orders."""
    gc.collect()
    answer = finish([sys.executable, "-m", "tests.loop.nonsense", str(seed), "8000"], patience=110)
    assert answer.returncode == 0 and answer.stdout.endswith("nothing\n"), answer.stdout + answer.stderr


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_listener_that_epoll_refuses(loop, exclusive):
    """The objects that it would have kept are released outside the loop's claim, which a debug build checks."""
    with open(__file__) as file, pytest.raises(PermissionError):
        loop._accept(file, lambda: None, exclusive=exclusive)
    loop.close()
    with open(__file__) as file, pytest.raises(RuntimeError, match="closed"):
        loop._accept(file, lambda: None, exclusive=exclusive)
