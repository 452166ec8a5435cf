"""Programs that put classes of their own in the place of `ssl.SSLObject`: what they check must be asked."""

import asyncio
import ssl

import pytest

from .support import Recorder
from .tls_support import client_context, linked, server_context


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
    """The fallback for such classes must not take over quietly where nobody asked for one."""
    from tokioloop import _tokioloop

    assert _tokioloop._tls_engine() == secure_ours.kind

    async def main():
        async with linked() as link:
            # OpenSSL called directly never shows its bytes to the object's methods.
            assert type(link.near.get_extra_info("ssl_object")) is ssl.SSLObject

    secure_ours.run(main())
