"""The `ssl.SSLObject` behind a connection, used by the program itself beside the transport."""

import ssl

import pytest

from .support import python
from .tls_support import CERTIFICATES, TLS_1_3, client_context, linked, server_context

LOOKERS = """
    import asyncio, ssl, sys, threading
    import tokioloop

    certificates = sys.argv[1]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{certificates}/server.pem", f"{certificates}/server.key")
    server.num_tickets = 200
    client = ssl.create_default_context(cafile=f"{certificates}/ca.pem")
    latest, over, sessions = [None], threading.Event(), [0, 0]

    def look(number):
        while not over.is_set():
            if latest[0] is not None:
                sessions[number] += latest[0].session is not None

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def main():
        listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
        address = listening.sockets[0].getsockname()
        for _ in range(100):
            reader, writer = await asyncio.open_connection(*address, ssl=client, server_hostname="localhost")
            latest[0] = writer.get_extra_info("ssl_object")
            for _ in range(3):
                writer.write(bytes(30_000))
                assert await reader.readexactly(30_000) == bytes(30_000)
            writer.close()
            await writer.wait_closed()
        listening.close()

    lookers = [threading.Thread(target=look, args=(number,)) for number in range(2)]
    for looker in lookers:
        looker.start()
    try:
        tokioloop.run(main())
    finally:
        over.set()
        for looker in lookers:
            looker.join()
    assert all(sessions)
    print("alive")
"""


@pytest.mark.parametrize("call", ["write", "unwrap"])
def test_what_the_object_writes_leaves_with_the_next_write(secure, call):
    async def main():
        async with linked() as link:
            ssl_object = link.near.get_extra_info("ssl_object")
            if call == "write":
                assert ssl_object.write(b"first ") == 6
                link.near.write(b"second")
                assert await link.server.received(12) == b"first second"
                link.far.write(b"answer")
                assert await link.client.received(6) == b"answer"
            else:
                with pytest.raises(ssl.SSLWantReadError):
                    ssl_object.unwrap()
                link.near.close()
                await link.server.lost()
                assert link.server.log == ["made", "eof", "lost"]

    secure.run(main())


def test_a_server_asks_for_a_certificate_after_the_handshake(secure):
    """TLS 1.3's post-handshake authentication, which only the object knows of."""
    server = server_context(version=TLS_1_3, client_certificates="ca")
    server.post_handshake_auth = True
    client = client_context(version=TLS_1_3, certificate="client")
    client.post_handshake_auth = True

    async def main():
        async with linked(client_options={"ssl": client}, server_options={"ssl": server}) as link:
            ssl_object = link.far.get_extra_info("ssl_object")
            assert ssl_object.getpeercert() in (None, {})
            ssl_object.verify_client_post_handshake()
            link.far.write(b"name, please")
            await link.client.received(12)
            link.near.write(b"this")
            await link.server.received(4)
            assert ssl_object.getpeercert()["subject"]

    secure.run(main())


def test_other_threads_look_at_the_session_while_tickets_come_in():
    """In a process of its own: what used to go wrong ended it."""
    assert python(LOOKERS, str(CERTIFICATES), TOKIOLOOP_TLS_ENGINE="direct").stdout == "alive\n"
