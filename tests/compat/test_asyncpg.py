"""asyncpg against a real PostgreSQL: a protocol of its own on the loop's transports, TLS by start_tls included."""

import asyncio
import io
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from .servers import Postgres
from .support import HOST, PATIENCE, needed, pattern, trusting_tls

asyncpg = needed("asyncpg")

type Connect = Callable[..., Coroutine[Any, Any, Any]]
type Pool = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["tcp", "tls", "unix"])
def options(request: pytest.FixtureRequest, postgres_server: Postgres) -> dict[str, Any]:
    """How a client reaches the server."""
    host = {"tcp": HOST, "tls": "localhost", "unix": str(postgres_server.directory)}[request.param]
    return {
        "host": host,
        "port": postgres_server.port,
        "user": postgres_server.USER,
        "password": postgres_server.PASSWORD,
        "database": postgres_server.DATABASE,
        "ssl": trusting_tls() if request.param == "tls" else False,
        "timeout": PATIENCE,
    }


@asynccontextmanager
async def connected(options: dict[str, Any]):
    connection = await asyncpg.connect(**options)
    try:
        yield connection
    finally:
        await connection.close()


def test_queries(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(options) as connection:
            secure = await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            assert secure is bool(options["ssl"])
            row = await connection.fetchrow(
                "select $1::int + 1 as n, $2::text || '!' as t, $3::bytea as b", 41, "so", b"\0"
            )
            assert dict(row) == {"n": 42, "t": "so!", "b": b"\0"}
            rows = await connection.fetch("select i, repeat('x', i) as x from generate_series(1, 2000) as i")
            assert [(row["i"], len(row["x"])) for row in rows] == [(i, i) for i in range(1, 2001)]
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetchval("select 1 / 0")
            large = pattern(5_000_001)
            assert await connection.fetchval("select $1::bytea", large) == large

    run(main())


def test_transactions_and_cursors(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(options) as connection:
            await connection.execute("create temporary table things (id int primary key)")
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.transaction():
                    await connection.executemany("insert into things values ($1)", [(1,), (2,), (1,)])
            assert await connection.fetchval("select count(*) from things") == 0
            async with connection.transaction():
                await connection.executemany("insert into things values ($1)", [(i,) for i in range(1000)])
                inner = connection.transaction()
                await inner.start()
                await connection.execute("delete from things")
                await inner.rollback()
                seen = [
                    row["id"]
                    async for row in connection.cursor("select id from things order by id", prefetch=7)
                ]
            assert seen == list(range(1000))

    run(main())


def test_copy_in_and_out(run, options: dict[str, Any], tmp_path: Path) -> None:
    records = [(i, f"name {i}") for i in range(20_000)]

    async def main() -> None:
        async with connected(options) as connection:
            await connection.execute("create temporary table names (id int, name text)")
            assert await connection.copy_records_to_table("names", records=records) == "COPY 20000"
            out = io.BytesIO()
            assert (
                await connection.copy_from_query("select * from names order by id", output=out)
                == "COPY 20000"
            )
            assert out.getvalue().decode() == "".join(f"{i}\t{name}\n" for i, name in records)
            out.seek(0)
            assert await connection.copy_to_table("names", source=out) == "COPY 20000"
            assert await connection.fetchval("select count(*) from names") == 40_000

    run(main())


def test_listen_and_notify(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(options) as listener, connected(options) as speaker:
            heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
            await listener.add_listener(
                "news", lambda _, pid, channel, text: heard.put_nowait((channel, text))
            )
            for number in range(100):
                await speaker.execute("select pg_notify('news', $1)", f"item {number}")
            assert [await heard.get() for _ in range(100)] == [("news", f"item {i}") for i in range(100)]
            await listener.reset()

    run(main())


def test_pool(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(**options, min_size=2, max_size=10) as pool:
            ready = asyncio.Barrier(10)

            async def together() -> int:
                async with pool.acquire() as connection:
                    await ready.wait()
                    return await connection.fetchval("select pg_backend_pid()")

            assert len(set(await asyncio.gather(*(together() for _ in range(10))))) == 10

            async def square(number: int) -> int:
                return await pool.fetchval("select $1::int * $1", number)

            assert await asyncio.gather(*map(square, range(500))) == [n * n for n in range(500)]

    run(main())


def test_cancelling_a_query_cancels_it_in_the_server(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(options) as connection, connected(options) as observer:
            running = "select state = 'active' from pg_stat_activity where pid = $1"
            pid = connection.get_server_pid()
            sleeper = asyncio.create_task(connection.execute("select pg_sleep(3600)"))
            while not await observer.fetchval(running, pid):
                pass
            sleeper.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeper
            assert await connection.fetchval("select 1") == 1
            with pytest.raises(TimeoutError):
                await connection.execute("select pg_sleep(3600)", timeout=0.05)
            assert await connection.fetchval("select 2") == 2

    run(main())


def test_a_connection_that_the_server_ends(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with connected(options) as observer:
            victim = await asyncpg.connect(**options)
            ended = asyncio.Event()
            victim.add_termination_listener(lambda _: ended.set())
            sleeper = asyncio.create_task(victim.execute("select pg_sleep(3600)"))
            await observer.execute("select pg_terminate_backend($1)", victim.get_server_pid())
            with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                await sleeper
            await ended.wait()
            assert victim.is_closed()

    run(main())


def test_a_certificate_of_nobodys(run, postgres_server: Postgres) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncpg.connect(
                host="localhost",
                port=postgres_server.port,
                user=postgres_server.USER,
                password=postgres_server.PASSWORD,
                ssl=trusting_tls(authority="stranger"),
            )

    run(main())
