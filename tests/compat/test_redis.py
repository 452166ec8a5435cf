"""redis-py against a real redis-server, over TCP, TLS and a Unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .servers import Redis
from .support import AUTHORITY, HOST, PATIENCE, needed, pattern

needed("redis.asyncio")

import redis.asyncio as redis  # noqa: E402
from redis.asyncio.retry import Retry  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402
from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: E402
from redis.exceptions import ResponseError, WatchError  # noqa: E402


@pytest.fixture(params=["tcp", "tls", "unix"])
def options(request: pytest.FixtureRequest, redis_server: Redis) -> dict[str, object]:
    """How a client reaches the server."""
    if request.param == "unix":
        return {"unix_socket_path": str(redis_server.path)}
    if request.param == "tls":
        return {
            "host": "localhost",
            "port": redis_server.tls_port,
            "ssl": True,
            "ssl_ca_certs": str(AUTHORITY),
        }
    return {"host": HOST, "port": redis_server.port}


@asynccontextmanager
async def connected(options: dict[str, object], **more: object) -> AsyncIterator[redis.Redis]:
    """A client of an empty database."""
    client = redis.Redis(**options, socket_timeout=PATIENCE, **more)
    try:
        await client.flushdb()
        yield client
    finally:
        await client.aclose()


def test_commands(run, options: dict[str, object]) -> None:
    async def main() -> None:
        async with connected(options, decode_responses=True) as client:
            assert await client.ping() is True
            assert await client.set("name", "value") is True
            assert await client.get("name") == "value"
            assert await client.get("nothing") is None
            assert await client.rpush("list", *map(str, range(1000))) == 1000
            assert await client.lrange("list", 0, -1) == [str(number) for number in range(1000)]
            assert await client.hset("hash", mapping={"a": "1", "b": "2"}) == 2
            assert await client.hgetall("hash") == {"a": "1", "b": "2"}
            with pytest.raises(ResponseError, match="not an integer"):
                await client.incr("name")
            assert {key async for key in client.scan_iter()} == {"name", "list", "hash"}

    run(main())


def test_large_values(run, options: dict[str, object]) -> None:
    async def main() -> None:
        async with connected(options) as client:

            async def there_and_back(number: int) -> None:
                await client.set(f"large {number}", pattern(3_000_001, number))
                assert await client.get(f"large {number}") == pattern(3_000_001, number)

            await asyncio.gather(*map(there_and_back, range(6)))

    run(main())


def test_many_connections(run, options: dict[str, object]) -> None:
    """Each client has a connection of its own; every increment counts."""
    clients, each = 60, 20

    async def main() -> None:
        async with connected(options) as client:

            async def count() -> list[int]:
                async with client.client() as mine:
                    return [await mine.incr("counter") for _ in range(each)]

            counted = await asyncio.gather(*(count() for _ in range(clients)))
            assert sorted(number for numbers in counted for number in numbers) == list(
                range(1, clients * each + 1)
            )

    run(main())


def test_pipelines_and_transactions(run, options: dict[str, object]) -> None:
    async def main() -> None:
        async with connected(options) as client:
            async with client.pipeline(transaction=False) as pipe:
                for number in range(5000):
                    pipe.set(f"key {number}", number)
                assert await pipe.execute() == [True] * 5000
            async with client.pipeline(transaction=True) as pipe:
                answers = await pipe.get("key 4999").incr("key 0").mget("key 1", "key 2").execute()
                assert answers == [b"4999", 1, [b"1", b"2"]]
            async with client.pipeline() as pipe:
                await pipe.watch("key 3")
                await client.set("key 3", "meanwhile")
                pipe.multi()
                pipe.set("key 3", "too late")
                with pytest.raises(WatchError):
                    await pipe.execute()
            assert await client.get("key 3") == b"meanwhile"

    run(main())


def test_publish_and_subscribe(run, options: dict[str, object]) -> None:
    async def main() -> None:
        async with connected(options) as client:
            ready = asyncio.Barrier(6)

            async def subscriber() -> list[bytes]:
                async with client.pubsub() as channel:
                    await channel.subscribe("news")
                    await channel.psubscribe("old*")
                    # The server has both.
                    assert (await channel.get_message(timeout=PATIENCE))["type"] == "subscribe"
                    assert (await channel.get_message(timeout=PATIENCE))["type"] == "psubscribe"
                    await ready.wait()
                    heard = []
                    async for message in channel.listen():
                        heard.append(message["data"])
                        if message["data"] == b"end":
                            return heard
                raise AssertionError

            async def publisher() -> None:
                await ready.wait()
                for number in range(500):
                    assert await client.publish("news", number) == 5
                assert await client.publish("olden", "end") == 5

            *heard, _ = await asyncio.gather(*(subscriber() for _ in range(5)), publisher())
            assert heard == [[*(b"%d" % number for number in range(500)), b"end"]] * 5

    run(main())


def test_blocking_commands_and_their_cancelling(run, options: dict[str, object]) -> None:
    async def main() -> None:
        async with connected(options) as client:

            async def waiting() -> None:
                while (await client.info("clients"))["blocked_clients"] == 0:
                    pass

            taker = asyncio.create_task(client.blpop("queue"))
            await waiting()
            await client.rpush("queue", "work")
            assert list(await taker) == [b"queue", b"work"]
            given_up = asyncio.create_task(client.blpop("queue"))
            await waiting()
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            await client.set("after", "all")
            assert await client.get("after") == b"all"

    run(main())


def test_a_connection_that_the_server_ends(run, options: dict[str, object]) -> None:
    async def main() -> None:
        async with connected(options, retry=Retry(NoBackoff(), 0)) as client, client.client() as victim:
            taker = asyncio.create_task(victim.blpop("never"))
            number = None
            while number is None:
                blocked = [entry for entry in await client.client_list() if entry["cmd"] == "blpop"]
                number = blocked[0]["id"] if blocked else None
            await client.client_kill_filter(_id=number)
            with pytest.raises(RedisConnectionError):
                await taker

    run(main())
