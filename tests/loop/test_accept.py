"""Servers under strain: out of descriptors, thousands of connections, factories that fail."""

import asyncio
import contextlib
import socket

import pytest

from .support import Recorder, python


def test_out_of_descriptors():
    """Accepting pauses, reports that once, and resumes; open connections survive, and no waiting client is lost."""
    done = python(
        """
        import asyncio, os, resource, socket, tokioloop

        loop = tokioloop.TokioLoop()
        contexts = []
        loop.set_exception_handler(lambda loop, context: contexts.append(context))

        async def serve(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        async def echo(sock, data):
            await loop.sock_sendall(sock, data)
            return await loop.sock_recv(sock, 100)

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            clients = []
            for _ in range(10):
                clients.append(socket.socket())
                clients[-1].setblocking(False)
            await loop.sock_connect(clients[0], address)
            assert await echo(clients[0], b"first") == b"first"
            # Every free number is taken, but the connections can still be made: their sockets exist already.
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for client in clients[1:]:
                await loop.sock_connect(client, address)
            failed = loop.create_future()
            loop.set_exception_handler(
                lambda loop, context: (contexts.append(context), failed.done() or failed.set_result(None))
            )
            if not contexts:
                await failed
            for n in range(20):
                assert await echo(clients[0], b"%d" % n) == b"%d" % n
            said = len(contexts)
            for fd in taken:
                os.close(fd)
            for n, client in enumerate(clients):
                assert await echo(client, b"c%d" % n) == b"c%d" % n
            for client in clients:
                client.close()
            server.close()
            await server.wait_closed()
            return said

        said = loop.run_until_complete(asyncio.wait_for(main(), 30))
        loop.close()
        assert said == 1, contexts
        assert contexts[0]["message"] == "socket.accept() out of system resource", contexts
        print("ok")
        """
    )
    assert done.stdout == "ok\n"


def test_five_thousand_connections():
    done = python(
        """
        import asyncio, resource, socket, tokioloop
        COUNT = 5000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 2 * COUNT + 200:
            print("skip")
            raise SystemExit
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * COUNT + 200, hard))
        loop = tokioloop.TokioLoop()

        class Echo(asyncio.Protocol):
            live = 0
            def connection_made(self, transport):
                self.transport = transport
                Echo.live += 1
            def data_received(self, data):
                self.transport.write(data)
            def connection_lost(self, error):
                Echo.live -= 1

        class Client(asyncio.Protocol):
            def __init__(self, n):
                self.word, self.answer = b"%05d" % n, loop.create_future()
            def connection_made(self, transport):
                self.transport, self.got = transport, b""
            def data_received(self, data):
                self.got += data
                if len(self.got) >= 5:
                    self.answer.set_result(self.got == self.word)

        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
            address = server.sockets[0].getsockname()
            clients = []
            for start in range(0, COUNT, 250):
                made = await asyncio.gather(
                    *(loop.create_connection(lambda n=n: Client(n), *address) for n in range(start, start + 250)))
                clients += [protocol for _, protocol in made]
            for client in clients:
                client.transport.write(client.word)
            answers = await asyncio.gather(*(client.answer for client in clients))
            assert all(answers) and Echo.live == COUNT
            for client in clients:
                client.transport.close()
            server.close()
            await server.wait_closed()
            assert Echo.live == 0

        loop.run_until_complete(asyncio.wait_for(main(), 100))
        loop.close()
        print("ok")
        """
    )
    if done.stdout == "skip\n":
        pytest.skip("the limit of open files is too low")
    assert done.stdout == "ok\n"


def test_a_factory_that_fails_costs_one_connection(loop, run, contexts):
    async def main():
        made = []

        def factory():
            made.append(1)
            if len(made) == 1:
                raise LookupError("no protocol")
            return Recorder()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(client, 1) == b""
        _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        (context,) = contexts
        assert context["message"] == "Error on transport creation for incoming connection"
        assert isinstance(context["exception"], LookupError)

    run(main())


@pytest.mark.parametrize("bad", [None, 5, object()])
def test_a_factory_that_makes_no_protocol(loop, run, contexts, bad):
    async def main():
        server = await loop.create_server(lambda: bad, "127.0.0.1", 0)
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            await loop.sock_sendall(client, b"x")
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(client, 1) == b""
        server.close()
        server.abort_clients()
        await server.wait_closed()
        assert contexts

    run(main())


def test_connections_reset_before_they_are_accepted(loop, run, contexts):
    async def main():
        from .support import reset

        server = await loop.create_server(Recorder, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        listening = server.sockets[0].fileno()
        socket.socket(fileno=listening).detach()
        await server.start_serving()
        for _ in range(20):
            reset(socket.create_connection(address))
        _reader, writer = await asyncio.open_connection(*address)
        writer.close()
        await writer.wait_closed()
        server.close()
        server.abort_clients()
        await server.wait_closed()
        assert contexts == []

    run(main())


def test_closing_the_server_in_its_factory(loop, run):
    async def main():
        made = loop.create_future()

        def factory():
            server.close()
            made.set_result(Recorder())
            return made.result()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        protocol = await made
        await protocol.event("made")
        writer.write(b"x")
        assert await protocol.received(1) == b"x"
        writer.close()
        await protocol.lost()
        await server.wait_closed()

    run(main())
