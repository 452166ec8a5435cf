"""OpenSSL keeps a queue of errors for each thread, with the reason of a failed call. What others leave there is not ours, and we
leave nothing."""

import _ssl
import asyncio
import ctypes
import ssl

import pytest

from .support import BufferedRecorder, Recorder
from .tls_support import TLS_1_2, TLS_1_3, against_peer, linked

VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def openssl():
    """The functions of `_ssl`'s OpenSSL."""
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    if not hasattr(library, "ERR_new"):
        pytest.skip("OpenSSL before 3.0, or inside the interpreter")
    library.ERR_peek_error.restype = ctypes.c_ulong
    return library


@pytest.fixture
def poison(openssl):
    """Leave an error in the thread's queue, as a library does whose caller did not care."""

    def poison(*_):
        openssl.ERR_new()
        # Of the library of elliptic curves, some reason.
        openssl.ERR_set_error(16, 100, None)
        assert openssl.ERR_peek_error() != 0

    yield poison
    openssl.ERR_clear_error()


class Poisoned(Recorder):
    """Leaves errors whenever it is called."""

    def __init__(self, poison):
        super().__init__()
        self.poison = poison

    def note(self, *event):
        self.poison()
        super().note(*event)


@VERSIONS
def test_what_others_leave_harms_no_connection(secure_ours, poison, version):
    async def main():
        loop = asyncio.get_running_loop()

        def every_turn():
            nonlocal again
            poison()
            again = loop.call_soon(every_turn)

        again = loop.call_soon(every_turn)
        async with linked(Poisoned(poison), Poisoned(poison), version=version) as link:
            for size in (1, 1000, 100_000):
                before = len(link.server.data), len(link.client.data)
                poison()
                link.near.write(bytes(size))
                await link.server.received(before[0] + size)
                poison()
                link.far.writelines([bytes(size), bytes(size)])
                await link.client.received(before[1] + 2 * size)
            poison()
            link.near.close()
            assert await link.server.lost() is None
            assert await link.client.lost() is None
        again.cancel()

    secure_ours.run(main())
    assert secure_ours.contexts == []


@pytest.mark.parametrize("end", ["close", "alert", "junk", "refused", "cut"])
@VERSIONS
def test_nothing_is_left(secure_ours, openssl, version, end):
    async def main():
        assert openssl.ERR_peek_error() == 0
        async with against_peer(version=version) as (protocol, peer):
            assert openssl.ERR_peek_error() == 0
            if end == "alert":
                protocol.transport.write(b"x")
                await peer.read_exactly(1)
                peer.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
                with pytest.raises(ssl.SSLError):
                    peer.object.read(10)
                await peer.send(peer.pending())
            elif end == "junk":
                await peer.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            elif end == "refused":
                with pytest.raises(ssl.SSLWantReadError):
                    protocol.transport.get_extra_info("ssl_object").unwrap()
                protocol.transport.write(b"x")
            elif end == "cut":
                peer.close()
            else:
                protocol.transport.close()
                await peer.send(peer.goodbye())
            await protocol.lost()
            assert openssl.ERR_peek_error() == 0

    secure_ours.run(main())
    assert secure_ours.contexts == []


class Small(BufferedRecorder):
    """Takes a few bytes and pauses reading: the rest of the record is decrypted and waits."""

    def __init__(self):
        super().__init__(4)

    def buffer_updated(self, nbytes):
        self.transport.pause_reading()
        super().buffer_updated(nbytes)


def test_a_write_that_is_refused_says_why_and_takes_nothing_away(secure):
    async def main():
        async with against_peer(Small()) as (protocol, peer):
            await peer.write(b"0123456789")
            await protocol.received(4)
            # By the program itself: nothing may be written from now on.
            with pytest.raises(ssl.SSLError):
                protocol.transport.get_extra_info("ssl_object").unwrap()
            protocol.transport.write(b"x")
            error = await protocol.lost()
            assert error.reason == "PROTOCOL_IS_SHUTDOWN"
            assert b"0123456789".startswith(protocol.data)

    secure.run(main())
    assert secure.contexts == []
