"""Errors on the ways that pyo3 does not know to be attached, for `test_hot_errors`; run with a case's name, it tries that case.

There an error that is dropped, not raised, ends the process.
"""

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import tokioloop

ODD: list[Any] = [
    None,
    "x",
    -1,
    2**100,
    object(),
    b"\n",
    1.5,
    [],
    memoryview(bytearray(8))[::2],
    float("nan"),
]


def tried(call: Callable[[], Any]) -> Any:
    """Any error will do."""
    try:
        return call()
    except (Exception, asyncio.CancelledError) as error:
        return error


async def _await(awaitable: Any) -> Any:
    return await awaitable


def stepped(make: Callable[[], Any]) -> None:
    """Made and stepped in each way, outside of any run: inside of one pyo3 knows."""
    ways: list[Callable[[Any], Any]] = [
        lambda coro: _await(coro).send(None),
        lambda coro: next(coro.__await__()),
        lambda coro: coro.send(None),
        lambda coro: coro.throw(KeyError()),
    ]
    for way in ways:
        coro = tried(make)
        tried(lambda coro=coro, way=way: way(coro))
        tried(lambda coro=coro: next(coro.__await__()))
        tried(lambda coro=coro: coro.close())


def _schedule(loop: Any) -> None:
    for odd in ODD:
        for name in ("call_soon", "call_soon_threadsafe", "call_later", "call_at"):
            method = getattr(loop, name)
            for call in (
                lambda method=method: method(),
                lambda method=method, odd=odd: method(odd),
                lambda method=method, odd=odd: method(odd, print),
                lambda method=method, odd=odd: method(odd, print, context=odd),
                lambda method=method, odd=odd: method(1, print, context=odd, callback=odd),
                lambda method=method, odd=odd: method(**{"\udc80": odd}),
            ):
                handle = tried(call)
                tried(lambda handle=handle: handle.cancel())


def open_loop(loop: Any) -> None:
    _schedule(loop)


def debug_loop(loop: Any) -> None:
    loop.set_debug(True)
    _schedule(loop)


def closed_loop(loop: Any) -> None:
    handles = [loop.call_soon(print), loop.call_later(1000, print)]
    future = loop.create_future()
    loop.close()
    _schedule(loop)
    for handle in handles:
        tried(handle.cancel)
    for call in (
        lambda: future.cancel(),
        lambda: future.result(),
        lambda: future.add_done_callback(print),
        lambda: future.set_result(1),
    ):
        tried(call)


def another_threads_loop(loop: Any) -> None:
    handles = [loop.call_later(1000, print)]
    future, started = loop.create_future(), threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started.wait(60)
    for name in ("call_soon", "call_later", "call_at"):
        for args in ((print,), (1000, print)):
            tried(lambda name=name, args=args: getattr(loop, name)(*args))
    tried(handles[0].cancel)
    for name in ("cancel", "result", "exception", "set_result", "add_done_callback", "_make_cancelled_error"):
        for args in ((), (print,), (print, print)):
            tried(lambda name=name, args=args: getattr(future, name)(*args))
    tried(lambda: future.add_done_callback(print, context=1))
    tried(lambda: future.add_done_callback(print, nonsense=1))
    for _ in range(3):
        tried(lambda: next(future))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


def futures(loop: Any) -> None:
    failed, cancelled, pending = (loop.create_future() for _ in range(3))
    failed.set_exception(ValueError())
    cancelled.cancel("why")
    for future in (failed, cancelled, pending, tokioloop.Future.__new__(tokioloop.Future)):
        for name in (
            "result",
            "exception",
            "done",
            "cancelled",
            "get_loop",
            "_make_cancelled_error",
            "cancel",
        ):
            tried(lambda future=future, name=name: getattr(future, name)())
        for make in (iter, lambda future: future.__await__()):
            for _ in range(2):
                tried(lambda future=future, make=make: next(make(future)))
        for odd in ODD:
            tried(lambda future=future, odd=odd: future.add_done_callback(odd, context=odd))
            tried(lambda future=future, odd=odd: future.set_exception(odd))


def sockets(loop: Any) -> None:
    one, other = socket.socketpair()
    blocking, _peer = socket.socketpair()
    one.setblocking(False)
    other.send(b"x" * 100)
    closed = socket.socket()
    closed.close()
    for sock in (one, blocking, closed, None, 3, object()):
        for name in ("sock_recv", "sock_recv_into", "sock_sendall"):
            for odd in ODD:
                stepped(lambda sock=sock, name=name, odd=odd: getattr(loop, name)(sock, odd))
        stepped(lambda sock=sock: loop.sock_accept(sock))
    for name in ("sock_recv", "sock_accept"):
        stepped(lambda name=name: getattr(loop, name)(nonsense=1))
    other.close()
    for data in (b"x" * 10, bytearray(10)):
        for _ in range(3):
            stepped(lambda data=data: loop.sock_sendall(one, data))


class Changed(socket.socket):
    __slots__ = ()


def changed_sockets(loop: Any) -> None:
    """Called with a plain socket that is no longer one at the first step, while `ssl` is not imported."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.send(b"x")
    coro = loop.sock_recv(one, 1)
    one.__class__ = Changed
    del sys.modules["ssl"]

    end = tried(lambda: next(coro.__await__()))
    assert isinstance(end, StopIteration) and end.value == b"x"
    for odd in ODD:
        stepped(lambda odd=odd: loop.sock_recv(one, odd))


class Refusing:
    """Refuses every call."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def streams(loop: Any) -> None:
    def reader(*fed: bytes, end: bool = False, limit: int = 4) -> Any:
        made = tokioloop.StreamReader(limit=limit, loop=loop)
        made.set_transport(Refusing())
        for data in fed:
            tried(lambda data=data: made.feed_data(data))
        if end:
            made.feed_eof()
        return made

    states: list[Callable[[], Any]] = [
        lambda: reader(),
        lambda: reader(b"more than the limit and no line's end"),
        lambda: reader(b"more than the limit\n" * 3),
        lambda: reader(b"ab", end=True),
        lambda: reader(end=True),
        lambda: tokioloop.StreamReader.__new__(tokioloop.StreamReader),
    ]
    for make in states:
        for odd in [*ODD, (), (b"",), (1, 2), (b"x", b"yy")]:
            for name in ("read", "readexactly", "readuntil"):
                stepped(lambda make=make, name=name, odd=odd: getattr(make(), name)(odd))
        for name in ("readline", "readuntil", "read", "__anext__"):
            stepped(lambda make=make, name=name: getattr(make(), name)())
            broken = make()
            for error in (ValueError(), StopIteration(1)):
                tried(lambda broken=broken, error=error: broken.set_exception(error))
                stepped(lambda broken=broken, name=name: getattr(broken, name)())
    for transport in (None, Refusing(), object()):
        for protocol in (None, Refusing(), object()):
            for other in (None, reader(b"x")):
                writer = tried(
                    lambda transport=transport, protocol=protocol, other=other: tokioloop.StreamWriter(
                        transport, protocol, other, loop
                    )
                )
                stepped(lambda writer=writer: writer.drain())
                for odd in ODD:
                    tried(lambda writer=writer, odd=odd: writer.write(odd))


def transports(loop: Any) -> None:
    one, other = socket.socketpair()
    one.setblocking(False)
    stream, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=one))
    endpoint, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )
    other.close()
    for _ in range(2):
        for odd in ODD:
            tried(lambda odd=odd: stream.write(odd))
            tried(lambda odd=odd: endpoint.sendto(odd))
            tried(lambda odd=odd: endpoint.sendto(b"x", odd))
            tried(lambda odd=odd: endpoint.sendto(b"x", ("127.0.0.1", odd)))
            tried(lambda odd=odd: endpoint.sendto(nonsense=odd))
        stream.close()
        endpoint.close()
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    tried(lambda: stream.write(b"x"))
    tried(lambda: endpoint.sendto(b"x", ("127.0.0.1", 9)))


CASES: dict[str, Callable[[Any], None]] = {
    it.__name__: it
    for it in (
        open_loop,
        debug_loop,
        closed_loop,
        another_threads_loop,
        futures,
        sockets,
        changed_sockets,
        streams,
        transports,
    )
}


def main(name: str) -> None:
    loop = tokioloop.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    try:
        CASES[name](loop)
    finally:
        with contextlib.suppress(RuntimeError):
            loop.close()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
