"""Whatever two threads call on one object at once, it stays whole: no crash, no reference lost or released twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from .hammer import KINDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", KINDS)
def test_two_threads(name: str) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.house.hammer", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
