"""The interpreter's end while loops live in other threads: it always comes, with the program's exit code."""

import sys
import textwrap

import pytest

from ..children import finish
from .support import ROOT

PROGRAM = """
import asyncio, os, signal, socket, ssl, sys, threading, time
import tokioloop

# Ignored where the tests were started in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
daemon, state, end = sys.argv[1] == "daemon", sys.argv[2], sys.argv[3]
certificates = sys.argv[4]
ready = threading.Semaphore(0)

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def connect(loop):
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificates + "/server.pem", certificates + "/server.key")
    client_context = ssl.create_default_context(cafile=certificates + "/ca.pem")
    for ours, theirs in ((None, None), (server_context, client_context)):
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=ours)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=theirs, server_hostname="localhost" if theirs else None
        )
        writer.write(b"x")
        await reader.readexactly(1)
        loop.kept.append((server, reader, writer))

def chain(loop):
    loop.call_soon(chain, loop)

async def work(loop):
    '''Brings about the state; the run goes on after it.'''
    if state == "busy":
        for _ in range(10):
            chain(loop)
    elif state == "executor":
        loop.kept.append(loop.run_in_executor(None, time.sleep, 0.05))
    elif state == "names":
        for n in range(20):
            loop.kept.append(loop.getaddrinfo("localhost", n, type=socket.SOCK_STREAM))
        loop.kept = [asyncio.ensure_future(name) for name in loop.kept]
        await asyncio.sleep(0)
    elif state == "connections":
        await connect(loop)
    elif state == "tasks":
        loop.kept += [loop.create_task(asyncio.sleep(n / 1000)) for n in range(100)]
    elif state == "blocked":
        # For a daemon without an end, else the interpreter would wait for it.
        loop.call_soon(time.sleep, 1000 if daemon else 0.05)
    elif state == "spinning":
        loop.call_soon(spin, time.monotonic() + (1000 if daemon else 0.05))
    ready.release()

def spin(until):
    while time.monotonic() < until:
        pass

class Loop(tokioloop.TokioLoop):
    def __init__(self):
        super().__init__()
        self.kept = []

def run():
    loop = Loop()
    if state == "new":
        ready.release()
        threading.Event().wait(None if daemon else 0.01)
        return
    task = loop.create_task(work(loop))
    if state == "until_complete" and daemon:
        loop.call_soon(ready.release)
        loop.run_until_complete(loop.create_future())
    elif state == "runner" and daemon:
        loop.close()
        async def main():
            ready.release()
            await asyncio.sleep(1000)
        tokioloop.run(main())
    else:
        loop.run_forever()
    if state == "closed":
        loop.close()

threads = [threading.Thread(target=run, daemon=daemon) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in threads:
    ready.acquire()
main_loop = tokioloop.TokioLoop()  # never closed
main_loop.run_until_complete(asyncio.sleep(0))
if end == "exit":
    sys.exit(3)
elif end == "error":
    raise ZeroDivisionError
elif end == "interrupt":
    signal.raise_signal(signal.SIGINT)
"""

STATES = [
    "parked",
    "busy",
    "blocked",
    "spinning",
    "executor",
    "names",
    "connections",
    "tasks",
    "new",
    "closed",
    "until_complete",
    "runner",
]
ENDS = {"normal": 0, "exit": 3, "error": 1, "interrupt": -2}


def interpreter(*args, code=PROGRAM):
    options = ["-X", "faulthandler", "-W", "ignore"]
    return finish([sys.executable, *options, "-c", textwrap.dedent(code), *args])


def check(kind, state, end):
    done = interpreter(kind, state, end, str(ROOT / "tests" / "certificates"))
    assert done.returncode == ENDS[end], f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    for sign in (
        "Fatal Python error",
        "panicked",
        "Segmentation",
        "Exception ignored",
        "Exception in thread",
    ):
        assert sign not in done.stderr, done.stderr


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["daemon", "thread"])
def test_the_main_thread_ends(kind, state):
    check(kind, state, "normal")


@pytest.mark.parametrize("state", ["parked", "busy"])
@pytest.mark.parametrize("kind", ["daemon", "thread"])
@pytest.mark.parametrize("end", ["exit", "error", "interrupt"])
def test_ways_to_end(kind, state, end):
    check(kind, state, end)


def test_a_run_until_complete_is_waited_for():
    done = interpreter(
        code="""
        import asyncio, threading, tokioloop

        async def main():
            started.set()
            # Ends only once the main thread waits for this one.
            while threading.main_thread().is_alive() and not threading._SHUTTING_DOWN:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            print("to its end")

        started = threading.Event()
        threading.Thread(target=tokioloop.run, args=(main(),)).start()
        started.wait()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "to its end\n", "")


def test_a_run_that_is_never_closed_ends_silently():
    """Its loop is closed when the names of its module are already deleted."""
    done = interpreter(
        code="""
        import threading, tokioloop

        loop, started = tokioloop.TokioLoop(), threading.Event()
        loop.call_soon(started.set)
        threading.Thread(target=loop.run_forever, daemon=True).start()
        started.wait()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_that_begins_while_the_interpreter_ends():
    done = interpreter(
        code="""
        import threading, tokioloop

        def run():
            loop = tokioloop.TokioLoop()
            loop.call_soon(started.set)
            loop.run_forever()
            loop.call_soon(print, "once more")
            loop.run_forever()
            loop.close()

        started = threading.Event()
        threading.Thread(target=run).start()
        started.wait()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "once more\n", "")


def test_a_loop_of_an_executors_thread():
    done = interpreter(
        code="""
        import concurrent.futures, threading, tokioloop

        started = threading.Event()
        loop = tokioloop.TokioLoop()
        loop.call_soon(started.set)
        concurrent.futures.ThreadPoolExecutor().submit(loop.run_forever).add_done_callback(lambda done: loop.close())
        started.wait()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_call_on_a_loop_that_was_stopped_ends_with_an_error():
    """Otherwise the non-daemon thread that waits for it would keep the interpreter alive forever."""
    done = interpreter(
        code="""
        import asyncio, threading, tokioloop

        other, began = tokioloop.TokioLoop(), threading.Event()
        threading.Thread(target=other.run_forever).start()

        async def stay():
            began.set()
            await asyncio.Event().wait()

        async def call():
            try:
                await tokioloop.run_on(other, stay())
            except RuntimeError as error:
                print(error)

        threading.Thread(target=tokioloop.run, args=(call(),)).start()
        began.wait()
        """
    )
    assert (done.returncode, done.stdout) == (0, "the loop was closed before the job's end\n"), done.stderr


def test_a_server_on_a_loop_that_was_stopped_counts_as_closed():
    done = interpreter(
        code="""
        import asyncio, threading, tokioloop

        other, ready = tokioloop.TokioLoop(), threading.Event()
        other.call_soon(ready.set)
        threading.Thread(target=other.run_forever).start()
        ready.wait()
        serving = threading.Event()

        async def serve():
            server = await tokioloop.serve([other], asyncio.Protocol, "127.0.0.1", 0)
            serving.set()
            await server.wait_closed()
            print("closed")

        threading.Thread(target=tokioloop.run, args=(serve(),)).start()
        serving.wait()
        """
    )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def test_a_loop_made_on_the_main_thread_and_run_in_another():
    """A run on the main thread gives the thread back to that loop, but not the loop to that thread."""
    done = interpreter(
        code="""
        import asyncio, threading, tokioloop

        other, ready = tokioloop.TokioLoop(), threading.Event()
        other.call_soon(ready.set)
        thread = threading.Thread(target=other.run_forever)
        thread.start()
        ready.wait()
        tokioloop.run(asyncio.sleep(0))
        assert tokioloop.loops() == {thread.ident: other}, tokioloop.loops()
        print("end")
        """
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_exit_stack_and_atexit():
    done = interpreter(
        code="""
        import asyncio, atexit, contextlib, tokioloop

        async def say(what):
            await asyncio.sleep(0)
            assert await asyncio.get_running_loop().run_in_executor(None, str, what) == what
            print(what)

        async def say_late(what):
            await asyncio.sleep(0.001)
            assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 1)
            print(what)

        with contextlib.ExitStack() as at_end:
            loop = tokioloop.TokioLoop()
            at_end.callback(loop.close)
            at_end.callback(lambda: loop.run_until_complete(say("stack")))
        atexit.register(lambda: tokioloop.run(say_late("atexit")))
        atexit.register(lambda: tokioloop.TokioLoop().close())
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stack\natexit\n", "")


def test_imported_again():
    """Reloaded, or deleted and imported again: it works, or raises ImportError."""
    done = interpreter(
        code="""
        import asyncio, importlib, sys, tokioloop

        async def main():
            await asyncio.sleep(0)
            return 1

        assert tokioloop.run(main()) == 1
        importlib.reload(tokioloop)
        assert tokioloop.run(main()) == 1
        former = tokioloop
        for name in [name for name in sys.modules if name.split(".")[0] == "tokioloop"]:
            del sys.modules[name]
        try:
            import tokioloop
        except ImportError as error:
            print(error)
        else:
            assert tokioloop.run(main()) == 1
        assert former.run(main()) == 1
        """
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_imported_at_exit():
    done = interpreter(
        code="""
        import atexit

        def late():
            import asyncio, tokioloop
            tokioloop.run(asyncio.sleep(0))
            print("ran")

        atexit.register(late)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
