"""What `import tokioloop` brings, and what is imported when it is asked for: the same for every thread, and complete."""

import ast
import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

import tokioloop
from tokioloop import loop as loop_module

from .test_import import run_python

# What the import brings beyond that of asyncio. The list only shrinks: each of these is time at the start of every program.
BROUGHT = {
    "_queue",
    "concurrent.futures.thread",
    "queue",
    "tokioloop",
    "tokioloop._loop",
    "tokioloop._loop.errors",
    "tokioloop._loop.executor",
    "tokioloop._loop.exit",
    "tokioloop._loop.joining",
    "tokioloop._loop.lifecycle",
    "tokioloop._loop.log",
    "tokioloop._loop.signals",
    "tokioloop._loop.tasks",
    "tokioloop._tokioloop",
    "tokioloop.loop",
}

RACE = """
import sys, threading
import tokioloop

sys.setswitchinterval(1e-6)
NAMES = [name for name in tokioloop.__all__]
METHODS = [name for names in tokioloop.loop._ROOMS.values() for name in names.split()]
COUNT = 8
barrier = threading.Barrier(COUNT)
found = [None] * COUNT

def work(me):
    # Each begins elsewhere, so that different modules are asked for at the same time, and the same ones by several threads.
    names = NAMES[me % 4 * 7:] + NAMES[:me % 4 * 7]
    methods = METHODS[me % 3 * 9:] + METHODS[:me % 3 * 9]
    barrier.wait()
    things = {name: getattr(tokioloop, name) for name in names}
    things |= {"." + name: getattr(tokioloop.TokioLoop, name) for name in methods}
    found[me] = things

threads = [threading.Thread(target=work, args=(me,)) for me in range(COUNT)]
for thread in threads: thread.start()
for thread in threads: thread.join()
first = found[0]
print(all(each is not None and all(each[name] is first[name] for name in first) for each in found))
"""


def defined(room: str) -> set[str]:
    module, _, name = room.rpartition(".")
    members = vars(getattr(import_module(f"tokioloop.{module}"), name))
    return {name for name in members if not name.startswith("__") and name != "_abc_impl"}


def test_the_import_brings_no_more_than_it_must():
    code = "import asyncio, sys, json; was = set(sys.modules); import tokioloop; print(json.dumps(sorted({*sys.modules} - was)))"
    assert set(json.loads(run_python(code))) <= BROUGHT


def test_what_type_checkers_see_is_where_it_is_imported_from():
    tree = ast.parse(Path(tokioloop.__file__).read_text())
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        seen |= {alias.name: node.module or alias.name for alias in node.names}
    assert seen == tokioloop._LATER


def test_every_name_is_listed_before_it_is_asked_for():
    code = "import tokioloop; print([name for name in tokioloop.__all__ if name not in dir(tokioloop)])"
    assert run_python(code) == "[]"


def test_a_star_brings_everything():
    code = "from tokioloop import *; import tokioloop; print([name for name in tokioloop.__all__ if name not in globals()])"
    assert run_python(code) == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tokioloop' has no attribute 'WorkerPond'"):
        tokioloop.WorkerPond  # noqa: B018


@pytest.mark.parametrize("room", loop_module._ROOMS)
def test_a_room_gives_all_that_it_defines(room):
    assert set(loop_module._ROOMS[room].split()) == defined(room)


@pytest.mark.parametrize(
    "name", [names.split()[place] for names in loop_module._ROOMS.values() for place in (0, -1)]
)
def test_a_method_is_there_on_first_use(name):
    """In a process of its own nothing else has imported its room."""
    code = f"""
import tokioloop
method = getattr(tokioloop.TokioLoop, "{name}")
loop = tokioloop.TokioLoop()
print(getattr(tokioloop.TokioLoop, "{name}") is method, getattr(loop, "{name}", None) == getattr(method, "__get__", lambda *_: method)(loop))
loop.close()
"""
    assert run_python(code) == "True True"


def test_a_subclass_that_overrides_one_reaches_ours():
    code = """
import asyncio, tokioloop

class Mine(tokioloop.TokioLoop):
    async def create_server(self, *args, **options):
        self.asked = True
        return await super().create_server(*args, **options)

async def main():
    async with await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0):
        return asyncio.get_running_loop().asked

print(tokioloop.run(main(), loop_factory=Mine))
"""
    assert run_python(code) == "True"


def test_a_method_may_be_replaced_before_its_room_is_imported():
    code = """
import tokioloop
from unittest import mock

with mock.patch.object(tokioloop.TokioLoop, "create_server", "theirs"), mock.patch.object(tokioloop, "run", "theirs"):
    print(tokioloop.TokioLoop.create_server, tokioloop.run, tokioloop.TokioLoop.create_unix_server.__name__, end=" ")
print(tokioloop.TokioLoop.create_server.__name__, tokioloop.run.__name__)
"""
    assert run_python(code) == "theirs theirs create_unix_server create_server run"


@pytest.mark.parametrize("attempt", range(5))
def test_threads_that_race_to_the_first_use_get_the_same(attempt):
    assert run_python(RACE) == "True"


def test_coroutine_functions_are_seen_as_such():
    for name in ("create_server", "subprocess_exec", "getaddrinfo"):
        assert inspect.iscoroutinefunction(getattr(tokioloop.TokioLoop, name))
