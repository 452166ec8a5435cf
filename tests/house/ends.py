"""Every way to end a transport of each kind, with everything that goes wrong, for `test_ends`; run with a kind's name, it prints that kind's cases.

A case is driven turn by turn, so that it cannot hang: it ends after a bounded number of turns, whatever happens to the transport. The record
has only text: an error or a context in it would keep the protocol alive, which must be freed.
"""

import asyncio
import contextlib
import dataclasses
import faulthandler
import functools
import gc
import io
import json
import logging
import os
import socket
import ssl
import struct
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tokioloop
from tokioloop import _tokioloop
from tokioloop.tls import ClientConfig

CERTIFICATES = Path(__file__).parents[1] / "certificates"
#: More than a socket or a pipe takes.
LARGE = bytes(1 << 22)
#: This many turns are made without waiting; if that is not enough, further ones wait a moment for the kernel.
TURNS, PATIENT_TURNS = 60, 500
MOMENT = 0.01
#: This many turns after a callback failed, its transport has ended, or will not end because of it.
AFTER_A_CALLBACK = 5

CALLBACKS = ("data_received", "eof_received", "get_buffer", "buffer_updated", "datagram_received")
FLOW = ("pause_writing", "resume_writing")


@dataclasses.dataclass
class Seen:
    """The observations of a case, as text."""

    #: The calls of the protocol; "-" where the attempt did not end the transport, so that the test ends it.
    calls: list[str] = dataclasses.field(default_factory=list)
    reports: list[str] = dataclasses.field(default_factory=list)
    logged: list[str] = dataclasses.field(default_factory=list)
    unraisable: list[str] = dataclasses.field(default_factory=list)
    #: Errors that left the run.
    left: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    #: Whether the end came in a turn of its own: after callbacks that were scheduled before it began.
    turn: str = ""
    descriptor: str = ""
    #: Whether the transport, kept by the test, has released its protocol, and the loop the transport.
    protocol: str = ""
    transport: str = ""
    #: Whether a server that is closed still waits for the connection.
    server: str = ""


class Story:
    """The protocols' orders in a case, and their records. Refers to no protocol."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.seen = Seen()
        self.raises: dict[str, type[BaseException]] = {}
        self.marks = 0
        #: The transport, until the case takes it.
        self.made: list[Any] = []

    def mark(self) -> None:
        """An end in a turn of its own comes after the callback scheduled here."""
        self.marks += 1
        self.loop.call_soon(self._marked)

    def _marked(self) -> None:
        self.marks -= 1

    def called(self, name: str, *more: str) -> None:
        self.seen.calls.append(" ".join((name, *more)))
        if name == "connection_lost":
            self.seen.turn = "shared" if self.marks else "own"
        else:
            self.mark()
        if error := self.raises.get(name):
            raise error(name)

    def handle(self, _: Any, context: dict[str, Any]) -> None:
        message = context["message"]
        if message.startswith("Exception in callback"):
            message = "Exception in callback"
        others = sorted({"transport", "protocol"} & context.keys())
        self.seen.reports.append(f"{message}: {context.get('exception')!r} with {others}")
        if "handler" in self.raises:
            raise self.raises["handler"]("handler")


class Told(asyncio.BaseProtocol):
    def __init__(self, story: Story) -> None:
        self.story = story

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.story.made.append(transport)

    def pause_writing(self) -> None:
        self.story.called("pause_writing")

    def resume_writing(self) -> None:
        self.story.called("resume_writing")

    def connection_lost(self, error: Exception | None) -> None:
        self.story.called("connection_lost", repr(error))


class Stream(Told, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.story.called("data_received")

    def eof_received(self) -> None:
        self.story.called("eof_received")


class Buffered(Told, asyncio.BufferedProtocol):
    def get_buffer(self, hint: int) -> bytearray:
        self.story.called("get_buffer")
        return bytearray(100)

    def buffer_updated(self, count: int) -> None:
        self.story.called("buffer_updated")

    def eof_received(self) -> None:
        self.story.called("eof_received")


class Datagrams(Told, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, address: Any) -> None:
        self.story.called("datagram_received")

    def error_received(self, error: Exception) -> None:
        self.story.called("error_received", repr(error))


class Fails:
    """The `close()` of a socket or file that can raise, once it has closed."""

    raises = False

    def close(self) -> None:
        was_open = self.fileno() >= 0  # type: ignore[attr-defined]
        super().close()  # type: ignore[misc]
        if was_open and self.raises:
            raise ValueError("close")

    def fail_to_close(self) -> None:
        self.raises = True


class Sock(Fails, socket.socket):
    """A socket whose `close()` can raise."""


class File(Fails, io.FileIO):
    """An end of a pipe whose `close()` can raise."""

    def fileno(self) -> int:
        return -1 if self.closed else super().fileno()


def reset(sock: socket.socket) -> None:
    """Close so that the peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---- kinds ------------------------------------------------------------------------------------------------


class Kind:
    """A transport on one end of a connection, and the other end's actions. One object for each case."""

    protocol: type[Told] = Stream
    buffered: type[Told] | None = Buffered
    server: Any = None
    #: Ways that this kind does not have.
    without: tuple[str, ...] = ("datagram_received",)
    #: Faults that can't happen here.
    never: tuple[str, ...] = ()
    #: Ways to end that send waiting data first.
    draining: tuple[str, ...] = ("close", "eof", "resume_writing")
    engine: str | None = None

    near: Any
    far: Any

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        """Begin; returns a coroutine whose result begins with the transport, or None where the transport comes in another way."""
        raise NotImplementedError

    def descriptor(self, transport: Any) -> int:
        return self.near.fileno()

    def fill(self, transport: Any) -> None:
        transport.write(LARGE)

    def stop(self, transport: Any) -> None:
        transport.abort()

    def fail_to_close(self) -> None:
        self.near.fail_to_close()

    def send(self) -> None:
        self.far.send(b"x")

    def end(self) -> None:
        self.far.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        reset(self.far)

    def break_write(self, transport: Any) -> None:
        self.reset()
        transport.write(b"x")

    def is_connected(self) -> bool:
        """Whether the peer, too, has done its part."""
        return True

    def pump(self) -> None:
        """The peer reads all that has come."""
        if self.far.fileno() >= 0:
            with contextlib.suppress(OSError):
                while self.far.recv(1 << 20):
                    pass

    def release(self) -> None:
        self.far.close()


def stream_pair(family: int) -> tuple[socket.socket, socket.socket]:
    if family == socket.AF_UNIX:
        near, far = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    for sock in (near, far):
        sock.setblocking(False)
    return Sock(fileno=near.detach()), far


class Tcp(Kind):
    family = int(socket.AF_INET)

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        self.near, self.far = stream_pair(self.family)
        return loop.create_connection(factory, sock=self.near)


class Unix(Tcp):
    family = int(socket.AF_UNIX)

    def reset(self) -> None:
        # Closing with unread data resets the connection.
        with contextlib.suppress(BlockingIOError):
            self.near.send(b"unread")
        self.far.close()


class Accepted(Kind):
    """Of a server, which counts it."""

    never = ("close",)

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        listener = socket.create_server(("127.0.0.1", 0))
        self.far = socket.create_connection(listener.getsockname())
        self.far.setblocking(False)

        async def serve() -> None:
            self.server = await loop.create_server(factory, sock=listener)

        return serve()

    def descriptor(self, transport: Any) -> int:
        return transport.get_extra_info("socket").fileno()


class ReadPipe(Kind):
    buffered = None
    without = ("datagram_received", "abort", "reset", "write_error", *FLOW)
    never = ("flow",)

    def stop(self, transport: Any) -> None:
        transport.close()

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        reading, self.far = os.pipe()
        self.near = File(reading, "rb")
        return loop.connect_read_pipe(factory, self.near)

    def send(self) -> None:
        os.write(self.far, b"x")

    def end(self) -> None:
        self.release()

    def pump(self) -> None:
        pass

    def release(self) -> None:
        if self.far >= 0:
            os.close(self.far)
            self.far = -1


class WritePipe(ReadPipe):
    # The loop watches whether the pipe has a reader, so it keeps the transport.
    stop = Kind.stop
    without = ("datagram_received", "data_received", "eof_received", "reset", "collected")
    never = ()

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        self.far, writing = os.pipe()
        os.set_blocking(self.far, False)
        self.near = File(writing, "wb")
        return loop.connect_write_pipe(factory, self.near)

    def break_write(self, transport: Any) -> None:
        self.release()
        transport.write(b"x")

    def pump(self) -> None:
        if self.far >= 0:
            with contextlib.suppress(OSError):
                while os.read(self.far, 1 << 20):
                    pass


class Datagram(Kind):
    protocol = Datagrams
    buffered = None
    # A loop keeps one until the loop's end.
    without = ("data_received", "eof_received", "get_buffer", "buffer_updated", "eof", "reset", "collected")
    draining = (*Kind.draining, "write_error")

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        self.near = Sock(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.far = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for sock in (self.near, self.far):
            sock.bind("")
            sock.setblocking(False)
        return loop.create_datagram_endpoint(factory, sock=self.near)

    def fill(self, transport: Any) -> None:
        while not transport.get_write_buffer_size():
            transport.sendto(b"x", self.far.getsockname())

    def send(self) -> None:
        self.far.sendto(b"x", self.near.getsockname())

    def break_write(self, transport: Any) -> None:
        transport.sendto(b"x", 5)


@functools.cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    context.num_tickets = 0
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))


@functools.cache
def client_config() -> ClientConfig:
    return ClientConfig(roots=CERTIFICATES / "ca.pem")


class Tls(Tcp):
    engine = "direct"
    # Reading below goes on, so that the loop keeps both transports.
    without = ("datagram_received", "collected")

    def connect(self, loop: Any, factory: Callable[[], Told]) -> Any:
        self.near, self.far = stream_pair(self.family)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)
        ours = self.engine == "rustls" and isinstance(loop, tokioloop.TokioLoop)
        context = client_config() if ours else client_context()
        return loop.create_connection(factory, sock=self.near, ssl=context, server_hostname="localhost")

    def is_connected(self) -> bool:
        self.pump()
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        return True

    def _flush(self) -> None:
        if data := self.outgoing.read():
            with contextlib.suppress(OSError):
                self.far.sendall(data)

    def pump(self) -> None:
        if self.far.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            while data := self.far.recv(1 << 20):
                self.incoming.write(data)
        with contextlib.suppress(ssl.SSLError):
            while self.object.read(1 << 16):
                pass
            # The other side's close_notify: this is ours.
            self.object.unwrap()
        self._flush()

    def send(self) -> None:
        self.object.write(b"x")
        self._flush()

    def end(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        self._flush()


class TlsMemoryBio(Tls):
    engine = "memory-bio"


class TlsRustls(Tls):
    engine = "rustls"


KINDS: dict[str, type[Kind]] = {
    "tcp": Tcp,
    "unix": Unix,
    "accepted": Accepted,
    "read pipe": ReadPipe,
    "write pipe": WritePipe,
    "datagram": Datagram,
    "tls": Tls,
    "tls memory bio": TlsMemoryBio,
    "tls rustls": TlsRustls,
}
WAYS = ("close", "abort", "eof", "reset", *CALLBACKS, "write_error", *FLOW, "collected", "loop closed")
#: Faults meanwhile.
TROUBLES = ("nothing", "connection_lost", "handler", "close", "flow", "interrupt")


def cases() -> Iterator[tuple[str, str, str]]:
    for name, kind in KINDS.items():
        for way in WAYS:
            if way in kind.without or (way in ("get_buffer", "buffer_updated") and kind.buffered is None):
                continue
            for trouble in TROUBLES:
                silent = way in ("collected", "loop closed") and trouble not in ("nothing", "close")
                if trouble in kind.never or silent or (trouble == "flow" and way in FLOW):
                    continue
                yield name, way, trouble


# ---- a case -----------------------------------------------------------------------------------------------


def turn(story: Story, *, wait: bool = False) -> None:
    """One turn of the loop; with *wait* it waits a moment for the kernel."""
    loop = story.loop
    stop = loop.call_later(MOMENT, loop.stop) if wait else loop.call_soon(loop.stop)
    try:
        loop.run_forever()
    except KeyboardInterrupt as error:
        story.seen.left.append(repr(error))
    finally:
        stop.cancel()


def turns(story: Story, kind: Kind, over: Callable[[], bool], *, pump: bool = True) -> bool:
    """Make turns until it is over; returns whether it is. With *pump* the peer reads all that has come."""
    for count in range(TURNS + PATIENT_TURNS):
        if over():
            return True
        if pump:
            kind.pump()
        turn(story, wait=count >= TURNS)
    return over()


def _made(story: Story, kind: Kind, factory: Callable[[], Told]) -> Any:
    """Connect; the transport."""
    task = story.loop.create_task(kind.connect(story.loop, factory))

    def connected() -> bool:
        return task.done() and bool(story.made) and kind.is_connected()

    assert turns(story, kind, connected), "not connected"
    task.result()
    return story.made.pop()


def _act(story: Story, kind: Kind, way: str, transport: Any) -> None:
    """The action that begins the end. In a callback of the loop."""
    story.mark()
    if way in ("close", "abort"):
        getattr(transport, way)()
    elif way == "eof" or way == "eof_received":
        kind.end()
    elif way == "reset":
        kind.reset()
    elif way in CALLBACKS:
        kind.send()
    elif way == "write_error":
        kind.break_write(transport)
    elif way in FLOW:
        transport.set_write_buffer_limits(0)
        kind.fill(transport)


def _end(story: Story, kind: Kind, way: str, trouble: str, transport: Any) -> None:
    """End the transport in that way, with that fault."""
    seen, loop = story.seen, story.loop
    error = KeyboardInterrupt if trouble == "interrupt" else ValueError
    if way in CALLBACKS or way in FLOW:
        story.raises[way] = error
    elif trouble == "interrupt":
        story.raises["connection_lost"] = error
    if trouble in ("connection_lost", "handler"):
        story.raises[trouble] = ValueError
    elif trouble == "close":
        kind.fail_to_close()
    elif trouble == "flow":
        story.raises |= dict.fromkeys(FLOW, ValueError)
        transport.set_write_buffer_limits(0)
        loop.call_soon(kind.fill, transport)
        turn(story)

    def lost() -> bool:
        return any(call.startswith("connection_lost") for call in seen.calls)

    left_open = 0

    def enough() -> bool:
        nonlocal left_open
        # Errors that leave the run, or that a protocol raises where they are only reported, end nothing.
        left_open += way in seen.calls
        return lost() or bool(seen.left) or left_open > AFTER_A_CALLBACK

    loop.call_soon(_act, story, kind, way, transport)
    turn(story)
    turns(story, kind, enough, pump=way in kind.draining)
    if not lost():
        seen.calls.append("-")
        story.raises.pop(way, None)
        kind.stop(transport)
        turns(story, kind, lost, pump=False)
    # For calls that come twice, or late.
    for _ in range(3):
        turn(story)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _watched(story: Story) -> Iterator[None]:
    """Errors that bypass the exception handler."""
    seen = story.seen

    class Logged(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.logged.append(record.getMessage().partition("\n")[0])

    logger, handler = logging.getLogger("asyncio"), Logged()
    propagates, hook = logger.propagate, sys.unraisablehook
    logger.addHandler(handler)
    logger.propagate = False
    sys.unraisablehook = lambda args: seen.unraisable.append(repr(args.exc_value))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", ResourceWarning)
            # Not a record of them, which would keep the transport.
            warnings.showwarning = lambda message, *_, **__: seen.warnings.append(str(message).split()[0])
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate, sys.unraisablehook = propagates, hook


def _gone(reference: weakref.ref[Any]) -> str:
    if reference() is None:
        return "gone"
    gc.collect()
    return "collected" if reference() is None else "kept"


def _look_at_descriptor(story: Story, number: int) -> None:
    """Whether it was closed, and is not closed again: by then the number may be reused."""
    if _is_open(number):
        story.seen.descriptor = "open"
        return
    other = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other, number)
    if not story.loop.is_closed():
        turn(story)
    gone_on = os.path.sameopenfile(other, number)
    story.seen.descriptor = "closed" if gone_on else "closed twice"
    for each in {other, number}:
        os.close(each)


def _tell(story: Story, kind: Kind, way: str, trouble: str) -> None:
    seen, loop = story.seen, story.loop
    of = kind.buffered if way in ("get_buffer", "buffer_updated") and kind.buffered else kind.protocol
    made: list[weakref.ref[Any]] = []

    def factory() -> Told:
        protocol = of(story)
        made.append(weakref.ref(protocol))
        return protocol

    transport = _made(story, kind, factory)
    number = kind.descriptor(transport)
    transport_left = weakref.ref(transport)
    if way not in ("collected", "loop closed"):
        _end(story, kind, way, trouble, transport)
        seen.protocol = _gone(made[0])
    elif trouble == "close":
        kind.fail_to_close()
    if way == "loop closed":
        loop.close()
    elif way == "collected":
        transport.pause_reading()
        turn(story)
    del transport
    seen.transport = _gone(transport_left)
    if way in ("collected", "loop closed"):
        seen.protocol = _gone(made[0])
    if kind.server is not None:
        kind.server.close()
        if not loop.is_closed():
            waiting = loop.create_task(kind.server.wait_closed())
            seen.server = "closed" if turns(story, kind, waiting.done) else "waits"
    _look_at_descriptor(story, number)


def told(make_loop: Callable[[], Any], name: str, way: str, trouble: str) -> Seen:
    """Make one case on a loop of its own."""
    kind = KINDS[name]()
    loop = make_loop()
    story = Story(loop)
    loop.set_exception_handler(story.handle)
    before = _tokioloop._tls_engine()
    if kind.engine in ("direct", "memory-bio"):
        _tokioloop._tls_engine(kind.engine)
    try:
        with _watched(story):
            _tell(story, kind, way, trouble)
    finally:
        _tokioloop._tls_engine(before)
        kind.release()
        story.raises.clear()
        if not loop.is_closed():
            turn(story)
            loop.close()
    return story.seen


def main(name: str) -> None:
    """Make all cases of a kind, on asyncio's loop and on ours, and print the observations."""
    faulthandler.dump_traceback_later(120, exit=True)
    for kind, way, trouble in cases():
        if kind == name:
            loops = (asyncio.SelectorEventLoop, tokioloop.TokioLoop)
            theirs, ours = (dataclasses.asdict(told(make, name, way, trouble)) for make in loops)
            print(json.dumps([way, trouble, theirs, ours]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
