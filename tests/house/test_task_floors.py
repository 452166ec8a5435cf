"""The files of `src/event_loop/task/` import only those above them in the list that the head of its `mod.rs` shows."""

import re
from pathlib import Path

ROOM = Path(__file__).resolve().parents[2] / "src" / "event_loop" / "task"
FLOORS = [
    name
    for row in re.findall(r"^//! \| (`.*?) +\|", (ROOM / "mod.rs").read_text(), flags=re.M)
    for name in re.findall(r"`(\w+)`", row)
]


def imports(name: str) -> set[str]:
    """The files of the room that a file names: by `use super::x`, in braces, or by a path."""
    text = re.sub(r"//[^\n]*", "", (ROOM / f"{name}.rs").read_text())
    found = set(re.findall(r"\bsuper::(\w+)", text))
    for group in re.findall(r"\buse super::\{([^;]*)\};", text):
        found |= set(re.findall(r"\w+", re.sub(r"::\w+|::\{[^}]*\}", "", group)))
    return found & set(FLOORS)


def test_every_file_has_a_floor():
    assert sorted(FLOORS) == sorted(path.stem for path in ROOM.glob("*.rs") if path.stem != "mod")


def test_imports_go_downwards_only():
    upwards = {
        f"{name} -> {other}"
        for floor, name in enumerate(FLOORS)
        for other in imports(name)
        if FLOORS.index(other) >= floor
    }
    assert upwards == set()


def test_nothing_goes_round_by_the_folder_itself():
    """What a file names of `super` is a file, so that no import hides behind a name that `mod.rs` passes on."""
    for name in FLOORS:
        text = re.sub(r"//[^\n]*", "", (ROOM / f"{name}.rs").read_text())
        assert set(re.findall(r"\bsuper::(\w+)", text)) <= set(FLOORS), name
