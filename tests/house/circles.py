"""Which file of `src/` imports which, read off the source text, and the circles that these imports close."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..test_layers import FILES

Module = tuple[str, ...]


def module_of(name: str) -> Module:
    parts = Path(name).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


MODULES = {module_of(name): name for name in FILES}


def leaves(tree: str, prefix: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    """The paths between `use` and the semicolon, each with the name that it has in the file."""
    head, brace, rest = tree.strip().partition("{")
    if not brace:
        path, _, alias = head.partition(" as ")
        parts = [*prefix, *(part.strip() for part in path.split("::"))]
        if parts[-1] == "self":
            parts.pop()
        yield parts, alias.strip() or parts[-1]
        return
    prefix += tuple(part for part in head.strip().split("::") if part)
    inner, depth, start = rest[: rest.rindex("}")], 0, 0
    for end, letter in enumerate(inner + ","):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            if inner[start:end].strip():
                yield from leaves(inner[start:end], prefix)
            start = end + 1


def file_of(module: Module, path: list[str], names: dict[str, list[str]]) -> str | None:
    """The file that a path leads to, seen from a module."""
    first, *rest = path
    if first in names and names[first] != path:
        return file_of(module, names[first] + rest, {})
    if first == "crate":
        target: Module = tuple(rest)
    elif first == "super":
        target = module
        while path and path[0] == "super":
            target, path = target[:-1], path[1:]
        target += tuple(path)
    elif first == "self":
        target = module + tuple(rest)
    elif (*module, first) in MODULES:
        target = module + tuple(path)
    else:
        return None
    while target and target not in MODULES:
        target = target[:-1]
    return MODULES.get(target)


def imports(name: str) -> set[str]:
    """The files that a file names, except the `mod.rs` above it: a room's file uses what the room is."""
    module, text = module_of(name), FILES[name]
    found = [leaf for tree in re.findall(r"\buse\s+([^;]+);", text) for leaf in leaves(tree)]
    names = {alias: path for path, alias in found}
    rest = re.sub(r"\buse\s+[^;]+;", "", text)
    paths = [path for path, _ in found]
    paths += [match.split("::") for match in re.findall(r"(?<![\w:])[a-z_]\w*(?:::\w+)+", rest)]
    files = {file_of(module, path, names) for path in paths}
    above = {MODULES.get(module[:length]) for length in range(len(module) + 1)}
    return {file for file in files if file is not None and file not in above}


GRAPH = {name: imports(name) for name in FILES if name != "lib.rs"}


def reached_from(name: str) -> set[str]:
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        for other in GRAPH.get(waiting.pop(), ()):
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached


def circles() -> set[frozenset[str]]:
    reach = {name: reached_from(name) for name in GRAPH}
    return {
        frozenset(other for other in reach[name] if name in reach.get(other, ()))
        for name in GRAPH
        if name in reach[name]
    }
