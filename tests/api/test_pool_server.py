"""Servers over several loops: every way to accept, with and without TLS, protocols and streams, and errors."""

import asyncio
import contextlib
import functools
import socket
import threading
import time
from pathlib import Path

import pytest

import tokioloop
from tests.loop.support import ROOT, python
from tokioloop import LoopStats, serve

from .pool_support import (
    MODES,
    PATIENCE,
    Echo,
    ask,
    ask_name,
    at_end,
    connect,
    echo_streams,
    in_thread,
    loops,
    secured,
    server_terms,
    threads,
)


def test_the_example_of_the_documentation():
    text = (ROOT / "docs" / "servers.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert python(code).stdout == "b'hello' 1\n"


@pytest.mark.parametrize("make", [Echo, echo_streams])
@pytest.mark.parametrize("kind", ["plain", "ssl", "rustls"])
@pytest.mark.parametrize("mode", MODES)
def test_echo(run, four, mode, kind, make):
    async def main():
        server = await serve(loops(four), make, "127.0.0.1", 0, accept=mode, ssl=server_terms(kind))

        def clients():
            with contextlib.ExitStack() as stack:
                made = [stack.enter_context(secured(connect(server), kind)) for _ in range(24)]
                for n, client in enumerate(made):
                    assert ask(client, b"%d" % n) == b"%d" % n
                names = {ask(client) for client in made}
            return names

        async with server:
            assert server.is_serving()
            names = await in_thread(clients)
        stats = server.stats()
        assert (stats.accepted, stats.open) == (24, 0)
        assert sum(loop.accepted > 0 for loop in stats.loops) == len(names)
        assert not server.is_serving() and server.sockets == ()
        assert [thread.contexts for thread in four] == [[], [], [], []]

    run(main())


@pytest.mark.parametrize("mode", ["reuseport", "balance"])
def test_connections_are_spread(run, four, mode):
    async def main():
        server = await serve(loops(four), Echo, "127.0.0.1", 0, accept=mode)
        clients = await in_thread(lambda: [connect(server) for _ in range(100)])
        for client in clients:
            assert await in_thread(ask, client)
        spread = [loop.open for loop in server.stats().loops]
        # A hash that leaves a loop out of a hundred has a chance of less than one in 10 ** 12.
        assert spread == [25] * 4 if mode == "balance" else min(spread) > 0, spread
        for client in clients:
            client.close()
        assert await server.drain() == 0

    run(main())


def test_balance_prefers_the_loop_with_the_fewest(run, four):
    async def main():
        server = await serve(loops(four), Echo, "127.0.0.1", 0, accept="balance")
        clients = await in_thread(lambda: [connect(server) for _ in range(40)])
        by_thread = {}
        for client in clients:
            by_thread.setdefault(await in_thread(ask, client), []).append(client)
        assert sorted(map(len, by_thread.values())) == [10] * 4
        emptied = next(iter(by_thread))
        gone = by_thread[emptied]
        for client in gone:
            client.shutdown(socket.SHUT_WR)
            assert await in_thread(at_end, client)
            client.close()
        # The end reaches the peer when the socket is closed; the count follows in the same callback.
        [index] = [n for n, thread in enumerate(four) if thread.call(ask_name) == emptied]
        four[index].call(int)
        again = await in_thread(lambda: [connect(server) for _ in range(10)])
        assert {await in_thread(ask, client) for client in again} == {emptied}
        for client in [*clients, *again]:
            client.close()
        assert await server.drain() == 0

    run(main())


def until_asleep(stats):
    """Wait until every thread sleeps: one that was woken counts as running from that moment."""
    end = time.monotonic() + PATIENCE
    waiting = stats
    while waiting:
        waiting = [path for path in waiting if path.read_text().rpartition(")")[2].split()[0] != "S"]
        assert time.monotonic() < end


def parks(made):
    """How often each loop has slept. Asking wakes it: it sleeps once more afterwards."""
    return [thread.call(thread.loop._metrics)["parks"] for thread in made]


def test_one_connection_wakes_one_loop():
    """Eight loops sleep on one socket. Without the exclusive flag each connection would wake all of them."""
    with threads(8) as made:
        server = tokioloop.run(serve(loops(made), Echo, "127.0.0.1", 0, accept="shared"))
        stats = [Path(f"/proc/self/task/{thread.call(threading.get_native_id)}/stat") for thread in made]
        for _ in range(20):
            before = parks(made)
            until_asleep(stats)
            with connect(server):
                until_asleep(stats)
                # Each slept once after it was asked; a loop that slept again was woken by the connection.
                woken = [new - old > 1 for new, old in zip(parks(made), before, strict=True)]
            assert sum(woken) <= 1, woken
            until_asleep(stats)
        tokioloop.run(server.drain())


@pytest.mark.parametrize("mode", ["shared", "balance"])
def test_unix(run, four, mode, tmp_path):
    async def main():
        path = tmp_path / "socket"
        async with await serve(loops(four), Echo, path=path, accept=mode) as server:
            assert server.addresses == (str(path),) and server.port is None
            with await in_thread(connect, server) as client:
                assert await in_thread(ask, client, b"x") == b"x"
        assert not path.exists()

    run(main())


@pytest.mark.parametrize("mode", ["shared", "balance"])
def test_a_socket_of_the_callers(run, four, mode):
    async def main():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            async with await serve(loops(four), Echo, sock=sock, accept=mode) as server:
                with await in_thread(connect, server) as client:
                    assert await in_thread(ask, client, b"x") == b"x"
            assert sock.fileno() == -1

    run(main())


@pytest.mark.parametrize("mode", MODES)
def test_all_addresses_get_one_port(run, four, mode):
    async def main():
        async with await serve(
            loops(four), Echo, ["127.0.0.1", "127.0.0.2", "localhost"], 0, accept=mode
        ) as server:
            assert len(server.addresses) >= 2
            assert {address[1] for address in server.addresses} == {server.port}
            listening = {sock.getsockname() for sock in server.sockets}
            assert listening == set(server.addresses)

    run(main())


def test_the_loop_that_serves_may_be_the_one_that_awaits(loop, run, four):
    async def main():
        async with await serve([loop, *loops(four)], Echo, "127.0.0.1", 0, accept="balance") as server:
            clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(5)]
            names = set()
            for reader, writer in clients:
                writer.write(b"who")
                names.add(await reader.read(100))
            assert len(names) == 5 and ask_name() in names
            for _, writer in clients:
                writer.close()

    run(main())


def test_it_can_be_awaited_on_any_asyncio_loop(four):
    async def main():
        async with await serve(loops(four), Echo, "127.0.0.1", 0, accept="shared") as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE))


def test_which_functions_are_streams_callbacks(run, four):
    class Callback:
        async def __call__(self, reader, writer):
            await echo_streams(reader, writer)

    async def main():
        for make, streams in [
            (functools.partial(echo_streams), None),
            (Callback(), True),
            (lambda reader, writer: echo_streams(reader, writer), True),
            (lambda: Echo(), None),
        ]:
            async with await serve(loops(four), make, "127.0.0.1", 0, streams=streams) as server:
                with await in_thread(connect, server) as client:
                    assert await in_thread(ask, client, b"x") == b"x"

    run(main())


@pytest.mark.parametrize("mode", MODES)
def test_a_loop_that_does_not_run_undoes_the_others(run, four, mode):
    async def main():
        idle = tokioloop.TokioLoop()
        for place in range(5):
            made = loops(four)
            made.insert(place, idle)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            with pytest.raises(RuntimeError, match="does not run$"):
                await serve(made, Echo, "127.0.0.1", port, accept=mode)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        idle.close()

    run(main())


def test_a_socket_stays_the_callers_if_serving_fails(run, four, tmp_path):
    async def main():
        idle = tokioloop.TokioLoop()
        for mode in ("shared", "balance"):
            with pytest.raises(RuntimeError, match="does not run$"):
                await serve([idle, *loops(four)], Echo, path=tmp_path / "socket", accept=mode)
            assert not (tmp_path / "socket").exists()
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                with pytest.raises(RuntimeError, match="does not run$"):
                    await serve([*loops(four), idle], Echo, sock=sock, accept=mode)
                assert sock.fileno() >= 0
        idle.close()

    run(main())


def test_bad_terms_of_tls_undo_everything(run, four):
    async def main():
        for mode in MODES:
            with pytest.raises(ValueError, match="ssl_handshake_timeout should be a positive number"):
                await serve(
                    loops(four),
                    Echo,
                    "127.0.0.1",
                    0,
                    accept=mode,
                    ssl=server_terms("ssl"),
                    ssl_handshake_timeout=-1,
                )
            with pytest.raises(TypeError, match="a server needs a tokioloop.tls.ServerConfig"):
                await serve(loops(four), Echo, "127.0.0.1", 0, accept=mode, ssl=tokioloop.tls.ClientConfig())

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"port": 0, "accept": "some"}, ValueError, "accept must be"),
        ({}, ValueError, "one of host/port, sock and path must be specified"),
        ({"port": 0, "path": "x"}, ValueError, "one of host/port, sock and path must be specified"),
        ({"path": "x"}, ValueError, "accept='reuseport' needs host/port"),
        ({"port": 0, "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        (
            {"port": 0, "ssl_shutdown_timeout": 1},
            ValueError,
            "ssl_shutdown_timeout is only meaningful with ssl",
        ),
    ],
)
def test_argument_errors(loop, run, arguments, error, text):
    with pytest.raises(error, match=f"^{text}"):
        run(serve([loop], Echo, **arguments))


def test_errors_about_the_loops(loop, run):
    for given, error in [([], ValueError), ([loop, loop], ValueError), ([object()], TypeError)]:
        with pytest.raises(error):
            run(serve(given, Echo, "127.0.0.1", 0))


@pytest.mark.parametrize("mode", MODES)
def test_a_factory_that_fails_costs_one_connection_and_no_count(run, four, mode):
    def fails():
        raise LookupError("no protocol")

    async def main():
        server = await serve(loops(four), fails, "127.0.0.1", 0, accept=mode)
        for _ in range(8):
            with await in_thread(connect, server) as client:
                assert await in_thread(at_end, client)
        for thread in four:
            thread.call(int)
        assert server.stats() == ((LoopStats(0, 0),) * 4, 0, 0)
        assert server._shares[0]._balance is None or server._shares[0]._balance.open() == [0] * 4
        contexts = [context for thread in four for context in thread.contexts]
        assert len(contexts) == 8 and all(isinstance(c["exception"], LookupError) for c in contexts)
        await server.drain()

    run(main())


def test_an_interrupt_in_a_factory_leaves_no_count():
    """KeyboardInterrupt leaves the loop; the connection that had not begun is no longer counted."""
    done = python(
        """
        import asyncio, socket, threading, tokioloop

        def interrupted():
            raise KeyboardInterrupt

        loop = tokioloop.TokioLoop()

        server = loop.run_until_complete(
            tokioloop.serve([loop], interrupted, "127.0.0.1", 0, accept="balance")
        )
        client = socket.create_connection(server.addresses[0])
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print(server._shares[0]._balance.open(), server.stats().open)
        client.close()
        loop.run_until_complete(server.drain())
        loop.close()
        """
    )
    assert (done.returncode, done.stdout) == (0, "[0] 0\n"), done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_out_of_descriptors(mode):
    """Accepting pauses without waking the loop all the time, and resumes; no waiting client is lost."""
    done = python(
        """
        import asyncio, os, resource, socket, sys, threading, tokioloop
        from tests.api.pool_support import Echo, ask, threads
        from tokioloop import serve

        async def main(made, mode):
            server = await serve([thread.loop for thread in made], Echo, "127.0.0.1", 0, accept=mode)
            failed = threading.Event()
            for thread in made:
                def report(loop, context, thread=thread):
                    thread.contexts.append(context)
                    failed.set()
                thread.call(thread.loop.set_exception_handler, report)
            clients = [socket.socket() for _ in range(9)]
            for client in clients:
                client.settimeout(30)
            clients[0].connect(server.addresses[0])
            assert ask(clients[0], b"first") == b"first"
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for client in clients[1:]:
                client.connect(server.addresses[0])
            assert failed.wait(30)
            for n in range(20):
                assert ask(clients[0], b"%d" % n) == b"%d" % n
            polls = sum(thread.call(thread.loop._metrics)["polls"] for thread in made)
            assert polls < 1000, polls
            for fd in taken:
                os.close(fd)
            for n, client in enumerate(clients):
                assert ask(client, b"c%d" % n) == b"c%d" % n
                client.close()
            await server.drain()
            messages = {context["message"] for thread in made for context in thread.contexts}
            assert messages == {"socket.accept() out of system resource"}, messages

        with threads(3) as made:
            tokioloop.run(asyncio.wait_for(main(made, sys.argv[1]), 60))
        print("ok")
        """,
        mode,
    )
    assert done.stdout == "ok\n"
