"""A forked child starts afresh: a new loop there has its own signals and its own runtime."""

from .support import python

CHILD = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork() in a process with threads is what is tested
import asyncio, signal, socket, tokioloop

async def resolve(loop):
    return await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_names_are_resolved_in_a_child_of_a_process_that_did():
    done = python(
        CHILD
        + """
loop = tokioloop.TokioLoop()
loop.run_until_complete(resolve(loop))

def work():
    child = tokioloop.TokioLoop()
    assert child.run_until_complete(resolve(child))

in_child(work)
loop.close()
"""
    )
    assert done.returncode == 0, done.stderr


def test_a_signal_for_the_child_is_the_childs():
    done = python(
        CHILD
        + """
got = []
loop = tokioloop.TokioLoop()
loop.add_signal_handler(signal.SIGUSR1, got.append, "parent")
loop.run_until_complete(asyncio.sleep(0))

def work():
    child = tokioloop.TokioLoop()
    child.add_signal_handler(signal.SIGUSR1, child.stop)
    child.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    child.run_forever()

in_child(work)
loop.run_until_complete(asyncio.sleep(0))
assert got == []
loop.close()
"""
    )
    assert done.returncode == 0, done.stderr
