"""How to make an object of each native type that refers to a given one, for `test_classes`; run with a scenario, it tries one.

An entry of ``MAKERS`` is called with the loop, which does not run, and the object to refer to; what it gives back is the only
thing that keeps that object alive once ``settle`` has run the loop.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import tokioloop
from tokioloop import _tokioloop

# Modules that only types of the extension name, and those of its types that name the package.
NATIVE = ("tokioloop._tokioloop", "tokioloop.tls")
PUBLIC = (_tokioloop.Future, _tokioloop.Task)

Maker = Callable[[Any, Any], Any]


def nothing(*_: Any) -> None:
    pass


async def give(value: Any) -> Any:
    return value


def future(loop: Any, value: Any) -> Any:
    made = loop.create_future()
    made.set_result(value)
    return made


def future_with_callback(loop: Any, value: Any) -> Any:
    made = loop.create_future()
    made.add_done_callback(nothing)
    made.add_done_callback(value.method if isinstance(value, Value) else value.__hash__)
    return made


def future_with_attribute(loop: Any, value: Any) -> Any:
    made = loop.create_future()
    made.attribute = value
    return made


def derived_future(loop: Any, value: Any) -> Any:
    made = DerivedFuture(loop=loop)
    made.attribute, made.slot = value, None
    return made


def derived_future_with_slot(loop: Any, value: Any) -> Any:
    made = DerivedFuture(loop=loop)
    made.slot = value
    return made


def derived_task(loop: Any, value: Any) -> Any:
    made = DerivedTask(give(None), loop=loop)
    made.attribute = value
    return made


def unstarted_task(_: Any, value: Any) -> Any:
    """Pending forever: its loop is closed before it runs."""
    if not CLOSING:
        CLOSING.append(tokioloop.new_event_loop())
        CLOSING[0].set_exception_handler(nothing)
    return CLOSING[0].create_task(give(value))


def handle_from_elsewhere(loop: Any, value: Any) -> Any:
    made = []
    thread = threading.Thread(target=lambda: made.append(loop.call_soon_threadsafe(nothing, value)))
    thread.start()
    thread.join()
    return made[0]


def iterator(loop: Any, value: Any) -> Any:
    return iter(future(loop, value))


def job(loop: Any, value: Any) -> Any:
    made = pool().submit(lambda: value)
    made.result()
    return made


def job_with_attribute(loop: Any, value: Any) -> Any:
    made = pool().submit(nothing)
    made.result()
    made.attribute = value
    return made


def reader(loop: Any, value: Any) -> Any:
    made = STREAMS["StreamReader"](loop=loop)
    made._transport = value
    return made


def reader_with_attribute(loop: Any, value: Any) -> Any:
    made = STREAMS["StreamReader"](loop=loop)
    made.attribute = value
    return made


def writer(loop: Any, value: Any) -> Any:
    return STREAMS["StreamWriter"](Closing, value, None, loop)


def stream_protocol(loop: Any, value: Any) -> Any:
    made = STREAMS["StreamReaderProtocol"](STREAMS["StreamReader"](loop=loop), loop=loop)
    made._transport = value
    return made


def operation(loop: Any, value: Any) -> Any:
    return reader(loop, value).read(1)


def sock_call(loop: Any, value: Any) -> Any:
    return loop._sock_connect(SOCKET, value)


def stream_transport(loop: Any, value: Any) -> Any:
    ours, other = socket.socketpair()
    ours.setblocking(False)
    made, _ = loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, ours))
    made.abort()
    other.close()
    settle(loop)
    made.set_protocol(value)
    return made


def read_pipe(loop: Any, value: Any) -> Any:
    ours, other = os.pipe()
    made, _ = loop.run_until_complete(loop.connect_read_pipe(asyncio.Protocol, os.fdopen(ours, "rb", 0)))
    os.close(other)
    made.close()
    settle(loop)
    made.set_protocol(value)
    return made


def write_pipe(loop: Any, value: Any) -> Any:
    other, ours = os.pipe()
    made, _ = loop.run_until_complete(loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(ours, "wb", 0)))
    os.close(other)
    made.abort()
    settle(loop)
    made.set_protocol(value)
    return made


def datagram_transport(loop: Any, value: Any) -> Any:
    ends = loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    made, _ = loop.run_until_complete(ends)
    made.abort()
    settle(loop)
    made.set_protocol(value)
    return made


def tls_transport(loop: Any, value: Any) -> Any:
    ours, other = socket.socketpair()
    ours.setblocking(False)
    made = []

    class Below(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

    async def begin() -> None:
        import ssl

        below, protocol = await loop.connect_accepted_socket(Below, ours)
        handshake = loop.start_tls(below, protocol, ssl.create_default_context(), server_hostname="none")
        task = loop.create_task(handshake)
        await asyncio.sleep(0)
        made.extend(o for o in [below.get_protocol()] if type(o).__name__ == "SslTransport")
        other.close()
        with contextlib.suppress(Exception):
            await task

    loop.run_until_complete(begin())
    settle(loop)
    made[0].set_protocol(value)
    return made.pop()


def a_loop(_: Any, value: Any) -> Any:
    made = tokioloop.new_event_loop()
    made.attribute = value
    made.close()
    return made


def a_pool(_: Any, value: Any) -> Any:
    made = tokioloop.WorkerPool(threads=1)
    made.shutdown()
    made.attribute = value
    return made


MAKERS: dict[str, list[Maker]] = {
    "Future": [future, future_with_callback, future_with_attribute, derived_future, derived_future_with_slot],
    "Task": [lambda loop, value: loop.create_task(give(value)), derived_task, unstarted_task],
    "FutureIter": [iterator],
    "Handle": [lambda loop, value: loop.call_soon(nothing, value), handle_from_elsewhere],
    "TimerHandle": [lambda loop, value: loop.call_later(0, nothing, value)],
    "Job": [job, job_with_attribute],
    "StreamReader": [reader, reader_with_attribute],
    "StreamWriter": [writer],
    "StreamReaderProtocol": [stream_protocol],
    "StreamOperation": [operation],
    "SockCall": [sock_call],
    "StreamTransport": [stream_transport],
    "ReadPipeTransport": [read_pipe],
    "WritePipeTransport": [write_pipe],
    "DatagramTransport": [datagram_transport],
    "SslTransport": [tls_transport],
    "EventLoop": [a_loop],
    "Pool": [a_pool],
}

# Types whose objects refer to no Python object that a program gives them, or are only seen by the package itself.
OTHERS = {
    "Balance",
    "ChildDescriptor",
    "ClientConfig",
    "Connection",
    "DatagramTransportBase",
    "Ending",
    "Lookup",
    "ServerConfig",
    "ThreadQueue",
}

# What costs a descriptor, a thread or a turn each.
SHORTER = {
    stream_transport: 300,
    read_pipe: 300,
    write_pipe: 300,
    datagram_transport: 300,
    tls_transport: 50,
    a_loop: 300,
    a_pool: 30,
    handle_from_elsewhere: 3000,
}

STREAMS: dict[str, Any] = {}
SOCKET: Any = None
POOLS: list[Any] = []
CLOSING: list[Any] = []


def pool() -> Any:
    if not POOLS:
        POOLS.append(tokioloop.WorkerPool(threads=1))
    return POOLS[0]


def native_types() -> set[type]:
    """Every type of the extension, those that it does not name included."""
    # By their addresses, and not through their own look-up: some old classes of typing warn when they are asked anything.
    found: dict[int, type] = {}
    left: list[type] = [object]
    while left:
        for kind in type.__subclasses__(left.pop()):
            if id(kind) not in found:
                found[id(kind)] = kind
                left.append(kind)
    module = type.__dict__["__module__"].__get__
    public = set(map(id, PUBLIC))
    return {kind for kind in found.values() if module(kind) in NATIVE or id(kind) in public}


class DerivedFuture(_tokioloop.Future):  # type: ignore[misc]
    __slots__ = ("attribute", "slot")

    def __del__(self) -> None:
        super().__del__()


class DerivedTask(_tokioloop.Task):  # type: ignore[misc]
    pass


class Closing:
    """As much of a transport as a writer asks for on its way out."""

    is_closing = staticmethod(lambda: True)


class Value:
    """Something that says when it goes, and looks for what held it."""

    def __init__(self, going: Callable[["Value"], Any]) -> None:
        self.going = going

    def __del__(self) -> None:
        self.going(self)

    def method(self, _: Any) -> None:
        pass


def settle(loop: Any) -> None:
    """Lets everything run that is due."""

    async def turns() -> None:
        last = loop.create_future()
        loop.call_later(0.001, last.set_result, None)
        await last

    for _ in range(2):
        loop.run_until_complete(turns())
    while CLOSING:
        CLOSING.pop().close()


def look_back(loop: Any, maker: Maker) -> None:
    """Nothing that runs while an object goes can get at it."""
    found = []
    for _ in range(5):
        reference: list[Any] = []
        value = Value(lambda _, reference=reference: found.append(reference[0]()))
        made = maker(loop, value)
        settle(loop)
        takes = type(made).__weakrefoffset__ != 0
        reference.append(weakref.ref(made) if takes else lambda: None)
        del value, made
        gc.collect()
    assert found == [None] * 5, found


def revive(loop: Any, maker: Maker) -> None:
    """What an object referred to may live on, and be used."""
    kept: list[Value] = []
    for _ in range(5):
        value = Value(kept.append)
        made = maker(loop, value)
        del value
        settle(loop)
        del made
        gc.collect()
    assert len(kept) == 5
    for value in kept:
        value.going = nothing  # type: ignore[assignment]


def dropped_by_the_collector(loop: Any, maker: Maker) -> None:
    """An object in a cycle goes as well."""
    gone: list[None] = []
    for _ in range(5):
        value = Value(lambda _: gone.append(None))
        value.cycle = made = maker(loop, value)  # type: ignore[attr-defined]
        settle(loop)
        del value, made
        gc.collect()
    assert len(gone) == 5, gone


def deep(loop: Any, maker: Maker) -> None:
    """A chain of any length goes on any stack, whatever the collector does meanwhile."""
    length = SHORTER.get(maker, 100_000)
    chain: Any = Value(nothing)
    gone = weakref.ref(chain)
    for _ in range(length):
        chain = maker(loop, chain)
    settle(loop)
    holder = [chain]
    del chain
    stop = threading.Event()

    def collect() -> None:
        # A pause between two collections. Without one the next stops all threads again before those that were stopped have been
        # scheduled, and the main thread may wait for minutes: so too in a program of the interpreter's own objects alone.
        while not stop.wait(0.0005):
            gc.collect()

    collector = threading.Thread(target=collect)
    collector.start()
    in_small_thread(holder.clear)
    stop.set()
    collector.join()
    # What refers to itself goes with the collection after the thread has released it.
    gc.collect()
    assert gone() is None


def in_small_thread(body: Callable[[], None]) -> None:
    errors = []

    def run() -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    former = threading.stack_size(256 << 10)
    thread = threading.Thread(target=run)
    thread.start()
    threading.stack_size(former)
    thread.join()
    if errors:
        raise errors[0]


SCENARIOS = {f.__name__: f for f in (look_back, revive, dropped_by_the_collector, deep)}


def main(scenario: str, name: str, number: str) -> None:
    global SOCKET
    warnings.simplefilter("ignore")
    for kind in ("StreamReader", "StreamWriter", "StreamReaderProtocol"):
        STREAMS[kind] = getattr(tokioloop, kind)
    SOCKET = socket.socket()
    SOCKET.setblocking(False)
    loop = tokioloop.new_event_loop()
    loop.set_exception_handler(nothing)
    asyncio.set_event_loop(loop)
    try:
        SCENARIOS[scenario](loop, MAKERS[name][int(number)])
    finally:
        for made in POOLS:
            made.shutdown()
        loop.close()
        SOCKET.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
