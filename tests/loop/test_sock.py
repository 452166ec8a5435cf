"""sock_recv, sock_recv_into, sock_sendall, sock_accept, sock_connect."""

import asyncio
import contextlib
import inspect
import socket

import pytest

from .support import receive_exactly, reset, tcp_pair, unix_pair

SIZE = 4 << 20


def test_huge_sends_arrive_whole(loop, run, pair):
    near, far = pair
    data = bytes(range(256)) * (SIZE // 256)

    async def main():
        sending = asyncio.create_task(loop.sock_sendall(near, data))
        assert await receive_exactly(far, SIZE) == data
        assert await sending is None

    run(main())


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_sends_of_every_kind(loop, run, pair, wrap):
    near, far = pair

    async def main():
        await loop.sock_sendall(near, wrap(b"data"))
        await loop.sock_sendall(near, wrap(b""))
        assert await loop.sock_recv(far, 10) == b"data"

    run(main())


def test_a_cancelled_receive_loses_nothing(loop, run, pair):
    """Cancelled at every moment: before, while and after the bytes come."""
    near, far = pair

    async def main():
        got = bytearray()
        for n in range(200):
            task = asyncio.create_task(loop.sock_recv(near, 100))
            if n % 3:
                await asyncio.sleep(0)
            far.send(b"%03d" % n)
            for _ in range(n % 5):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += await task
        far.close()
        while part := await loop.sock_recv(near, 1000):
            got += part
        assert got == b"".join(b"%03d" % n for n in range(200))

    run(main())


def test_a_cancelled_accept_loses_no_connection(loop, run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            accepted = 0
            for n in range(50):
                task = asyncio.create_task(loop.sock_accept(listener))
                await asyncio.sleep(0)
                with socket.create_connection(listener.getsockname()):
                    for _ in range(n % 4):
                        await asyncio.sleep(0)
                    task.cancel()
                    try:
                        (await task)[0].close()
                        accepted += 1
                    except asyncio.CancelledError:
                        pass
            while accepted < 50:
                connection, _ = await loop.sock_accept(listener)
                connection.close()
                accepted += 1

    run(main())


def test_receiving_and_sending_at_once(loop, run, pair):
    near, far = pair

    async def main():
        receiving = asyncio.create_task(receive_exactly(near, SIZE))
        sending = asyncio.create_task(loop.sock_sendall(near, bytes(SIZE)))
        await asyncio.gather(receive_exactly(far, SIZE), loop.sock_sendall(far, bytes(SIZE)))
        assert await receiving == bytes(SIZE)
        await sending

    run(main())


def test_receive_into(loop, run, pair):
    near, far = pair

    async def main():
        buffer = bytearray(8)
        far.send(b"0123456789")
        assert await loop.sock_recv_into(near, memoryview(buffer)[2:6]) == 4
        assert buffer == b"\0\0" + b"0123" + b"\0\0"
        assert await loop.sock_recv_into(near, buffer) == 6
        far.close()
        assert await loop.sock_recv_into(near, buffer) == 0
        with pytest.raises((TypeError, BufferError)):
            await loop.sock_recv_into(near, b"read-only")

    run(main())


@pytest.mark.parametrize("limit", [0, 1, 1000, 16 * 1024, 16 * 1024 + 1, 1 << 20])
def test_receive_limits(loop, run, pair, limit):
    near, far = pair

    async def main():
        far.send(bytes(2000))
        assert await loop.sock_recv(near, limit) == bytes(min(limit, 2000))

    run(main())


def test_negative_and_absurd_limits(loop, run, pair):
    near, far = pair
    far.send(b"x")

    async def main():
        with pytest.raises(ValueError, match="negative"):
            await loop.sock_recv(near, -1)
        with pytest.raises((MemoryError, OverflowError)):
            await loop.sock_recv(near, 2**62)

    run(main())


def test_a_reset_is_an_error(loop, run):
    near, far = tcp_pair()

    async def main():
        task = asyncio.create_task(loop.sock_recv(near, 10))
        await asyncio.sleep(0)
        reset(far)
        with pytest.raises(ConnectionResetError):
            await task
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await loop.sock_sendall(near, b"x")

    run(main())
    near.close()


@pytest.mark.parametrize("call", ["sock_recv", "sock_recv_into", "sock_sendall", "sock_accept"])
def test_a_closed_socket(loop, run, call):
    near, far = unix_pair()
    near.close()
    far.close()
    args = {"sock_recv": (1,), "sock_recv_into": (bytearray(1),), "sock_sendall": (b"x",)}.get(call, ())

    async def main():
        await getattr(loop, call)(near, *args)

    with pytest.raises((OSError, ValueError)):
        run(main())


def test_a_socket_that_is_used_by_a_transport(loop, run, pair):
    near, _ = pair

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        with pytest.raises(RuntimeError, match="used by transport"):
            await loop.sock_recv(near, 1)
        transport.abort()
        await asyncio.sleep(0)

    run(main())


def test_nothing_happens_before_it_is_awaited(loop, run, pair):
    near, far = pair
    far.send(b"data")
    call = loop.sock_recv(near, 10)
    call.close()
    assert run(loop.sock_recv(near, 10)) == b"data"


def test_it_behaves_as_a_coroutine(loop, run, pair):
    near, far = pair
    call = loop.sock_recv(near, 10)
    assert asyncio.iscoroutine(call) and inspect.isawaitable(call)
    far.send(b"data")
    assert run(asyncio.wait_for(call, 5)) == b"data"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        call.send(None)


def test_throwing_into_a_waiting_call(loop, run, pair):
    near, far = pair

    async def main():
        call = loop.sock_recv(near, 10)
        call.send(None)
        with pytest.raises(LookupError, match="thrown"):
            call.throw(LookupError("thrown"))
        far.send(b"data")
        return await loop.sock_recv(near, 10)

    assert run(main()) == b"data"


def test_connecting(loop, run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            listener.setblocking(False)
            server, address = await loop.sock_accept(listener)
            assert address == client.getsockname() and server.gettimeout() == 0
            with server:
                await loop.sock_sendall(server, b"hello")
                assert await loop.sock_recv(client, 10) == b"hello"

    run(main())


def test_connecting_without_a_listener(loop, run):
    async def main():
        with socket.socket() as bound, socket.socket() as client:
            bound.bind(("127.0.0.1", 0))
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(client, bound.getsockname())

    run(main())


def test_many_at_once(loop, run):
    async def main():
        pairs = [unix_pair() for _ in range(100)]

        async def echo(sock):
            await loop.sock_sendall(sock, await loop.sock_recv(sock, 100))

        async def ask(sock, n):
            await loop.sock_sendall(sock, b"%d" % n)
            return int(await loop.sock_recv(sock, 100))

        for _ in range(5):
            answers = await asyncio.gather(
                *(ask(near, n) for n, (near, _) in enumerate(pairs)), *(echo(far) for _, far in pairs)
            )
            assert answers[:100] == list(range(100))
        for near, far in pairs:
            near.close()
            far.close()

    run(main())


def test_a_waiting_call_awaited_twice(loop, run, pair):
    """One gets the bytes, the other an error; which is which is not defined."""
    near, far = pair

    async def main():
        call = loop.sock_recv(near, 10)

        async def wait():
            return await call

        tasks = [asyncio.create_task(wait()) for _ in range(2)]
        await asyncio.sleep(0)
        far.send(b"data")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert b"data" in answers
        assert any(isinstance(answer, RuntimeError) for answer in answers)

    run(main())


def test_awaited_in_a_task_of_its_own_and_by_name(loop, run, pair):
    near, far = pair

    async def main():
        far.send(b"data")
        assert await loop.create_task(loop.sock_recv(near, 10)) == b"data"
        assert await loop.create_task(loop.sock_sendall(sock=near, data=b"x")) is None
        assert await loop.sock_recv(far, n=10) == b"x"
        for wrong in [(), (near,), (near, 1, 2)]:
            with pytest.raises(TypeError):
                loop.sock_recv(*wrong)
        with pytest.raises(TypeError):
            loop.sock_recv(near, limit=1)
        with pytest.raises(TypeError):
            loop.sock_recv(near, 1, n=1)

    run(main())
