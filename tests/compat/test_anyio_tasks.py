"""anyio's cancel scopes on native tasks: it asks for the current task by an import made before ours, and counts cancellations."""

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest

from .support import PATIENCE, needed

anyio = needed("anyio")

import tokioloop  # noqa: E402


def test_anyio_imported_before_us_finds_the_running_task() -> None:
    code = """
        import anyio
        from anyio._backends import _asyncio
        import tokioloop

        async def main():
            with anyio.move_on_after(0.001) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            name = anyio.get_current_task().name
            import asyncio
            assert asyncio.current_task().get_name() == name
            assert type(asyncio.current_task()) is tokioloop.Task

        anyio.run(main, backend_options={"loop_factory": tokioloop.new_event_loop})
    """
    subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=os.environ,
        timeout=PATIENCE,
        check=True,
    )


def test_scopes_inside_native_tasks_and_the_other_way_round() -> None:
    async def sleeps(log: list[str]) -> None:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            try:
                await anyio.sleep_forever()
            finally:
                log.append("left")
        assert scope.cancelled_caught
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        log.append("went on")

    async def main() -> None:
        log: list[str] = []
        task = asyncio.create_task(sleeps(log))
        assert type(task) is tokioloop.Task
        await task
        assert log == ["left", "went on"]
        async with asyncio.TaskGroup() as ours:
            ours.create_task(sleeps(log))
            async with anyio.create_task_group() as theirs:
                theirs.start_soon(sleeps, log)
        assert sorted(log) == ["left"] * 3 + ["went on"] * 3

    tokioloop.run(main())


def test_a_task_cancelled_from_outside_leaves_its_shielded_scope_whole() -> None:
    async def shielded(log: list[str]) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                log.append("asyncio's own cancellation passes a shield")
                raise

    async def main() -> None:
        log: list[str] = []
        task = asyncio.create_task(shielded(log))
        await asyncio.sleep(0)
        task.cancel("outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(log) == 1

    tokioloop.run(main())


def test_a_task_group_ended_by_an_error_cancels_the_rest_in_every_depth() -> None:
    async def nest(depth: int, ended: list[int]) -> None:
        try:
            async with anyio.create_task_group() as group:
                if depth:
                    group.start_soon(nest, depth - 1, ended)
                await anyio.sleep_forever()
        finally:
            ended.append(depth)

    async def fails() -> None:
        await anyio.wait_all_tasks_blocked()
        raise LookupError("on purpose")

    async def main() -> None:
        ended: list[int] = []

        async def both() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(nest, 5, ended)
                group.start_soon(fails)

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert caught.group_contains(LookupError)
        assert ended == [0, 1, 2, 3, 4, 5]

    tokioloop.run(main())
