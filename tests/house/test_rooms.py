"""The rooms of the Python package, read off the source: imports go downwards only, and no files import each other in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tokioloop"

# From the bottom; a room imports from itself and from those before it.
ROOMS = (
    "_tokioloop",
    "tls",
    "runtime",
    "_loop",
    "_net",
    "_process",
    "loop",
    "_serving",
    "_pool",
    "_setup",
    "__init__",
    "_former",
)


def module_of(path: Path) -> str:
    """The name of a file's module inside the package: "_loop.errors", "loop", "__init__"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.glob("*.pyi")])}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def packages() -> set[str]:
    return {module for module, path in FILES.items() if path.name == "__init__.py"}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """What a module imports of the package, at its top or inside of a function; and whether that is for type checkers only."""
    inside = module.split(".") if module in packages() else module.split(".")[:-1]
    if module == "__init__":
        inside = []

    def walk(node: ast.AST, typing: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom):
                yield from ((name, typing) for name in targets(child))
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.partition(".")[0] == "tokioloop":
                        yield alias.name.partition(".")[2] or "__init__", typing
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                for part in child.body:
                    yield from walk(ast.Module([part], []), True)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), typing)
            else:
                yield from walk(child, typing)

    def targets(node: ast.ImportFrom) -> Iterator[str]:
        if node.level:
            base = [*inside[: len(inside) - node.level + 1], *filter(None, (node.module or "").split("."))]
        elif (node.module or "").partition(".")[0] == "tokioloop":
            base = (node.module or "").split(".")[1:]
        else:
            return
        for alias in node.names:
            name = ".".join([*base, alias.name])
            # A module, or something in one.
            yield name if name in FILES else ".".join(base) or "__init__"

    yield from walk(ast.parse(FILES[module].read_text()), False)


def test_every_file_has_a_room():
    assert {room_of(module) for module in FILES} == set(ROOMS)


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downwards(module):
    mine = ROOMS.index(room_of(module))
    above = {name for name, _ in imports(module) if ROOMS.index(room_of(name)) > mine}
    # The stubs of the native module name classes that it makes objects of.
    if module == "_tokioloop":
        assert above == {"_pool.job"}
    else:
        assert not above


def test_no_circles():
    """What is imported for type checkers only is left out: a server names the type of its loop, which makes it."""
    needs = {
        module: {name for name, typing in imports(module) if not typing} - {module}
        for module in FILES
        if module != "_tokioloop"
    }
    while free := [module for module, names in needs.items() if not names & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs


def test_the_reading_sees_imports_of_every_kind():
    found = {module: {name for name, _ in imports(module)} for module in FILES}
    assert "_process.transport" in found["_process.spawn"]
    assert "_loop.tasks" in found["_loop.tasks"]  # by its whole name, inside of a function
    assert "_tokioloop" in found["loop"]
    assert ("_net.serve", True) in imports("_net.server")
    assert "__init__" in found["_former._streams"]
