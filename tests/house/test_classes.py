"""Life and death of every native type: no code gets at an object that goes, chains of any length go on any stack."""

import sys
from pathlib import Path

import pytest

from ..children import finish
from .lives import MAKERS, OTHERS, SCENARIOS, native_types

ROOT = Path(__file__).resolve().parents[2]
RUST = [path for folder in ("src", "crates") for path in (ROOT / folder).rglob("*.rs")]


def test_every_native_type_is_tried():
    assert {kind.__name__ for kind in native_types()} == MAKERS.keys() | OTHERS


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in MAKERS for number in range(len(MAKERS[name]))]
)
def test_life(scenario, name, number):
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.house.lives", scenario, name, str(number)]
    done = finish(command)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_class_of_pyo3_has_weak_references_or_a_dict():
    """pyo3 releases an object's fields before it clears these."""
    sources = [path.read_text() for path in RUST]
    found = [line for text in sources for line in text.splitlines() if "#[pyclass(" in line]
    assert found and not [line for line in found if "weakref" in line or "dict" in line]


def test_there_is_one_deallocation():
    owners = [path.relative_to(ROOT).as_posix() for path in RUST if "Py_tp_dealloc" in path.read_text()]
    assert owners == ["crates/pyraw/src/class.rs"]
