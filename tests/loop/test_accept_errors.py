"""A connection that fails while it is accepted costs itself only: the next one is accepted at once."""

import errno

import pytest

from .faults import name_of, python_with
from .support import python

# A number of connections that fail, then one that is served. Nothing waits for time to pass.
SERVE = """
import asyncio, socket, sys, tokioloop

FAILING, MODE = int(sys.argv[1]), sys.argv[2]
loop = tokioloop.TokioLoop()
contexts, delays = [], []
loop.set_exception_handler(lambda loop, context: contexts.append(context["message"]))
call_later = loop.call_later
loop.call_later = lambda delay, *args, **options: (delays.append(delay), call_later(delay, *args, **options))[1]

class Hello(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()

async def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    address = listener.getsockname()
    waiting = []
    for _ in range(FAILING):
        waiting.append(socket.create_connection(address))
    server = await loop.create_server(Hello, sock=listener, backlog=1024)
    if MODE == "shared":
        loop._stop_accept(listener)
        loop._accept(listener, Hello, None, exclusive=True)
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, address)
    assert await loop.sock_recv(client, 100) == b"hello"
    client.close()
    for sock in waiting:
        sock.close()
    server.close()

loop.run_until_complete(main())
loop.close()
print(len([delay for delay in delays if delay >= 1]), contexts)
"""

OF_ONE = [
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EPROTO,
    errno.EPERM,
    errno.ETIMEDOUT,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ENOSR,
    errno.EPROTONOSUPPORT,
]


@pytest.mark.parametrize("number", OF_ONE, ids=name_of)
def test_the_next_connection_is_accepted_at_once(number):
    done = python_with(SERVE, "40", "own", accept4=(0, 40, number))
    assert done.stdout == "0 []\n"


@pytest.mark.parametrize("number", [errno.EPROTO, errno.ECONNRESET], ids=name_of)
def test_where_several_loops_accept(number):
    done = python_with(SERVE, "40", "shared", accept4=(0, 40, number))
    assert done.stdout == "0 []\n"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=name_of)
def test_want_of_descriptors_or_memory_pauses(number):
    done = python_with(SERVE, "1", "own", accept4=(0, 1, number))
    assert done.stdout == "1 ['socket.accept() out of system resource']\n"


def test_a_permanent_failure_does_not_keep_the_loop_busy():
    """A security rule forbids accepting: it is reported once a pause, and the loop sleeps in between."""
    done = python_with(
        """
        import asyncio, socket, tokioloop

        loop = tokioloop.TokioLoop()
        said = loop.create_future()
        loop.set_exception_handler(lambda loop, context: said.done() or said.set_result(context))

        async def main():
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            server = await loop.create_server(asyncio.Protocol, sock=listener, backlog=1024)
            client = socket.create_connection(listener.getsockname())
            context = await said
            assert context["message"] == "socket.accept() failed", context
            assert isinstance(context["exception"], PermissionError), context
            before = loop._metrics()["turns"]
            await asyncio.sleep(0.2)
            assert loop._metrics()["turns"] - before < 20
            client.close()
            server.close()

        loop.run_until_complete(main())
        loop.close()
        """,
        accept4=(0, 1 << 30, -errno.EPERM),
    )
    assert done.returncode == 0


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_a_listener_that_the_program_ends(end):
    """The socket was closed without the server: reported at most once a pause, and the loop does not spin."""
    python(
        """
        import asyncio, os, socket, sys, tokioloop

        loop = tokioloop.TokioLoop()
        contexts = []
        loop.set_exception_handler(lambda loop, context: contexts.append(context))

        async def main():
            listener = socket.create_server(("127.0.0.1", 0))
            server = await loop.create_server(asyncio.Protocol, sock=listener)
            await asyncio.sleep(0)
            other = os.dup(listener.fileno())
            if sys.argv[1] == "shutdown":
                listener.shutdown(socket.SHUT_RDWR)
            else:
                listener.close()
                socket.socket(fileno=other).shutdown(socket.SHUT_RDWR)
            before = loop._metrics()
            await asyncio.sleep(0.2)
            after = loop._metrics()
            assert after["turns"] - before["turns"] < 20, (before, after)
            assert len(contexts) <= 1, contexts
            server.close()

        loop.run_until_complete(main())
        loop.close()
        """,
        end,
    )
