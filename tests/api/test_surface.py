"""The public surface: asyncio's interface is covered, and the stubs match the native module."""

import ast
import asyncio
import inspect
from pathlib import Path

import pytest

import tokioloop
from tokioloop import _tokioloop


def public(cls):
    return sorted(name for name in vars(cls) if not name.startswith("_"))


@pytest.mark.parametrize("name", public(asyncio.AbstractEventLoop))
def test_every_method_of_asyncio_s_loop_exists(name):
    ours = getattr(tokioloop.TokioLoop, name)
    assert ours is not getattr(asyncio.AbstractEventLoop, name)


@pytest.mark.parametrize("name", public(asyncio.AbstractServer))
def test_every_method_of_asyncio_s_server_exists(name, loop, run):
    async def main():
        async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
            assert getattr(type(server), name) is not getattr(asyncio.AbstractServer, name)

    run(main())


@pytest.mark.parametrize(
    "name",
    [
        "create_connection",
        "connect_read_pipe",
        "connect_write_pipe",
        "create_datagram_endpoint",
        "create_server",
        "create_unix_connection",
        "create_unix_server",
        "subprocess_exec",
        "subprocess_shell",
    ],
)
def test_arguments_are_those_of_asyncio(name):
    ours = inspect.signature(getattr(tokioloop.TokioLoop, name)).parameters
    theirs = inspect.signature(getattr(asyncio.SelectorEventLoop, name)).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_public_names_are_there_and_documented():
    for name in tokioloop.__all__:
        thing = getattr(tokioloop, name)
        assert name == "__version__" or inspect.getdoc(thing)


def test_stubs_match_the_native_module():
    stub = ast.parse(Path(tokioloop.__file__).with_name("_tokioloop.pyi").read_text())
    checked = 0
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            assert callable(getattr(_tokioloop, node.name))
            checked += 1
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            cls = getattr(_tokioloop, node.name)
            for member in node.body:
                if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    assert hasattr(cls, member.name), (node.name, member.name)
                    checked += 1
    assert checked > 40
