"""Calls everything in the native module with nonsense: ``python -m tests.loop.nonsense SEED STEPS``, in a process of its own.

The calls may raise anything. A panic is noticed by the module's count, even one without an exception; a crash
or a hang by the parent process.
"""

import asyncio
import contextvars
import faulthandler
import gc
import inspect
import logging
import os
import random
import socket
import ssl
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tokioloop
from tokioloop import _tokioloop

from .support import ROOT

Native = _tokioloop.EventLoop

HUGE = 10**40
NUMBERS = [
    *(0, 1, -1, 2, 63, 64, 65, 255, 1000, 4096, 65536),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), HUGE, -HUGE),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e9, 1e18, 1e19, 1e300, -1e300),
    *(float("nan"), float("inf"), float("-inf"), True),
]
TEXTS = ["", "x", "\udcff", "a\0b", "é" * 300, "127.0.0.1", "::1", b"", b"x", b"\n", b"a\0b", bytes(70_000)]
TEXTS += [bytearray(b"xyz"), memoryview(b"abcdef")[::2], memoryview(bytearray(8)).cast("I")]

#: Names that end the process or its set-up, or whose purpose is to block.
LEFT_OUT = {"_begin_exit", "_set_job_class", "_set_stream_classes", "_own_methods", "_panics"}
#: Of `object`, with nothing of ours behind them.
DULL = {"__class__", "__init_subclass__", "__subclasshook__", "__dir__", "__sizeof__", "__new__"}


class Spite(Exception):
    """The error that objects of the program raise."""


def refuse(*_: Any, **__: Any) -> Any:
    raise Spite


class Spiteful:
    """Raises from every method."""

    __index__ = __bool__ = __eq__ = __hash__ = __repr__ = __str__ = __float__ = __int__ = __len__ = refuse  # type: ignore[assignment]
    __iter__ = __next__ = __call__ = __getitem__ = __lt__ = __await__ = __buffer__ = fileno = refuse
    __contains__ = __fspath__ = refuse  # type: ignore[assignment]


class Meddler:
    """Calls more nonsense from inside every method."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def _meddle(self, answer: Any) -> Any:
        self.world.step()
        return answer

    def __index__(self) -> Any:
        return self._meddle(3)

    def __float__(self) -> Any:
        return self._meddle(0.25)

    def __bool__(self) -> Any:
        return self._meddle(True)

    def __eq__(self, other: object) -> Any:
        return self._meddle(False)

    def __hash__(self) -> Any:
        return self._meddle(7)

    def __repr__(self) -> Any:
        return self._meddle("meddler")

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._meddle(None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._meddle([b"x"]))

    def __del__(self) -> None:
        self.world.step()

    def fileno(self) -> Any:
        return self._meddle(10**4)


class Liar(Exception):
    """Claims to be an instance of every type."""

    __class__ = property(lambda self: asyncio.Future)  # type: ignore[assignment]

    def get_loop(self) -> Any:
        return 7

    def done(self) -> Any:
        return Spiteful()


class Protocol(asyncio.Protocol, asyncio.DatagramProtocol):  # type: ignore[misc]
    """Raises now and then."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def _maybe(self, *_: Any) -> Any:
        if self.world.random.random() < 0.2:
            self.world.step()
        if self.world.random.random() < 0.1:
            raise Spite
        return self.world.random.choice([None, True, Spiteful()])

    connection_made = connection_lost = data_received = eof_received = _maybe
    pause_writing = resume_writing = datagram_received = error_received = _maybe


class Buffered(asyncio.BufferedProtocol):
    """Offers odd memory."""

    def get_buffer(self, sizehint: int) -> Any:
        return random.Random(sizehint).choice([b"", bytearray(0), bytearray(10), 7, None])

    def buffer_updated(self, nbytes: int) -> None:
        raise Spite


async def wait() -> None:
    await asyncio.sleep(0)


class World:
    """Objects of every native type in every state, and a random generator that chooses the calls."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.depth = 0
        self.last = ""
        self.natives: list[Any] = []
        self.closed: list[Any] = []
        self.loop = silent_loop()
        self.other = tokioloop.TokioLoop()
        self.dead = tokioloop.TokioLoop()
        self.dead.close()
        self.pool = tokioloop.WorkerPool(1)
        self.sockets: list[Any] = []
        self.classes = [value for value in vars(_tokioloop).values() if isinstance(value, type)]
        self.functions = [
            value for name, value in vars(_tokioloop).items() if callable(value) and name not in LEFT_OUT
        ]
        self.functions = [value for value in self.functions if not isinstance(value, type)]
        self.fill()

    def fill(self) -> None:
        """Make one of each, as far as a program can."""
        for event_loop in (self.loop, self.other, self.dead):
            self.add(event_loop)
        self.loop.call_soon(self.make_some)
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        for cls in self.classes:
            self.attempt(lambda cls=cls: self.add(cls.__new__(cls)))  # type: ignore[misc]
            self.attempt(lambda cls=cls: self.add(type("Derived", (cls,), {})()))  # type: ignore[misc]
        done = self.pool.submit(int)
        done.result()
        self.add(done)
        self.add(self.pool)
        self.add(tokioloop.runtime)

    def make_some(self) -> None:
        event_loop = self.loop

        def future(state: int) -> Any:
            made = event_loop.create_future()
            if state == 1:
                made.set_result(3)
            elif state == 2:
                made.set_exception(Spite())
            elif state == 3:
                made.cancel()
            return made

        for state in range(4):
            self.add(future(state))
            self.add(iter(future(state)))
        self.add(event_loop.create_task(wait()))
        self.add(asyncio.Task(wait(), loop=event_loop, eager_start=True))
        self.add(event_loop.call_soon(int))
        self.add(event_loop.call_later(1e6, int))
        self.add(event_loop.call_soon_threadsafe(int))
        self.add(self.pool.submit(wait))
        for protocol in (Protocol(self), Buffered(), asyncio.StreamReaderProtocol(asyncio.StreamReader())):
            self.attempt(lambda protocol=protocol: self.transports(protocol))  # type: ignore[misc]
        reader = tokioloop.StreamReader(loop=event_loop)
        self.add(reader)
        for call in (reader.read, reader.readline, lambda: reader.readexactly(4)):
            self.add(call())
        left, right = self.pair()
        for call in (
            lambda: event_loop.sock_recv(left, 10),
            lambda: event_loop.sock_recv_into(left, bytearray(10)),
            lambda: event_loop.sock_sendall(right, b"xyz"),
            lambda: event_loop.sock_accept(left),
            lambda: event_loop.sock_recvfrom(left, 10),
        ):
            self.attempt(lambda call=call: self.add(call()))  # type: ignore[misc]
        self.add(_tokioloop._run_on(event_loop, wait()))

    def transports(self, protocol: Any) -> None:
        event_loop = self.loop
        left, right = self.pair()
        right.send(b"some bytes to read")
        self.add(event_loop._make_socket_transport(left, protocol))
        read, write = os.pipe()
        self.add(event_loop._make_read_pipe_transport(os.fdopen(read, "rb"), protocol))
        self.add(event_loop._make_write_pipe_transport(os.fdopen(write, "wb"), protocol))
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.setblocking(False)
        datagram.bind(("127.0.0.1", 0))
        self.sockets.append(datagram)
        self.add(event_loop._make_datagram_transport(datagram, protocol))
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.sockets.append(listening)
        event_loop._accept(listening, lambda: protocol)
        client = ssl.create_default_context(cafile=str(ROOT / "tests" / "certificates" / "ca.pem"))
        self.attempt(lambda: self.add(event_loop._make_tls(client, protocol, None, False, "localhost")))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        self.sockets += [left, right]
        return left, right

    def add(self, value: Any) -> None:
        if len(self.natives) < 120:
            self.natives.append(value)
        else:
            self.natives[self.random.randrange(20, 120)] = value

    def attempt(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except BaseException as error:
            return error

    def value(self) -> Any:
        """Something odd."""
        choose = self.random
        match choose.randrange(12):
            case 0 | 1 | 2:
                return choose.choice(NUMBERS)
            case 3 | 4:
                return choose.choice(TEXTS)
            case 5:
                return choose.choice(self.natives)
            case 6:
                return choose.choice([Spiteful(), Liar(), Spite(), Spite, Meddler(self), object(), ...])
            case 7:
                closed = socket.socket()
                closed.close()
                return choose.choice([closed, *self.sockets[-10:]])
            case 8:
                return choose.choice([int, refuse, print_nothing, wait, lambda *a, **k: None, self.step])
            case 9:
                few = [self.small() for _ in range(choose.randrange(4))]
                return choose.choice([few, tuple(few), dict.fromkeys(map(str, few)), iter(few)])
            case 10:
                return choose.choice([Protocol(self), Buffered(), contextvars.copy_context(), wait()])
            case _:
                return choose.choice([None, None, self.loop, self.other, self.dead, threading.Lock()])

    def small(self) -> Any:
        return self.random.choice([None, *NUMBERS, *TEXTS])

    def step(self) -> None:
        """Call something."""
        if self.depth > 3:
            return
        self.depth += 1
        try:
            self.do()
        finally:
            self.depth -= 1

    def do(self) -> None:
        choose = self.random
        if choose.random() < 0.1:
            function = choose.choice(self.functions)
            return self.call(function, function.__name__, None)
        if choose.random() < 0.1:
            cls = choose.choice(self.classes)
            return self.call(cls, cls.__name__, None)
        target = choose.choice(self.natives)
        names = names_of(type(target))
        if not names:
            return
        name = choose.choice(names)
        kind = choose.random()
        self.last = f"{type(target).__name__}.{name}"
        if kind < 0.08:
            self.attempt(lambda: setattr(target, name, self.value()))
        elif kind < 0.1:
            self.attempt(lambda: delattr(target, name))
        else:
            method = self.attempt(lambda: getattr(target, name))
            if callable(method):
                self.call(method, f"{type(target).__name__}.{name}", target)

    def call(self, function: Any, name: str, target: Any) -> None:
        args = [self.value() for _ in range(self.random.choice([0, 0, 1, 1, 1, 2, 2, 3, 4, 5]))]
        options = {}
        if self.random.random() < 0.3 and (known := keywords_of(function)):
            options = {self.random.choice(known): self.value()}
        if not self.may(target, name, args):
            return
        self.last = name
        result = self.attempt(lambda: function(*args, **options))
        if type(result).__module__.startswith("tokioloop"):
            self.add(result)
        elif inspect.iscoroutine(result):
            result.close()

    def may(self, target: Any, name: str, args: list[Any]) -> bool:
        """Whether a call comes back."""
        method = name.rpartition(".")[2]
        if method == "run_forever":
            if self.depth > 1 or (target is self.loop and self.loop.is_running()):
                return False
            self.attempt(lambda: Native.stop(target))
            return True
        if isinstance(target, _tokioloop.Job) and method in ("result", "exception"):
            # By its class: attributes may have been set.
            return _tokioloop.Job.done(target) or (len(args) == 1 and type(args[0]) is int and args[0] <= 0)
        if method == "_work":
            target._close()
        return method not in ("run_until_complete", "shutdown", "serve", "block", "__exit__")


def silent_loop() -> tokioloop.TokioLoop:
    event_loop = tokioloop.TokioLoop()
    event_loop.set_exception_handler(lambda loop, context: None)
    return event_loop


def print_nothing(*_: Any, **__: Any) -> str:
    return ""


def names_of(cls: type) -> list[str]:
    found = _names.get(cls)
    if found is None:
        found = []
        # asyncio's own types crash by themselves: a Task whose `__init__` has failed, by its `__del__`.
        ours = any(base in _tokioloop.__dict__.values() for base in cls.__mro__)
        for base in cls.__mro__ if ours or cls.__module__ == "tokioloop._tokioloop" else ():
            if (
                base.__module__ in ("tokioloop._tokioloop", "_asyncio")
                or base in _tokioloop.__dict__.values()
            ):
                found += [name for name in vars(base) if name not in DULL and name not in LEFT_OUT]
        _names[cls] = found
    return found


_names: dict[type, list[str]] = {}


def keywords_of(function: Any) -> list[str]:
    try:
        return [name for name in inspect.signature(function).parameters if name not in ("args", "kwargs")]
    except (ValueError, TypeError):
        return []


def main(seed: int, steps: int) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(100, exit=True)
    logging.disable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    threading.excepthook = lambda args: None
    world = World(seed)
    event_loop = world.loop

    def inside() -> None:
        for _ in range(20):
            noted()

    def noted() -> None:
        world.attempt(world.step)
        if _tokioloop._panics():
            print(f"a panic in {world.last}, seed {seed}", flush=True)
            os._exit(3)

    for number in range(steps // 40):
        for _ in range(20):
            noted()
        # By its class: attributes may have been set. Stopped before, it makes one turn.
        world.attempt(Native.call_soon, event_loop, inside)
        Native.stop(event_loop)
        world.attempt(Native.run_forever, event_loop)
        if Native.is_running(event_loop):
            print(f"the loop says that it runs, seed {seed}", flush=True)
            os._exit(4)
        if Native.is_closed(event_loop):
            event_loop = world.loop = silent_loop()
            world.attempt(world.fill)
        if number % 50 == 49:
            world.attempt(gc.collect)
    noted()
    print("nothing", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
