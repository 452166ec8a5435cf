"""The end of a server over several loops: close, drain, clients that are ended, loops that are closed."""

import asyncio
import threading

import pytest

from tokioloop import serve

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
    leaves_open,
    loops,
    threads,
)


@pytest.mark.parametrize("mode", MODES)
def test_close_stops_accepting_and_connections_go_on(run, four, mode):
    async def main():
        server = await serve(loops(four), Echo, "127.0.0.1", 0, accept=mode)
        client = await in_thread(connect, server)
        assert await in_thread(ask, client, b"x") == b"x"
        await in_thread(server.close)
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        for thread in four:
            thread.call(int)  # earlier calls to it are done
        for thread in four:
            thread.call(int)  # and those of the first to the others
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        assert await in_thread(ask, client, b"y") == b"y"
        assert not waiting.done()
        client.close()
        await waiting
        await server.wait_closed()

    run(main())


@pytest.mark.parametrize("mode", MODES)
def test_drain_waits_for_connections(run, four, mode):
    async def main():
        server = await serve(loops(four), echo_streams, "127.0.0.1", 0, accept=mode)
        clients = await in_thread(lambda: [connect(server) for _ in range(8)])
        for client in clients:
            assert await in_thread(ask, client, b"x") == b"x"
        draining = asyncio.create_task(server.drain())
        for client in clients:
            assert await in_thread(ask, client, b"y") == b"y"
        assert not draining.done()
        for client in clients:
            client.close()
        assert await draining == 0

    run(main())


@pytest.mark.parametrize("mode", MODES)
def test_drain_closes_and_then_aborts_after_its_time(run, four, mode):
    """Idle connections are closed; one whose peer does not read could never send all its data, and is aborted."""

    class Flood(Echo):
        def data_received(self, data):
            self.transport.write(data if data == b"idle" else bytes(64 << 20))

    async def main():
        server = await serve(loops(four), Flood, "127.0.0.1", 0, accept=mode)
        idle = await in_thread(lambda: [connect(server) for _ in range(5)])
        for client in idle:
            assert await in_thread(ask, client, b"idle") == b"idle"
        stuck = await in_thread(lambda: [connect(server) for _ in range(2)])
        for client in stuck:
            client.sendall(b"flood")
            assert await in_thread(client.recv, 1)
        assert await server.drain(0) == 2
        assert server.stats().open == 0
        for client in idle:
            assert await in_thread(at_end, client)
        for client in [*idle, *stuck]:
            client.close()

    run(main())


@pytest.mark.parametrize("end", ["close_clients", "abort_clients"])
def test_clients_are_ended(run, four, end):
    async def main():
        server = await serve(loops(four), Echo, "127.0.0.1", 0, accept="balance")
        clients = await in_thread(lambda: [connect(server) for _ in range(8)])
        for client in clients:
            assert await in_thread(ask, client, b"x") == b"x"
        getattr(server, end)()
        for client in clients:
            assert await in_thread(at_end, client)
        assert server.is_serving()
        for client in clients:
            client.close()
        await server.drain()

    run(main())


@leaves_open
@pytest.mark.parametrize("which", [0, 1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_loop_is_closed_half_way(run, four, mode, which):
    async def main():
        server = await serve(loops(four), Echo, "127.0.0.1", 0, accept=mode)
        clients = await in_thread(lambda: [connect(server) for _ in range(8)])
        names = [await in_thread(ask, client) for client in clients]
        gone = four[which].call(ask_name)
        await in_thread(four[which].stop)
        assert server.stats().loops[which].open == 0
        for client, name in zip(clients, names, strict=True):
            if name != gone:
                assert await in_thread(ask, client) == name
        if mode == "balance" and which == 0:
            with pytest.raises(ConnectionRefusedError):
                connect(server)
        else:
            for _ in range(8):
                with await in_thread(connect, server) as client:
                    assert await in_thread(ask, client) != gone
        for client in clients:
            client.close()
        assert await server.drain() == 0

    run(main())


def test_connections_of_a_closing_loop_go_to_another(run, four):
    """The loop is kept from taking it out of its inbox until it is closed."""
    busy, free = threading.Event(), threading.Event()

    def keep_busy(loop):
        busy.set()
        free.wait(PATIENCE)
        loop.stop()

    async def main():
        server = await serve(loops(four), Echo, "127.0.0.1", 0, accept="balance")
        gone = four[2].call(ask_name)
        four[2].loop.call_soon_threadsafe(keep_busy, four[2].loop)
        await in_thread(busy.wait, PATIENCE)
        clients = await in_thread(lambda: [connect(server) for _ in range(4)])
        answers = [asyncio.create_task(in_thread(ask, client)) for client in clients]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        four[0].call(int)
        free.set()
        names = await asyncio.gather(*answers)
        assert gone not in names and len(names) == 4
        for client in clients:
            client.close()
        await server.drain()
        assert server.stats().accepted == 4

    run(main())


@leaves_open
def test_every_loop_is_closed_and_the_server_has_ended(run, left_open):
    async def main():
        for mode in MODES:
            with threads(3) as made:
                server = await serve(loops(made), Echo, "127.0.0.1", 0, accept=mode)
                client = await in_thread(connect, server)
                assert await in_thread(ask, client, b"x") == b"x"
            await server.wait_closed()
            assert not server.is_serving()
            server.close()
            with pytest.raises(ConnectionRefusedError):
                connect(server)
            client.close()

    run(main())
