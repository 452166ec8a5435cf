"""What OpenSSL calls back in the middle of a handshake, a read or a write: it may raise, come in again, close the connection, or take
its time in another thread's company."""

import asyncio
import gc
import ssl
import sys
import threading

import pytest

from .support import Recorder
from .tls_support import TLS_1_2, TLS_1_3, against_peer, client_context, linked, server_context, serving

VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
# Longer than any test may take: nothing waits for it.
LONG = {"ssl_shutdown_timeout": 3600, "ssl_handshake_timeout": 3600}


def told_of(context, callback):
    """The context, with a callback for each message, which is also in the way of each call."""
    context._msg_callback = callback
    return context


class Always:
    """A message callback that raises. `ssl` drops the error where it has to report that it needs input; otherwise it raises it."""

    def __init__(self, error):
        self.error, self.armed = error, True

    def __call__(self, *_):
        if self.armed:
            raise self.error


class Once:
    """A message callback that does something the *count*-th time it is called while armed."""

    def __init__(self, act, count=1):
        self.act, self.left, self.armed = act, count, False

    def __call__(self, connection, direction, version, content_type, msg_type, data):
        if self.armed:
            self.left -= 1
            if self.left == 0:
                self.armed = False
                self.act()


async def connected(peer):
    """The peer's handshake, and with TLS 1.3, where a client is done first, the other side's."""
    await peer.handshake()
    await peer.drive(peer.object.read, 1)


def own_transport(loop):
    """Before connection_made nothing shows it."""
    found = [
        thing
        for thing in gc.get_objects()
        if type(thing).__name__ == "SslTransport" and thing._loop is loop and not thing.is_closing()
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
@VERSIONS
def test_closing_at_any_message_of_the_handshake(secure_ours, version, count, server_side, way):
    async def main():
        loop = asyncio.get_running_loop()
        once = Once(lambda: getattr(own_transport(loop), way)(), count)
        context = (server_context if server_side else client_context)(version=version)
        protocol = Recorder()
        async with against_peer(
            protocol,
            server_side=server_side,
            handshake=False,
            ssl=told_of(context, once),
            version=version,
            **LONG,
        ) as (_, peer):
            once.armed = True
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connected(peer)
            await asyncio.wait([protocol.connecting])
            # Closed before it was made.
            assert protocol.log == []

    secure_ours.run(main())
    assert secure_ours.contexts == []


@pytest.mark.parametrize("error", [ValueError("of the program"), OSError(5, "of the program")], ids=repr)
@VERSIONS
def test_raising_in_the_handshake(secure, error, version):
    async def main():
        context = told_of(server_context(version=version), Always(error))
        protocol = Recorder()
        async with against_peer(protocol, server_side=True, handshake=False, ssl=context, **LONG) as (
            _,
            peer,
        ):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connected(peer)
            with pytest.raises(type(error)):
                await protocol.connecting
            assert protocol.log == []

    secure.run(main())
    assert len(secure.contexts) == (not isinstance(error, OSError))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@VERSIONS
def test_an_error_that_leaves_the_run_leaves_the_handshake_going(secure_ours, error, version):
    callback = Always(error)

    async def main():
        context = told_of(server_context(version=version), callback)
        protocol = Recorder()
        async with against_peer(protocol, server_side=True, handshake=False, ssl=context, **LONG) as (
            _,
            peer,
        ):
            await peer.handshake()
            await protocol.connecting
            protocol.transport.write(b"x")
            assert await peer.read_exactly(1) == b"x"

    task = secure_ours.loop.create_task(main())
    with pytest.raises(error):
        secure_ours.loop.run_until_complete(task)
    callback.armed = False
    secure_ours.run(asyncio.wait_for(task, None))
    assert secure_ours.contexts == []


def test_an_error_of_connection_made_that_leaves_the_run(secure_ours):
    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise KeyboardInterrupt

    async def main():
        async with against_peer(Protocol(), handshake=False, **LONG) as (protocol, peer):
            await peer.handshake()
            await protocol.connecting
            await peer.write(b"x")
            await protocol.received(1)

    task = secure_ours.loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        secure_ours.loop.run_until_complete(task)
    secure_ours.run(asyncio.wait_for(task, None))
    assert secure_ours.contexts == []


@pytest.mark.parametrize("during", ["write", "read"])
@pytest.mark.parametrize("way", ["close", "write", "write and close", "abort"])
@VERSIONS
def test_coming_in_again(secure_ours, version, during, way):
    """What was asked for while the engine was in use is done when it is back, not at some timeout."""

    async def main():
        def act():
            if "write" in way:
                link.near.write(b"again")
            if "close" in way:
                link.near.close()
            if way == "abort":
                link.near.abort()

        once = Once(act)
        context = told_of(client_context(version=version), once)
        async with linked(client_options={"ssl": context}, version=version, **LONG) as link:
            link.far.write(b"tickets first")
            await link.client.received(13)
            once.armed = True
            if during == "write":
                link.near.write(b"x")
            else:
                link.far.write(b"x")
            if "write" in way:
                await link.server.received(5 + (during == "write"))
                assert link.server.data.endswith(b"again")
            if way != "write":
                await link.server.lost()
                await link.client.lost()

    secure_ours.run(main())
    assert secure_ours.contexts == []


@pytest.mark.parametrize("during", ["write", "read"])
def test_raising_after_the_handshake(secure, during):
    error = ValueError("of the program")

    def act():
        raise error

    async def main():
        once = Once(act)
        async with linked(client_options={"ssl": told_of(client_context(), once)}, **LONG) as link:
            link.far.write(b"tickets first")
            await link.client.received(13)
            once.armed = True
            (link.near if during == "write" else link.far).write(b"x")
            assert await link.client.lost() is error

    secure.run(main())
    assert [context["exception"] for context in secure.contexts] == [error]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("answer", ["raise", "nonsense", "close", "right"])
@VERSIONS
def test_keys_that_both_know(secure_ours, monkeypatch, version, answer, side):
    """Pre-shared keys are asked for in the middle of the handshake."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_type))

    async def main():
        loop = asyncio.get_running_loop()

        def asked(name, right):
            def answer_for(*_):
                if name != side or answer == "right":
                    return right
                if answer == "raise":
                    raise LookupError
                if answer == "nonsense":
                    return 17
                for thing in gc.get_objects():
                    if type(thing).__name__ == "SslTransport" and thing._loop is loop:
                        thing.close()
                return right

            return answer_for

        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        for context in (server, client):
            context.minimum_version = context.maximum_version = version
            context.set_ciphers("PSK")
        server.set_psk_server_callback(asked("server", b"key"))
        client.set_psk_client_callback(asked("client", ("me", b"key")))
        there = Recorder()
        async with serving(lambda: there, server, **LONG) as address:
            connecting = loop.create_connection(Recorder, *address, ssl=client, **LONG)
            if answer == "right":
                transport, protocol = await connecting
                transport.write(b"x")
                await there.received(1)
                transport.close()
                await protocol.lost()
                await there.lost()
            elif answer == "close":
                # The waiter of a connection that its owner closed ends without an error.
                await asyncio.gather(connecting, return_exceptions=True)
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await connecting

    secure_ours.run(main())
    assert secure_ours.contexts == []
    assert bool(unraisable) == (answer in ("raise", "nonsense"))


def test_a_callback_that_other_threads_wait_for(secure_ours):
    """It gives up the interpreter; a collection in another thread goes on meanwhile, and that thread may ask for the connection."""

    async def main():
        done = []

        def act():
            def work():
                gc.collect()
                done.append(link.near.get_extra_info("ssl_object") and link.near.is_closing())

            other = threading.Thread(target=work)
            other.start()
            other.join()

        once = Once(act)
        async with linked(client_options={"ssl": told_of(client_context(), once)}, **LONG) as link:
            once.armed = True
            link.near.write(b"x")
            await link.server.received(1)
            assert done == [False]

    secure_ours.run(main())
    assert secure_ours.contexts == []


def test_an_sni_callback_that_other_threads_wait_for(secure_ours):
    async def main():
        context = server_context()

        def wait(*_):
            other = threading.Thread(target=gc.collect)
            other.start()
            other.join()

        context.sni_callback = wait
        async with linked(server_options={"ssl": context}) as link:
            link.near.write(b"x")
            await link.server.received(1)

    secure_ours.run(main())
    assert secure_ours.contexts == []
