"""The switch between native tasks and asyncio's."""

import asyncio

import pytest

import tokioloop

from .support import python


async def look():
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(asyncio.sleep(0, "slept"))
    assert asyncio.all_tasks() == {task, asyncio.current_task()}
    assert await task == "slept"
    return type(asyncio.current_task()), type(task), type(loop.create_future())


def test_asyncios_tasks_by_an_argument():
    loop = tokioloop.TokioLoop(tasks="asyncio")
    assert loop.run_until_complete(look()) == (asyncio.Task, asyncio.Task, asyncio.Future)
    loop.set_task_factory(asyncio.eager_task_factory)
    assert loop.run_until_complete(loop.create_task(asyncio.sleep(0, 1))) == 1
    loop.close()


def test_the_argument_is_stronger_than_the_environment(monkeypatch):
    monkeypatch.setenv("TOKIOLOOP_TASKS", "asyncio")
    for argument, task in [(None, asyncio.Task), ("native", tokioloop.Task)]:
        loop = tokioloop.TokioLoop(tasks=argument)
        assert loop.run_until_complete(look())[0] is task
        loop.close()


@pytest.mark.parametrize(
    ("value", "kind"),
    [("asyncio", "_asyncio"), ("native", "tokioloop"), ("", "tokioloop")],
)
def test_the_environment_variable(value, kind):
    done = python(
        """
        import asyncio, tokioloop

        async def main():
            return type(asyncio.current_task())

        print(tokioloop.run(main()).__module__)
        """,
        TOKIOLOOP_TASKS=value,
    )
    assert done.stdout.strip() == kind


def test_unknown_choices(monkeypatch):
    with pytest.raises(ValueError, match="tasks must be 'native' or 'asyncio', not 'rust'"):
        tokioloop.TokioLoop(tasks="rust")
    monkeypatch.setenv("TOKIOLOOP_TASKS", "rust")
    with pytest.raises(ValueError, match="tasks must be"):
        tokioloop.TokioLoop()
