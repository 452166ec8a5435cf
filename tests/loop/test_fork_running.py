"""Forks while loops run: the child's loops are dead objects that raise, a new one works, and the parent notices nothing."""

import pytest

from .support import python

SETUP = """
import faulthandler, gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork() in a process with threads is what is tested
import asyncio, signal, socket, threading, tokioloop
"x".encode("idna")  # a module that another thread is just importing stays locked in the child; that is CPython's

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        faulthandler.register(signal.SIGALRM, chain=True)
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, status

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def echoes(port, count=3):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for n in range(count):
        writer.write(b"%d" % n)
        assert await reader.read(100) == b"%d" % n
    writer.close()
    await writer.wait_closed()

async def whole():
    '''What a new loop is used for.'''
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    await echoes(server.sockets[0].getsockname()[1])
    server.close()
    assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert await loop.run_in_executor(None, int, "7") == 7
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    await got
    await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(10)])

def refused(call, *args):
    try:
        call(*args)
    except RuntimeError as error:
        assert "the loop belongs to the process that forked this one" in str(error), error
    else:
        raise AssertionError(f"{call} was not refused")
"""

BUSY = """
class Worker:
    '''A thread whose loop always has something to do, of every kind.'''

    def __init__(self):
        self.ready = threading.Event()
        self.going = True
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        assert self.ready.wait(20)

    def run(self):
        tokioloop.run(self.main())

    async def main(self):
        loop = self.loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, int)
        server = self.server = await loop.create_server(Echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        self.future, self.timer = loop.create_future(), loop.call_later(1000, print)
        self.task = asyncio.current_task()
        self.ready.set()

        async def repeat(what):
            while self.going:
                await what()

        await asyncio.gather(
            repeat(lambda: echoes(port)),
            repeat(lambda: asyncio.sleep(0.0005)),
            repeat(lambda: asyncio.sleep(0)),
            repeat(lambda: loop.run_in_executor(None, int)),
            repeat(lambda: loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)),
        )
        self.timer.cancel()
        self.transport.abort()
        server.close()

    def end(self):
        self.going = False
        self.thread.join()
"""


def test_forks_while_other_threads_loops_are_busy():
    python(
        SETUP
        + BUSY
        + """
workers = [Worker() for _ in range(4)]

def work():
    assert tokioloop.loops() == {}
    for worker in workers:
        loop = worker.loop
        assert loop.is_closed() and not loop.is_running() and "forked" in repr(loop)
        for call in (loop.call_soon, loop.call_soon_threadsafe):
            refused(call, print)
        assert worker.task in asyncio.all_tasks(loop) or worker.task.done()
        repr(worker.task), repr(worker.future), worker.task.get_stack
    tokioloop.run(whole())

for _ in range(int(sys.argv[1])):
    in_child(work)
for worker in workers:
    worker.end()
""",
        "15",
    )


def test_a_child_touches_everything_it_inherited():
    """No inherited object works, hangs or warns at its end; the parent's continue."""
    python(
        SETUP
        + BUSY
        + """
worker = Worker()

async def main():
    # Of this thread's running loop too.
    loop = asyncio.get_running_loop()
    here = Worker.__new__(Worker)
    here.loop, here.future, here.timer = loop, loop.create_future(), loop.call_later(1000, print)
    here.task = loop.create_task(asyncio.sleep(1000))
    here.server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = here.server.sockets[0].getsockname()[1]
    here.transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    udp, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    await asyncio.sleep(0)

    def work():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        for there in (worker, here):
            loop = there.loop
            for call, *args in (
                (loop.call_soon, print),
                (loop.call_later, 1, print),
                (loop.call_soon_threadsafe, print),
                (loop.run_forever,),
                (loop.add_signal_handler, signal.SIGUSR1, print),
                (loop.add_reader, 0, print),
                (loop.run_in_executor, None, print),
                (there.future.set_result, 1),
                (there.task.cancel,),
                (there.transport.write, b"never"),
                (there.transport.close,),
            ):
                refused(call, *args)
            repr(loop), repr(there.task), repr(there.future), repr(there.timer), repr(there.transport)
            loop.stop()
            loop.close()
            assert loop.is_closed() and not loop.is_running()
            assert not there.future.done()
            there.task.get_name(), there.future.add_done_callback, there.timer.when()
            there.server.sockets
        refused(udp.sendto, b"never", ("127.0.0.1", port))
        vars(worker).clear()
        vars(here).clear()
        gc.collect()
        tokioloop.run(whole())

    for _ in range(3):
        in_child(work)
    assert loop.is_running() and not here.transport.is_closing()
    await echoes(port)
    here.task.cancel()
    here.transport.abort()
    here.server.close()
    here.timer.cancel()
    udp.close()

tokioloop.run(main())
worker.end()
"""
    )


def test_a_connection_of_the_parent_outlives_the_child():
    """Neither the child's end nor its calls close it, or remove it from the parent's epoll set."""
    python(
        SETUP
        + """
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for n in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            del server, writer, reader
            gc.collect()
            if n % 2:
                sys.exit(0)  # through all that has called this, and the interpreter's end
            os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            writer.write(b"while it lives")
            assert await reader.read(100) == b"while it lives"
        writer.write(b"after")
        assert await reader.read(100) == b"after"
    writer.close()
    server.close()

tokioloop.run(main())
"""
    )


@pytest.mark.parametrize("how", ["callback", "task", "reader"])
def test_the_run_ends_in_a_child_that_returns_to_it(how):
    done = python(
        SETUP
        + """
loop = tokioloop.TokioLoop()
near, far = socket.socketpair()
parent = os.getpid()

def fork():
    if os.fork() != 0:
        os.wait()
    loop.stop() if os.getpid() == parent else None

async def coro():
    fork()

how = sys.argv[1]
if how == "callback":
    loop.call_soon(fork)
    loop.call_soon(lambda: print("parent", flush=True) if os.getpid() == parent else print("wrong"))
elif how == "task":
    task = loop.create_task(coro())
else:
    far.send(b"x")
    loop.add_reader(near, lambda: (near.recv(1), fork()))
try:
    loop.run_forever()
except RuntimeError as error:
    assert os.getpid() != parent
    assert "forked" in str(error), error
    tokioloop.run(whole())
    print("child", flush=True)
else:
    assert os.getpid() == parent
    loop.close()
""",
        how,
    )
    expected = ["parent"] if how == "callback" else []
    assert sorted(done.stdout.split()) == sorted(["child", *expected])


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method, tmp_path):
    """Called from a coroutine's executor and from a plain thread, while loops are busy."""
    program = tmp_path / "program.py"
    program.write_text(
        SETUP
        + BUSY
        + """
import multiprocessing, random

def square(n):
    async def answer():
        await asyncio.sleep(0)
        return n * n
    return tokioloop.run(answer())

def put(queue):
    tokioloop.run(whole())
    queue.put(square(4))

def use(context):
    with context.Pool(2) as pool:
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
        pool.close()
        pool.join()
    queue = context.Queue()
    process = context.Process(target=put, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == 16
    process.join()
    assert process.exitcode == 0
    queue.close()
    queue.join_thread()

async def main(context):
    await asyncio.get_running_loop().run_in_executor(None, use, context)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    worker = Worker()
    tokioloop.run(main(context))
    use(context)
    worker.end()
"""
    )
    # From a file, which spawn reads again.
    python(
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))",
        str(program),
        method,
    )


def test_signals_of_the_parents_loops_are_not_the_childs():
    python(
        SETUP
        + """
loop = tokioloop.TokioLoop()
loop.add_signal_handler(signal.SIGUSR1, print, "wrong")
loop.add_signal_handler(signal.SIGINT, print, "wrong")

def default():
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("not interrupted")

in_child(default)
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGUSR1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == signal.SIGUSR1
loop.close()
"""
    )
