"""Two threads may make any calls on one object at once: no crash, no reference lost or released twice."""

import sys

import pytest

from ..children import finish
from .hammer import KINDS


@pytest.mark.parametrize("name", KINDS)
def test_two_threads(name: str) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.house.hammer", name]
    done = finish(command)
    assert (done.returncode, done.stderr) == (0, "")
