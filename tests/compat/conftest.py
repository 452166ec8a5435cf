"""The loop under test, and the real servers."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from .servers import Postgres, Redis
from .support import PATIENCE


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=("tokioloop", "asyncio"),
        default="tokioloop",
        help="the loop that tests/compat runs its programs on",
    )


@pytest.fixture(scope="session")
def loop_name(request: pytest.FixtureRequest) -> str:
    """The loop under test, as on a program's command line: `module:factory`."""
    # The option is unknown where this file was not read before the command line was: then its default holds.
    chosen = request.config.getoption("--loop", default="tokioloop")
    return {"tokioloop": "tokioloop:new_event_loop", "asyncio": "asyncio:SelectorEventLoop"}[chosen]


@pytest.fixture(scope="session")
def loop_factory(loop_name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop_name.startswith("asyncio:"):
        return asyncio.SelectorEventLoop
    import tokioloop

    return tokioloop.new_event_loop


type Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Run]:
    """Run a coroutine on a loop of its own, as `asyncio.run` does; nothing may reach the loop's exception handler."""
    troubles: list[dict[str, Any]] = []

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        async def in_time() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: troubles.append(context))
            async with asyncio.timeout(PATIENCE):
                return await main

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(in_time())

    yield run
    # Objects that a program leaves unclosed warn in their own test.
    gc.collect()
    assert troubles == []


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server
