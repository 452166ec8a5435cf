"""Two threads at one object, each with every call in an order of its own, for `test_hammer`; run with a kind's name, it tries that kind.

An entry of ``KINDS`` makes an object on a loop and says which calls are made on it. The loop does not run meanwhile, so that any thread may
call. What an object refers to is counted: afterwards all of it has gone, once.
"""

import asyncio
import concurrent.futures
import contextlib
import gc
import io
import operator
import random
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tokioloop
from stress.counted import Counted

MANY = 3000
PATIENCE = 60

# What a call is answered with that comes too late, too early or from elsewhere; anything else is a finding.
ANSWERS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    StopIteration,
    TimeoutError,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    asyncio.InvalidStateError,
    asyncio.IncompleteReadError,
    KeyError,
    AssertionError,  # Of streams: an end comes once.
)


Act = Callable[[Any], object]
Kind = tuple[Callable[[Any], Any], dict[str, Act]]
call = operator.methodcaller


async def _wait(future: Any, *_: Any) -> Any:
    return await future


def _begin_future(future: Any) -> None:
    future.__init__(loop=future.get_loop())


def _begin_task(task: Any) -> None:
    coro = _wait(Counted())
    try:
        task.__init__(coro, loop=task.get_loop())
    finally:
        coro.close()


# ---- futures, tasks, handles ------------------------------------------------------------------------------


def future(loop: Any) -> Any:
    made = loop.create_future()
    made.add_done_callback(Counted())
    return made


def done_future(loop: Any) -> Any:
    made = loop.create_future()
    made.set_result(Counted())
    return made


def failed_future(loop: Any) -> Any:
    made = loop.create_future()
    made.set_exception(KeyError(Counted()))
    return made


def task(loop: Any) -> Any:
    return loop.create_task(_wait(loop.create_future(), Counted()))


def failed_iterator(loop: Any) -> Any:
    return iter(failed_future(loop))


OF_FUTURES: dict[str, Act] = {
    "repr": repr,
    "cancel": call("cancel"),
    "cancel with a message": lambda it: it.cancel(Counted()),
    "add": lambda it: it.add_done_callback(Counted()),
    "remove": call("remove_done_callback", print),
    "remove all": lambda it: it.remove_done_callback(AlwaysEqual()),
    "callbacks": operator.attrgetter("_callbacks"),
    "message": operator.attrgetter("_cancel_message"),
    "set message": lambda it: setattr(it, "_cancel_message", Counted()),
    "result": call("result"),
    "exception": call("exception"),
    "made error": call("_make_cancelled_error"),
    "iterator": lambda it: next(iter(it)),
    "attribute": lambda it: setattr(it, "attribute", Counted()),
}


class AlwaysEqual(Counted):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


FUTURE_ACTS = OF_FUTURES | {
    "set result": lambda it: it.set_result(Counted()),
    "set error": lambda it: it.set_exception(KeyError(Counted())),
    "init": _begin_future,
}
TASK_ACTS = OF_FUTURES | {
    "init": _begin_task,
    "name": lambda it: it.set_name(Counted()),
    "get name": call("get_name"),
    "coro": call("get_coro"),
    "context": call("get_context"),
    "waiter": operator.attrgetter("_fut_waiter"),
    "uncancel": call("uncancel"),
    "stack": call("get_stack"),
    "print": lambda it: it.print_stack(file=io.StringIO()),
}
HANDLE_ACTS: dict[str, Act] = {
    "repr": repr,
    "cancel": call("cancel"),
    "cancelled": call("cancelled"),
    "callback": operator.attrgetter("_callback"),
    "args": operator.attrgetter("_args"),
    "context": call("get_context"),
    "equal": lambda it: it == it,
    "run": call("_run"),
}
STEPS: dict[str, Act] = {
    "send": call("send", None),
    "close": call("close"),
    "throw": lambda it: it.throw(KeyError(Counted())),
    "next": next,
    "repr": repr,
}
OF_COROUTINES = {k: v for k, v in STEPS.items() if k != "next"} | {
    "await": lambda it: next(it.__await__()),
    "awaited": lambda it: getattr(it, "cr_await", None),
    "running": lambda it: getattr(it, "cr_running", None),
}


# ---- awaitables -------------------------------------------------------------------------------------------

NEVER_READY, _PEER = socket.socketpair()
NEVER_READY.setblocking(False)


class Buffer(bytearray):
    """One that refers to something."""


def sock_recv(loop: Any) -> Any:
    return loop.sock_recv(NEVER_READY, 1)


def sock_recv_into(loop: Any) -> Any:
    buffer = Buffer(8)
    buffer.counted = Counted()  # type: ignore[attr-defined]
    return loop.sock_recv_into(NEVER_READY, buffer)


def reader(loop: Any) -> Any:
    made = tokioloop.StreamReader(loop=loop)
    made.counted = Counted()  # type: ignore[attr-defined]
    return made


def read(loop: Any) -> Any:
    return reader(loop).readline()


def next_line(loop: Any) -> Any:
    return reader(loop).__anext__()


READER_ACTS: dict[str, Act] = {
    "repr": repr,
    "feed": call("feed_data", b"some\nlines\n"),
    "end": call("feed_eof"),
    "fail": lambda it: it.set_exception(KeyError(Counted())),
    "error": call("exception"),
    "at end": call("at_eof"),
    "read": lambda it: it.read(3).send(None),
    "line": lambda it: it.readline().send(None),
    "until": lambda it: it.readuntil(b"x").send(None),
    "exactly": lambda it: it.readexactly(2).send(None),
    "all": lambda it: it.read().send(None),
    "waiter": lambda it: getattr(it, "_waiter", None),
    "buffer": lambda it: getattr(it, "_buffer", None),
    "set transport": lambda it: it.set_transport(Counted()),
    "init": lambda it: it.__init__(loop=it._loop),
}


# ---- jobs and pools ---------------------------------------------------------------------------------------

POOLS: list[Any] = []


def pool_of(_: Any) -> Any:
    if not POOLS:
        POOLS.append(tokioloop.WorkerPool(threads=1))
    return POOLS[0]


def job(loop: Any) -> Any:
    return pool_of(loop).submit(Counted(), Counted())


async def _sleep(_: Any) -> None:
    await asyncio.sleep(0)


def coroutine_job(loop: Any) -> Any:
    return pool_of(loop).submit(_sleep, Counted())


JOB_ACTS: dict[str, Act] = {
    "repr": repr,
    "cancel": call("cancel"),
    "add": lambda it: it.add_done_callback(Counted()),
    "done": call("done"),
    "running": call("running"),
    "result": lambda it: it.result(0),
    "exception": lambda it: it.exception(0),
    "condition": operator.attrgetter("_condition"),
    "waiters": operator.attrgetter("_waiters"),
    "state": operator.attrgetter("_state"),
    "attribute": lambda it: setattr(it, "attribute", Counted()),
    "init": lambda it: it.__init__(),
}


# ---- transports -------------------------------------------------------------------------------------------


class Protocol(asyncio.Protocol, asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.counted = Counted()


def transport(loop: Any) -> Any:
    one, other = socket.socketpair()
    one.setblocking(False)
    made, _ = loop.run_until_complete(loop.create_connection(Protocol, sock=one))
    other.close()
    return made


def datagrams(loop: Any) -> Any:
    made, _ = loop.run_until_complete(loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0)))
    return made


OF_TRANSPORTS: dict[str, Act] = {
    "repr": repr,
    "close": call("close"),
    "abort": call("abort"),
    "closing": call("is_closing"),
    "extra": call("get_extra_info", "socket"),
    "protocol": call("get_protocol"),
    "set protocol": lambda it: it.set_protocol(Protocol()),
    "size": call("get_write_buffer_size"),
    "limits": call("set_write_buffer_limits", 10),
}
STREAM_ACTS = OF_TRANSPORTS | {
    "pause": call("pause_reading"),
    "resume": call("resume_reading"),
    "write": call("write", b"x" * 1000),
    "end": call("write_eof"),
}
DATAGRAM_ACTS = OF_TRANSPORTS | {
    "send": call("sendto", b"x", ("127.0.0.1", 9)),
    "send elsewhere": lambda it: it.sendto(bytearray(b"x"), ("127.0.0.1", random.choice((9, 19)))),
}


KINDS: dict[str, Kind] = {
    "future": (future, FUTURE_ACTS),
    "done future": (done_future, FUTURE_ACTS),
    "failed future": (failed_future, FUTURE_ACTS),
    "task": (task, TASK_ACTS),
    "iterator": (lambda loop: iter(future(loop)), STEPS),
    "done iterator": (lambda loop: iter(done_future(loop)), STEPS),
    "failed iterator": (failed_iterator, STEPS),
    "handle": (lambda loop: loop.call_soon(Counted(), Counted()), HANDLE_ACTS),
    "big handle": (lambda loop: loop.call_soon(Counted(), *[Counted()] * 4), HANDLE_ACTS),
    "timer": (lambda loop: loop.call_later(1000, Counted(), Counted()), HANDLE_ACTS | {"when": call("when")}),
    "posted": (lambda loop: loop.call_soon_threadsafe(Counted(), Counted()), HANDLE_ACTS),
    "sock_recv": (sock_recv, OF_COROUTINES),
    "sock_recv_into": (sock_recv_into, OF_COROUTINES),
    "read": (read, OF_COROUTINES),
    "next line": (next_line, OF_COROUTINES),
    "reader": (reader, READER_ACTS),
    "job": (job, JOB_ACTS),
    "coroutine job": (coroutine_job, JOB_ACTS),
    "transport": (transport, STREAM_ACTS),
    "datagrams": (datagrams, DATAGRAM_ACTS),
}
# Descriptors are few.
FEW = {"transport": 150, "datagrams": 150}


class Two:
    """Two threads that work on the same objects at the same time."""

    def __init__(self, acts: dict[str, Act], seed: int) -> None:
        self.acts = list(acts.items())
        self.seed = seed
        self.objects: list[Any] = []
        self.both = threading.Barrier(2)
        self.wrong: list[str] = []

    def work(self, me: int) -> None:
        chance = random.Random(f"{self.seed} {me}")
        self.both.wait(PATIENCE)
        for each in self.objects:
            for name, act in chance.sample(self.acts, min(4, len(self.acts))):
                try:
                    act(each)
                except ANSWERS:
                    pass
                except BaseException as error:
                    self.wrong.append(f"{name}: {error!r}")

    def run(self) -> None:
        other = threading.Thread(target=self.work, args=(1,))
        other.start()
        self.work(0)
        other.join(PATIENCE)
        assert not other.is_alive(), "a thread is stuck"


def rounds(name: str, seed: int) -> Iterator[list[str]]:
    make, acts = KINDS[name]
    for number in range(3):
        loop = tokioloop.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        two = Two(acts, seed + number)
        two.objects = [make(loop) for _ in range(FEW.get(name, MANY))]
        two.run()
        end(loop)
        two.objects.clear()
        yield two.wrong
    for pool in POOLS:
        pool.shutdown()


def end(loop: Any) -> None:
    """All that was left runs, or is cancelled."""
    for _ in range(3):
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()


def main(name: str, seed: int) -> None:
    warnings.simplefilter("ignore")
    sys.setswitchinterval(1e-5)  # Where there is a GIL.
    with contextlib.redirect_stderr(io.StringIO()):
        wrong = [each for found in rounds(name, seed) for each in found]
    assert not wrong, wrong[:5]
    # References that another thread owns are counted down by that thread.
    given_up = time.monotonic() + PATIENCE
    while Counted.alive() and time.monotonic() < given_up:
        gc.collect()
    assert not Counted.alive(), f"{Counted.alive()} are left"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
