"""Programs that put classes of their own in the place of `ssl.SSLObject`: what they check must be asked."""

import asyncio
import gc
import ssl
import warnings
import weakref

import pytest

from .support import Recorder, collected, tcp_pair
from .tls_support import Peer, client_context, linked, server_context


class Refused(ssl.SSLError):
    pass


def test_a_check_after_the_handshake_is_made(secure):
    """Pinning: the certificate is in order, but the program wants another one."""
    asked = []

    class Pinned(ssl.SSLObject):
        def do_handshake(self):
            super().do_handshake()
            asked.append(self.getpeercert(binary_form=True) is not None)
            raise Refused("not the pinned certificate")

    context = client_context()
    context.sslobject_class = Pinned

    async def main():
        client = Recorder()
        with pytest.raises(Refused):
            async with linked(client, client_options={"ssl": context}):
                pytest.fail("connected all the same")
        assert asked == [True]
        assert client.log == []

    secure.run(main())


def test_bytes_pass_through_the_programs_own_methods(secure):
    wire = {"read": bytearray(), "written": bytearray(), "unwrapped": 0}

    class Recorded(ssl.SSLObject):
        def read(self, len=1024, buffer=None):
            if buffer is None:
                data = super().read(len)
                wire["read"] += data
                return data
            count = super().read(len, buffer)
            wire["read"] += buffer[:count]
            return count

        def write(self, data):
            count = super().write(data)
            wire["written"] += bytes(data)[:count]
            return count

        def unwrap(self):
            wire["unwrapped"] += 1
            return super().unwrap()

    context = server_context()
    context.sslobject_class = Recorded

    async def main():
        async with linked(server_options={"ssl": context}) as link:
            assert type(link.far.get_extra_info("ssl_object")) is Recorded
            link.near.write(b"question")
            assert await link.server.received(8) == b"question"
            link.far.write(b"answer" * 10_000)
            assert await link.client.received(60_000) == b"answer" * 10_000
            link.far.close()
            await asyncio.gather(link.client.lost(), link.server.lost())

    secure.run(main())
    assert wire["read"] == b"question"
    assert wire["written"] == b"answer" * 10_000
    assert wire["unwrapped"] > 0


def test_plain_contexts_get_the_engine_that_was_chosen(secure_ours):
    """The fallback for such classes must not take over silently where it was not asked for."""
    from tokioloop import _tokioloop

    assert _tokioloop._tls_engine() == secure_ours.kind

    async def main():
        async with linked() as link:
            # OpenSSL called directly never shows its bytes to the object's methods.
            assert type(link.near.get_extra_info("ssl_object")) is ssl.SSLObject

    secure_ours.run(main())


def test_the_collector_sees_what_an_engine_holds(secure_ours):
    """Each reference is visited as often as it is held; otherwise a cycle through the connection would stay forever."""

    async def main():
        async with linked() as link:
            gc.collect()
            seen = gc.get_referents(link.near)
            ssl_object = link.near.get_extra_info("ssl_object")
            if secure_ours.kind == "direct":
                assert [type(thing) for thing in seen].count(type(ssl_object._sslobj)) == 1
            else:
                assert [type(thing) for thing in seen].count(ssl.MemoryBIO) == 2
            # Its own two, and the memory BIO engine's.
            assert seen.count(ssl_object) == (2 if secure_ours.kind == "direct" else 3)

    secure_ours.run(main())


@pytest.mark.parametrize("end", ["lost", "the loop closed"])
def test_a_connection_in_a_cycle_through_its_object_is_collected(secure, end):
    class Object(ssl.SSLObject):
        pass

    async def main(protocol, near, far):
        context = client_context()
        context.sslobject_class = Object
        peer = Peer(far, server_context(), server_side=True)
        shaken = asyncio.create_task(peer.handshake())
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=near, ssl=context, server_hostname="localhost"
        )
        await shaken
        transport.get_extra_info("ssl_object").owner = transport
        if end == "lost":
            transport.abort()
            await protocol.lost()
        return weakref.ref(transport)

    near, far = tcp_pair()
    loop = secure.make_loop()
    reference = loop.run_until_complete(main(Recorder(), near, far))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
        del loop
        assert collected(reference)
    near.close()
    far.close()


@pytest.mark.parametrize("wrong", ["read", "write"])
def test_numbers_that_cannot_be(secure_ours, wrong):
    """An error of the program's class, and no panic of ours."""

    class Wrong(ssl.SSLObject):
        def read(self, len=1024, buffer=None):
            data = super().read(len)
            return data + bytes(300_000) if wrong == "read" else data

        def write(self, data):
            return super().write(data) + (wrong == "write")

    context = client_context()
    context.sslobject_class = Wrong

    async def main():
        async with linked(client_options={"ssl": context}) as link:
            link.near.write(b"x")
            link.far.write(b"x")
            assert isinstance(await link.client.lost(), RuntimeError)

    secure_ours.run(main())
    assert [type(context["exception"]) for context in secure_ours.contexts] == [RuntimeError]
