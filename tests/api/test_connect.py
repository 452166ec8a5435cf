"""Outgoing connections."""

import asyncio
import errno
import gc
import socket
import weakref

import pytest

import tokioloop


def resolving(loop, table):
    """Make *loop* resolve host names by *table*: name -> addresses."""

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        return [
            (socket.AF_INET6 if len(address) == 4 else socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in table[host]
        ]

    loop.getaddrinfo = getaddrinfo


def test_connects_and_names_both_ends(loop, run, listener, recorder):
    async def main():
        transport, protocol = await loop.create_connection(recorder, *listener.getsockname())
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(protocol, recorder)
        assert protocol.made.result() is transport
        conn, address = listener.accept()
        with conn:
            assert transport.get_extra_info("peername") == listener.getsockname()
            assert transport.get_extra_info("sockname") == address
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            conn.sendall(b"hello")
        assert await protocol.lost is None
        assert protocol.data == b"hello"

    run(main())


def test_resolves_names(loop, run, listener, recorder):
    async def main():
        transport, protocol = await loop.create_connection(
            recorder, "localhost", listener.getsockname()[1], family=socket.AF_INET
        )
        transport.abort()
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "host and port was not specified and no sock specified"),
        (
            {"host": "h", "server_hostname": "x"},
            ValueError,
            "server_hostname is only meaningful with ssl",
        ),
        ({"ssl": True}, ValueError, "You must set server_hostname when using ssl without a host"),
        (
            {"host": "h", "ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        (
            {"host": "h", "ssl_shutdown_timeout": 1},
            ValueError,
            "ssl_shutdown_timeout is only meaningful with ssl",
        ),
    ],
)
def test_argument_errors(loop, run, arguments, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        run(loop.create_connection(asyncio.Protocol, **arguments))


def test_errors_about_the_sock_argument(loop, run):
    async def main():
        with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            with pytest.raises(
                ValueError, match="^host/port and sock can not be specified at the same time$"
            ):
                await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, sock=sock)
            with pytest.raises(ValueError, match="^A Stream Socket was expected, got <socket.socket"):
                await loop.create_connection(asyncio.Protocol, sock=datagram)
            with pytest.raises(ValueError, match="^A Stream Socket was expected, got <socket.socket"):
                await loop.connect_accepted_socket(asyncio.Protocol, datagram)
            with pytest.raises(ValueError, match="^A UNIX Domain Stream Socket was expected, got"):
                await loop.create_unix_connection(asyncio.Protocol, sock=sock)

    run(main())


def test_ssl_sockets_are_refused(loop, run):
    ssl = pytest.importorskip("ssl")
    context = ssl.create_default_context()

    async def main():
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            wrapped = context.wrap_socket(near, do_handshake_on_connect=False, server_hostname="x")
            with wrapped:
                for refused in (
                    loop.create_connection(asyncio.Protocol, sock=wrapped),
                    loop.connect_accepted_socket(asyncio.Protocol, wrapped),
                    loop.create_server(asyncio.Protocol, sock=wrapped),
                    loop.sock_connect(wrapped, ("127.0.0.1", 1)),
                ):
                    with pytest.raises(TypeError, match="^Socket cannot be of type SSLSocket$"):
                        await refused

    run(main())


def test_refused_connection_names_the_address(loop, run, refused):
    with pytest.raises(ConnectionRefusedError) as caught:
        run(loop.create_connection(asyncio.Protocol, *refused))
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.strerror == f"Connect call failed {refused!r}"


def test_next_address_is_tried(loop, run, listener, refused, recorder):
    resolving(loop, {"two": [refused, listener.getsockname()]})

    async def main():
        transport, protocol = await loop.create_connection(recorder, "two", 0)
        assert transport.get_extra_info("peername") == listener.getsockname()
        transport.abort()
        await protocol.lost

    run(main())


def test_different_errors_are_combined(loop, run, refused):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        other = sock.getsockname()
        resolving(loop, {"two": [refused, other]})
        with pytest.raises(OSError, match="^Multiple exceptions: ") as caught:
            run(loop.create_connection(asyncio.Protocol, "two", 0))
        assert str(caught.value) == (
            f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] Connect call failed {refused!r}, "
            f"[Errno {errno.ECONNREFUSED}] Connect call failed {other!r}"
        )


def test_equal_errors_are_raised_once(loop, run, refused):
    resolving(loop, {"same": [refused, refused]})
    with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
        run(loop.create_connection(asyncio.Protocol, "same", 0))


@pytest.mark.parametrize("delay", [None, 10])
def test_all_errors_gives_a_group_in_the_order_of_addresses(loop, run, refused, delay):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        addresses = [refused, sock.getsockname()]
        resolving(loop, {"two": addresses})
        with pytest.raises(ExceptionGroup, match="^create_connection failed") as caught:
            run(
                loop.create_connection(
                    asyncio.Protocol, "two", 0, all_errors=True, happy_eyeballs_delay=delay
                )
            )
        assert [error.strerror for error in caught.value.exceptions] == [
            f"Connect call failed {address!r}" for address in addresses
        ]


@pytest.mark.parametrize("delay", [None, 0.01])
def test_failed_connect_leaves_no_reference_cycle(loop, run, refused, delay):
    resolving(loop, {"two": [refused, refused]})

    class Refusal(OSError):
        """An error that can be watched going away."""

    async def sock_connect(sock, address):
        raise Refusal(errno.ECONNREFUSED, "no")

    async def main(**options):
        try:
            await loop.create_connection(asyncio.Protocol, "two", 0, happy_eyeballs_delay=delay, **options)
        except OSError as exc:
            return [weakref.ref(exc)]
        except ExceptionGroup as group:
            return [weakref.ref(exc) for exc in group.exceptions]

    loop.sock_connect = sock_connect
    gc.collect()
    gc.disable()
    try:
        assert [ref() for ref in run(main())] == [None]
        assert [ref() for ref in run(main(all_errors=True))] == [None, None]
    finally:
        gc.enable()


def test_happy_eyeballs_overtakes_a_silent_address(loop, run, listener, blackhole, recorder):
    resolving(loop, {"two": [blackhole, listener.getsockname()]})

    async def main():
        transport, protocol = await loop.create_connection(recorder, "two", 0, happy_eyeballs_delay=0.01)
        assert transport.get_extra_info("peername") == listener.getsockname()
        transport.abort()
        await protocol.lost
        # The attempt that lost has ended with the race.
        assert asyncio.all_tasks(loop) == {asyncio.current_task()}

    run(main())


def test_happy_eyeballs_does_not_wait_after_a_failure(loop, run, listener, refused, recorder):
    resolving(loop, {"two": [refused, listener.getsockname()]})

    async def main():
        transport, protocol = await loop.create_connection(recorder, "two", 0, happy_eyeballs_delay=3600)
        assert transport.get_extra_info("peername") == listener.getsockname()
        transport.abort()
        await protocol.lost

    run(main())


def test_families_take_turns(loop, run):
    tried = []

    async def sock_connect(sock, address):
        tried.append(address[1])
        raise OSError(errno.EHOSTUNREACH, "unreachable")

    loop.sock_connect = sock_connect
    six = [("::1", port, 0, 0) for port in (61, 62, 63, 64)]
    four = [("127.0.0.1", port) for port in (41, 42)]
    resolving(loop, {"many": six + four})

    async def main(**options):
        tried.clear()
        with pytest.raises(OSError, match="unreachable"):
            await loop.create_connection(asyncio.Protocol, "many", 0, **options)
        return list(tried)

    assert run(main()) == [61, 62, 63, 64, 41, 42]
    assert run(main(interleave=1)) == [61, 41, 62, 42, 63, 64]
    assert run(main(interleave=3)) == [61, 62, 63, 41, 64, 42]
    assert run(main(happy_eyeballs_delay=10)) == [61, 41, 62, 42, 63, 64]
    assert run(main(happy_eyeballs_delay=10, interleave=0)) == [61, 62, 63, 64, 41, 42]


def test_local_address(loop, run, listener, recorder):
    async def main():
        transport, protocol = await loop.create_connection(
            recorder, *listener.getsockname(), local_addr=("127.0.0.2", 0)
        )
        assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
        transport.abort()
        await protocol.lost

    run(main())


def test_local_address_in_use(loop, run, listener, refused):
    async def main():
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            await loop.create_connection(asyncio.Protocol, *listener.getsockname(), local_addr=refused)
        assert caught.value.errno == errno.EADDRINUSE
        assert str(caught.value).startswith(
            f"[Errno {errno.EADDRINUSE}] error while attempting to bind on address {refused!r}: [errno "
        )

    run(main())


def test_local_address_of_another_family(loop, run, listener):
    resolving(loop, {"local": [("::1", 0, 0, 0)]})
    with pytest.raises(OSError, match=r"^no matching local address with family=.*AF_INET.* found$"):
        run(loop.create_connection(asyncio.Protocol, *listener.getsockname(), local_addr=("local", 0)))


def test_second_local_address_is_tried(loop, run, listener, refused, recorder):
    resolving(loop, {"local": [refused, ("127.0.0.3", 0)]})

    async def main():
        transport, protocol = await loop.create_connection(
            recorder, *listener.getsockname(), local_addr=("local", 0)
        )
        assert transport.get_extra_info("sockname")[0] == "127.0.0.3"
        transport.abort()
        await protocol.lost

    run(main())


def test_empty_answer(loop, run):
    resolving(loop, {"nothing": []})
    with pytest.raises(OSError, match=r"^getaddrinfo\(\) returned empty list$"):
        run(loop.create_connection(asyncio.Protocol, "nothing", 0))


def test_cancelled_connect_closes_its_socket(loop, run, blackhole):
    async def main():
        connect = loop.create_task(loop.create_connection(asyncio.Protocol, *blackhole))
        while not made:
            await asyncio.sleep(0)
        connect.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connect
        assert made[0].fileno() == -1

    made = []
    real = loop.sock_connect

    async def sock_connect(sock, address):
        made.append(sock)
        await real(sock, address)

    loop.sock_connect = sock_connect
    run(main())


def test_failing_factory_reaches_the_caller(loop, run, listener):
    def factory():
        raise ZeroDivisionError

    async def main():
        sock = socket.create_connection(listener.getsockname())
        with sock, pytest.raises(ZeroDivisionError):
            await loop.create_connection(factory, sock=sock)

    run(main())


def test_failing_factory_leaves_no_socket_behind(loop, run, listener):
    def factory():
        raise ZeroDivisionError

    async def main():
        with pytest.raises(ZeroDivisionError):
            await loop.create_connection(factory, *listener.getsockname())
        conn, _ = listener.accept()
        with conn:
            assert conn.recv(1) == b""

    run(main())


def test_connected_socket_is_taken_over(loop, run, recorder):
    async def main():
        near, far = socket.socketpair()
        with far:
            transport, protocol = await loop.create_connection(recorder, sock=near)
            assert near.gettimeout() == 0
            far.sendall(b"x")
            far.close()
            await protocol.lost
            assert protocol.data == b"x"
            assert transport.is_closing()

    run(main())


def test_accepted_socket_is_taken_over(loop, run, listener, recorder):
    async def main():
        with socket.create_connection(listener.getsockname()) as client:
            conn, _ = listener.accept()
            transport, protocol = await loop.connect_accepted_socket(recorder, conn)
            transport.write(b"welcome")
            transport.close()
            await protocol.lost
            assert client.recv(100) == b"welcome"

    run(main())


def test_sock_connect(loop, run, listener):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("localhost", listener.getsockname()[1]))
            assert sock.getpeername() == listener.getsockname()

    run(main())


def test_sock_connect_wants_a_nonblocking_socket_in_debug_mode(loop, run, listener):
    loop.set_debug(True)

    async def main():
        sock = socket.socket()
        with sock, pytest.raises(ValueError, match="^the socket must be non-blocking$"):
            await loop.sock_connect(sock, listener.getsockname())

    run(main())


def test_streams_on_a_connection(loop, run, listener):
    async def main():
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        conn, _ = listener.accept()
        with conn:
            writer.write(b"ping\n")
            await writer.drain()
            assert conn.recv(100) == b"ping\n"
            conn.sendall(b"pong\n")
            assert await reader.readline() == b"pong\n"
        writer.close()
        await writer.wait_closed()

    run(main())


def test_subclass_may_resolve_its_own_way(listener, recorder):
    class Mine(tokioloop.TokioLoop):
        async def getaddrinfo(self, host, port, **options):
            return await super().getaddrinfo("127.0.0.1", port, **options)

    loop = Mine()

    async def main():
        transport, protocol = await loop.create_connection(recorder, "anything", listener.getsockname()[1])
        transport.abort()
        await protocol.lost

    try:
        loop.run_until_complete(main())
        assert loop.is_running() is False
    finally:
        loop.close()


def test_false_means_no_tls(loop, run, listener):
    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname(), ssl=False)
        assert transport.get_extra_info("sslcontext") is None
        transport.abort()

    run(main())


def test_start_tls_wants_a_context(loop, run):
    with pytest.raises(
        TypeError, match="^sslcontext is expected to be an instance of ssl.SSLContext, got 1$"
    ):
        run(loop.start_tls(None, None, 1))
