"""The cases of ``test_blocking``, each for an interpreter of its own: a loop works on descriptors that were made blocking.

A case has its loop do something that must wait, or that the kernel takes in part only. Then another thread collects, for which every
attached thread has to stop: it does not return if the loop sits in a system call attached to the interpreter. In the end the work is done
all the same.
"""

import array
import asyncio
import faulthandler
import functools
import gc
import os
import pty
import signal
import socket
import ssl
import struct
import sys
import threading
import tty
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tokioloop

from .support import PATIENCE, ROOT, BufferedRecorder, Recorder

MUCH = b"0123456789abcdef" * 40_000
# More than any socket takes at once.
HUGE = MUCH * 16

CASES: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}


def case(function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    CASES[function.__name__] = function
    return function


def per[T](kinds: dict[str, T]) -> Callable[[Callable[[T], Coroutine[Any, Any, None]]], None]:
    """A case for each of some kinds."""

    def add(function: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        for name, kind in kinds.items():
            CASES[f"{function.__name__}-{name}"] = functools.partial(function, kind)

    return add


def L() -> Any:
    return asyncio.get_running_loop()


async def others_go_on() -> None:
    """The loop has turns, and a collection of another thread ends."""
    for _ in range(3):
        await asyncio.sleep(0)
    await L().run_in_executor(None, gc.collect)


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def udp() -> tuple[socket.socket, socket.socket]:
    near, far = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    near.bind(("127.0.0.1", 0))
    far.bind(("127.0.0.1", 0))
    near.connect(far.getsockname())
    far.connect(near.getsockname())
    return near, far


def unix_datagrams() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


Pair = Callable[[], tuple[socket.socket, socket.socket]]
STREAMS: dict[str, Pair] = {"tcp": tcp, "unix": socket.socketpair}
DATAGRAMS: dict[str, Pair] = {"udp": udp, "unix": unix_datagrams}


async def drain(sock: socket.socket, size: int) -> bytes:
    """Read with the socket's own methods, in another thread."""

    def read() -> bytes:
        data = bytearray()
        while len(data) < size and (more := sock.recv(65536)):
            data += more
        return bytes(data)

    return await asyncio.to_thread(read)


# ---- sock_* -------------------------------------------------------------------------------------------


@per(STREAMS)
async def sock_recv(pair: Pair) -> None:
    near, far = pair()
    waiting = asyncio.ensure_future(L().sock_recv(near, 10))
    await others_go_on()
    far.send(b"hello")
    assert await waiting == b"hello"


@per(STREAMS)
async def sock_recv_into(pair: Pair) -> None:
    near, far = pair()
    buffer = bytearray(10)
    waiting = asyncio.ensure_future(L().sock_recv_into(near, buffer))
    await others_go_on()
    far.send(b"hello")
    assert await waiting == 5
    assert buffer[:5] == b"hello"


@per(STREAMS)
async def sock_sendall(pair: Pair) -> None:
    near, far = pair()
    sending = asyncio.ensure_future(L().sock_sendall(near, HUGE))
    await others_go_on()
    assert not sending.done()
    assert await drain(far, len(HUGE)) == HUGE
    await sending


@per(DATAGRAMS)
async def sock_recvfrom(pair: Pair) -> None:
    near, far = pair()
    waiting = asyncio.ensure_future(L().sock_recvfrom(near, 10))
    await others_go_on()
    far.send(b"hello")
    assert (await waiting)[0] == b"hello"


@per(DATAGRAMS)
async def sock_recvfrom_into(pair: Pair) -> None:
    near, far = pair()
    waiting = asyncio.ensure_future(L().sock_recvfrom_into(near, bytearray(10)))
    await others_go_on()
    far.send(b"hello")
    assert (await waiting)[0] == 5


@case
async def sock_sendto_udp() -> None:
    near, far = udp()
    near.close()
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        far.connect(sender.getsockname())
        assert await L().sock_sendto(sender, b"hello", far.getsockname()) == 5
        await others_go_on()
        assert far.recv(10) == b"hello"


@per({"tcp": socket.AF_INET, "unix": socket.AF_UNIX})
async def sock_accept(family: int) -> None:
    with TemporaryDirectory() as directory, socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else f"{directory}/s")
        listener.listen()
        waiting = asyncio.ensure_future(L().sock_accept(listener))
        await others_go_on()
        assert not waiting.done()
        client = socket.socket(family)
        client.connect(listener.getsockname())
        accepted, _ = await waiting
        assert accepted.getblocking() is False
        accepted.close()
        client.close()


@case
async def sock_connect() -> None:
    """Waits in its own thread until the backlog has room, as with asyncio, but no other thread waits for it."""
    with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/s")
        listener.listen(0)
        first = socket.socket(socket.AF_UNIX)
        first.connect(f"{directory}/s")

        def make_room() -> None:
            for _ in range(100):
                gc.collect()
            listener.accept()[0].close()

        room = threading.Thread(target=make_room)
        second = socket.socket(socket.AF_UNIX)
        room.start()
        await L().sock_connect(second, f"{directory}/s")
        room.join(PATIENCE)
        first.close()
        second.close()


@per(STREAMS)
async def sock_sendfile(pair: Pair) -> None:
    """On a blocking socket sendfile(2) waits itself; in its own thread."""
    near, far = pair()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.write_bytes(MUCH)
        got: list[bytes] = []

        def read() -> None:
            gc.collect()
            data = bytearray()
            while len(data) < len(MUCH):
                data += far.recv(65536)
            got.append(bytes(data))

        reader = threading.Thread(target=read)
        reader.start()
        with path.open("rb") as file:
            assert await L().sock_sendfile(near, file) == len(MUCH)
        reader.join(PATIENCE)
        assert got == [MUCH]


# ---- transports ---------------------------------------------------------------------------------------


async def transport_on(near: socket.socket) -> tuple[Any, Recorder]:
    transport, protocol = await L().create_connection(Recorder, sock=near)
    near.setblocking(True)
    return transport, protocol


@per(STREAMS)
async def a_stream_is_read(pair: Pair) -> None:
    near, far = pair()
    transport, protocol = await transport_on(near)
    writer = threading.Thread(target=far.sendall, args=(MUCH,))
    writer.start()
    assert await protocol.received(len(MUCH)) == MUCH
    writer.join(PATIENCE)
    # A read that was filled to the last byte is followed by another.
    transport.pause_reading()
    far.send(b"x" * 1000)
    transport.resume_reading()
    await protocol.received(len(MUCH) + 1000)
    await others_go_on()
    far.close()
    await protocol.lost()


@case
async def urgent_data_is_in_the_way() -> None:
    near, far = tcp()
    _, protocol = await transport_on(near)
    far.send(b"one")
    far.send(b"!", socket.MSG_OOB)
    await protocol.received(3)
    await others_go_on()
    far.send(b"two")
    assert await protocol.received(6) == b"onetwo"


@case
async def descriptors_are_passed() -> None:
    near, far = socket.socketpair()
    _, protocol = await transport_on(near)
    null = os.open(os.devnull, os.O_RDONLY)
    far.sendmsg([b"one"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null]))])
    await protocol.received(3)
    await others_go_on()
    far.send(b"two")
    assert await protocol.received(6) == b"onetwo"


@per(STREAMS)
async def a_stream_is_written(pair: Pair) -> None:
    near, far = pair()
    transport, _ = await transport_on(near)
    transport.write(HUGE)
    transport.writelines([b"x" * 1000, b"y" * 1000])
    await others_go_on()
    assert transport.get_write_buffer_size() > 0
    assert await drain(far, len(HUGE) + 2000) == HUGE + b"x" * 1000 + b"y" * 1000


@case
async def a_buffered_protocol_reads() -> None:
    near, far = tcp()
    _, protocol = await L().create_connection(lambda: BufferedRecorder(8), sock=near)
    near.setblocking(True)
    far.send(b"x" * 16)
    await protocol.received(16)
    await others_go_on()
    far.send(b"y" * 8)
    await protocol.received(24)


@case
async def a_socket_lingers_at_its_end() -> None:
    """SO_LINGER makes close(2) wait for the peer, here for a second at the most."""
    near, far = tcp()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
    transport, protocol = await transport_on(near)
    transport.write(MUCH)
    transport.abort()
    begun = threading.Thread(target=gc.collect)
    begun.start()
    await protocol.lost()
    begun.join(PATIENCE)
    far.close()


@per(DATAGRAMS)
async def datagrams_are_received(pair: Pair) -> None:
    near, far = pair()
    got: asyncio.Queue[bytes] = asyncio.Queue()

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            got.put_nowait(data)

    near.setblocking(False)
    await L().create_datagram_endpoint(Receiver, sock=near)
    near.setblocking(True)
    for number in range(3):
        far.send(b"%d" % number)
        assert await got.get() == b"%d" % number
        await others_go_on()


@case
async def datagrams_are_sent() -> None:
    near, far = unix_datagrams()
    near.setblocking(False)
    transport, _ = await L().create_datagram_endpoint(asyncio.DatagramProtocol, sock=near)
    near.setblocking(True)
    for _ in range(1000):
        transport.sendto(b"x" * 1000)
    await others_go_on()
    assert transport.get_write_buffer_size() > 0
    assert len(await drain(far, 1_000_000)) == 1_000_000


@per({"tcp": socket.AF_INET, "unix": socket.AF_UNIX})
async def a_server_accepts(family: int) -> None:
    with TemporaryDirectory() as directory:
        listener = socket.socket(family)
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else f"{directory}/s")
        listener.listen()
        address = listener.getsockname()
        made: asyncio.Queue[int] = asyncio.Queue()

        class Greeter(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.put_nowait(1)
                transport.close()

        if family == socket.AF_INET:
            server = await L().create_server(Greeter, sock=listener)
        else:
            server = await L().create_unix_server(Greeter, sock=listener)
        listener.setblocking(True)
        for _ in range(3):
            with socket.socket(family) as client:
                client.connect(address)
                await made.get()
                await others_go_on()
        server.close()


@case
async def tls() -> None:
    certificates = ROOT / "tests" / "certificates"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    trusting = ssl.create_default_context(cafile=certificates / "ca.pem")
    trusting.check_hostname = False
    served: asyncio.Future[Recorder] = L().create_future()

    def make() -> Recorder:
        served.set_result(Recorder())
        return served.result()

    server = await L().create_server(make, "127.0.0.1", 0, ssl=context)
    sock = socket.create_connection(server.sockets[0].getsockname())
    transport, _ = await L().create_connection(Recorder, sock=sock, ssl=trusting, server_hostname="x")
    protocol = await served
    await protocol.event("made")
    sock.setblocking(True)
    os.set_blocking(protocol.transport.get_extra_info("socket").fileno(), True)
    protocol.transport.pause_reading()
    transport.write(HUGE)
    await others_go_on()
    protocol.transport.resume_reading()
    assert await protocol.received(len(HUGE)) == HUGE
    server.close()


# ---- pipes --------------------------------------------------------------------------------------------


def fifo() -> tuple[int, int]:
    with TemporaryDirectory() as directory:
        path = f"{directory}/fifo"
        os.mkfifo(path)
        read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return read, os.open(path, os.O_WRONLY)


def terminal() -> tuple[int, int]:
    """Bytes written to the second are read from the first."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    return ours, theirs


def back_of_terminal() -> tuple[int, int]:
    ours, theirs = terminal()
    return theirs, ours


def pair_of_sockets() -> tuple[int, int]:
    near, far = socket.socketpair()
    return near.detach(), far.detach()


PIPES: dict[str, Callable[[], tuple[int, int]]] = {
    "pipe": os.pipe,
    "fifo": fifo,
    "terminal": terminal,
    "back_of_terminal": back_of_terminal,
    "sockets": pair_of_sockets,
}


@per(PIPES)
async def a_pipe_is_read(make: Callable[[], tuple[int, int]]) -> None:
    read, write = make()
    _, protocol = await L().connect_read_pipe(Recorder, os.fdopen(read, "rb", 0))
    os.set_blocking(read, True)
    for number in range(1, 4):
        os.write(write, b"x" * 10)
        await protocol.received(number * 10)
        await others_go_on()
    os.close(write)
    await protocol.lost()


@per(PIPES)
async def a_pipe_is_written(make: Callable[[], tuple[int, int]]) -> None:
    read, write = make()
    # The other end reads sooner or later: as on asyncio, a terminal may keep its own thread waiting.
    go = threading.Event()
    transport, _ = await L().connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
    os.set_blocking(write, True)
    os.set_blocking(read, True)
    got = bytearray()

    def read_later() -> None:
        assert go.wait(PATIENCE)
        gc.collect()
        while len(got) < len(MUCH) + 3000:
            got.extend(os.read(read, 65536))

    reader = threading.Thread(target=read_later)
    reader.start()
    if make in (terminal, back_of_terminal):
        go.set()
    transport.write(MUCH)
    transport.write(b"x" * 1000)
    transport.writelines([b"y" * 1000, b"z" * 1000])
    await others_go_on()
    go.set()
    while reader.is_alive():
        await asyncio.sleep(0)
    assert bytes(got) == MUCH + b"x" * 1000 + b"y" * 1000 + b"z" * 1000


@case
async def the_pipes_of_a_child() -> None:
    code = "import sys; sys.stdin.buffer.readline(); data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    for number in (0, 1):
        pipe: Any = process._transport.get_pipe_transport(number)  # type: ignore[attr-defined]
        os.set_blocking(pipe.get_extra_info("pipe").fileno(), True)
    assert process.stdin is not None
    process.stdin.write(b"go\n" + MUCH)
    await others_go_on()
    process.stdin.write_eof()
    assert process.stdout is not None
    assert await process.stdout.read() == MUCH
    assert await process.wait() == 0


# ---- the loop's own -----------------------------------------------------------------------------------


@case
async def all_descriptors_of_the_process() -> None:
    """The descriptors behind signals and wake-ups too."""
    came: asyncio.Queue[int] = asyncio.Queue()
    L().add_signal_handler(signal.SIGUSR1, came.put_nowait, 1)
    signal.signal(signal.SIGUSR2, lambda *_: came.put_nowait(2))
    near, far = socket.socketpair()
    _, protocol = await transport_on(near)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            try:
                os.set_blocking(fd, True)
            except OSError:
                continue  # That of the listing.
    for number, sent in ((1, signal.SIGUSR1), (2, signal.SIGUSR2)) * 3:
        os.kill(os.getpid(), sent)
        assert await came.get() == number
        await others_go_on()
    far.send(b"x")
    await protocol.received(1)
    thread = threading.Thread(target=L().call_soon_threadsafe, args=(came.put_nowait, 3))
    thread.start()
    assert await came.get() == 3
    thread.join(PATIENCE)


def main(name: str) -> None:
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    tokioloop.run(CASES[name]())
    # The case does not wait for threads that would wait forever.
    print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
