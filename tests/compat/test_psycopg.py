"""psycopg against a real PostgreSQL: libpq does the talking, the loop watches its descriptor."""

import asyncio
from typing import Any

import pytest

from .servers import Postgres
from .support import AUTHORITY, HOST, PATIENCE, needed, pattern

psycopg = needed("psycopg")
psycopg_pool = needed("psycopg_pool")

from psycopg import AsyncConnection, errors, sql  # noqa: E402


@pytest.fixture(params=["tcp", "tls", "unix"])
def options(request: pytest.FixtureRequest, postgres_server: Postgres) -> dict[str, Any]:
    """How a client reaches the server."""
    host = {"tcp": HOST, "tls": "localhost", "unix": str(postgres_server.directory)}[request.param]
    tls = {"sslmode": "verify-full", "sslrootcert": str(AUTHORITY)}
    return {
        "host": host,
        "port": postgres_server.port,
        "user": postgres_server.USER,
        "password": postgres_server.PASSWORD,
        "dbname": postgres_server.DATABASE,
        "connect_timeout": PATIENCE,
        **(tls if request.param == "tls" else {"sslmode": "disable"}),
    }


def test_queries(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with await AsyncConnection.connect(**options) as connection:
            answer = await connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            assert await answer.fetchone() == (options["sslmode"] == "verify-full",)
            answer = await connection.execute(
                "select %s::int + 1, %s::text || '!', %b::bytea", (41, "so", b"\0")
            )
            assert await answer.fetchone() == (42, "so!", b"\0")
            answer = await connection.execute("select i, repeat('x', i) from generate_series(1, 2000) as i")
            assert [(i, len(x)) async for i, x in answer] == [(i, i) for i in range(1, 2001)]
            large = pattern(3_000_001)
            answer = await connection.execute("select %b::bytea", (large,), binary=True)
            assert await answer.fetchone() == (large,)
            with pytest.raises(errors.DivisionByZero):
                await connection.execute("select 1 / 0")

    run(main())


def test_transactions_pipelines_and_cursors(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with await AsyncConnection.connect(**options, autocommit=True) as connection:
            await connection.execute("create temporary table things (id int primary key)")
            with pytest.raises(errors.UniqueViolation):
                async with connection.transaction():
                    await connection.execute("insert into things values (1), (2), (1)")
            answer = await connection.execute("select count(*) from things")
            assert await answer.fetchone() == (0,)
            async with connection.pipeline(), connection.transaction():
                for number in range(1000):
                    await connection.execute("insert into things values (%s)", (number,))
            async with connection.transaction():
                async with connection.cursor("by name") as cursor:
                    await cursor.execute("select id from things order by id")
                    assert [row[0] async for row in cursor] == list(range(1000))

    run(main())


def test_copy_in_and_out(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with await AsyncConnection.connect(**options) as connection, connection.cursor() as cursor:
            await cursor.execute("create temporary table names (id int, name text)")
            async with cursor.copy("copy names from stdin") as copy:
                for number in range(5000):
                    await copy.write_row((number, f"name {number}"))
            async with cursor.copy("copy (select * from names order by id) to stdout") as copy:
                text = b"".join([bytes(piece) async for piece in copy]).decode()
            assert text == "".join(f"{number}\tname {number}\n" for number in range(5000))

    run(main())


def test_listen_and_notify(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with (
            await AsyncConnection.connect(**options, autocommit=True) as listener,
            await AsyncConnection.connect(**options, autocommit=True) as speaker,
        ):
            await listener.execute("listen news")
            for number in range(50):
                notify = sql.SQL("notify news, {}").format(f"item {number}")
                await speaker.execute(notify)
            heard = [note.payload async for note in listener.notifies(timeout=PATIENCE, stop_after=50)]
            assert heard == [f"item {number}" for number in range(50)]

    run(main())


def test_pool(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        pool = psycopg_pool.AsyncConnectionPool(
            kwargs=options, min_size=2, max_size=8, open=False, timeout=PATIENCE
        )
        async with pool:
            ready = asyncio.Barrier(8)

            async def together() -> int:
                async with pool.connection() as connection:
                    await ready.wait()
                    return connection.info.backend_pid

            assert len(set(await asyncio.gather(*(together() for _ in range(8))))) == 8

            async def square(number: int) -> int:
                async with pool.connection() as connection:
                    answer = await connection.execute("select %s::int ^ 2", (number,))
                    return int((await answer.fetchone())[0])

            assert await asyncio.gather(*map(square, range(200))) == [n * n for n in range(200)]

    run(main())


def test_cancelling_a_query_cancels_it_in_the_server(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        connection = await AsyncConnection.connect(**options, autocommit=True)
        observer = await AsyncConnection.connect(**options, autocommit=True)
        async with connection, observer:
            pid = connection.info.backend_pid
            sleeper = asyncio.create_task(connection.execute("select pg_sleep(3600)"))
            state = "select 1 from pg_stat_activity where pid = %s and query like '%%pg_sleep%%' and state = 'active'"
            while not await (await observer.execute(state, (pid,))).fetchone():
                pass
            sleeper.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeper
            answer = await connection.execute("select 1")
            assert await answer.fetchone() == (1,)

    run(main())


def test_a_connection_that_the_server_ends(run, options: dict[str, Any]) -> None:
    async def main() -> None:
        observer = await AsyncConnection.connect(**options, autocommit=True)
        victim = await AsyncConnection.connect(**options, autocommit=True)
        async with observer:
            sleeper = asyncio.create_task(victim.execute("select pg_sleep(3600)"))
            await observer.execute("select pg_terminate_backend(%s)", (victim.info.backend_pid,))
            with pytest.raises(psycopg.OperationalError):
                await sleeper
            assert victim.broken
            await victim.close()

    run(main())
