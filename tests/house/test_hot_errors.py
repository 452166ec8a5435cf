"""No error is dropped where pyo3 does not know that the thread is attached: that would end the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from .hot_errors import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", CASES)
def test_errors_are_raised(name: str) -> None:
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-m", "tests.house.hot_errors", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
